// capture/process/process_cache.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/process_cache.h"

#include <utility>

namespace egresswatch::capture {

void ProcessCache::add(Process process, std::uint64_t inode, std::uint32_t device, std::uint64_t told_ns) {
    const ProcessId id = process.id;
    if (const auto known = index_.find(id); known != index_.end()) {
        // The program is the same, so its file is: the hash stays.
        process.sha256 = std::move(known->second->sha256);
        process.hash = known->second->hash;
        process.hash_problem = std::move(known->second->hash_problem);
        processes_.erase(known->second);
        index_.erase(known);
    }
    if (process.hash == HashState::none && hasher_ != nullptr && inode != 0) {
        const bool taken =
            hasher_->want({id, process.executable, inode, device, process.executable_deleted, told_ns});
        process.hash = taken ? HashState::pending : HashState::failed;
        if (!taken) {
            process.hash_problem = "too many executables wait to be read";
            hashes_failed_++;
        }
    }
    if (index_.size() >= PROCESSES_MAX) {
        index_.erase(processes_.back().id);
        processes_.pop_back();
        forgotten_++;
    }
    processes_.push_front(std::move(process));
    index_[id] = processes_.begin();
}

const Process* ProcessCache::find(const ProcessId& id) {
    const auto known = index_.find(id);
    if (known == index_.end()) return nullptr;
    processes_.splice(processes_.begin(), processes_, known->second);
    return &*known->second;
}

void ProcessCache::take_hashes() {
    if (hasher_ == nullptr) return;
    for (auto& result : hasher_->take()) {
        const auto known = index_.find(result.process);
        if (known == index_.end()) continue;
        Process& process = *known->second;
        if (result.sha256) {
            process.sha256 = std::move(*result.sha256);
            process.hash = HashState::known;
        } else {
            process.hash_problem = std::move(result.sha256.error().words);
            process.hash = HashState::failed;
            hashes_failed_++;
            failed_by_[static_cast<std::size_t>(result.sha256.error().problem)]++;
        }
    }
}

}  // namespace egresswatch::capture
