// capture/process/process_cache.h - the processes that used the network, while they run and after.
//
// In:      what the kernel told of each (add), hashes as they come.   Out: Process, by its id.
// Threads: one.
// Limits:  PROCESSES_MAX, about 1 KiB each; when full the one that was asked for longest ago is forgotten.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>

#include "capture/process/executable_hash.h"
#include "capture/process/process.h"

namespace egresswatch::capture {

class ProcessCache {
public:
    static constexpr std::size_t PROCESSES_MAX = 16384;

    // `hasher` may be null: no hashes.
    explicit ProcessCache(ExecutableHasher* hasher) : hasher_(hasher) {}

    // Also of one that is there: what it is now counts.
    // `told_ns`: CLOCK_BOOTTIME, when the kernel told of it.
    void add(Process process, std::uint64_t inode, std::uint32_t device, std::uint64_t told_ns);
    // Null: never told of, or forgotten.
    [[nodiscard]] const Process* find(const ProcessId& id);
    // Hashes that have come meanwhile.
    void take_hashes();

    [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }
    [[nodiscard]] std::uint64_t forgotten() const noexcept { return forgotten_; }
    [[nodiscard]] std::uint64_t hashes_failed() const noexcept { return hashes_failed_; }
    [[nodiscard]] std::uint64_t hashes_failed(ExecutableHasher::Problem why) const noexcept {
        return failed_by_[static_cast<std::size_t>(why)];
    }

private:
    struct IdHash {
        std::size_t operator()(const ProcessId& id) const noexcept {
            return (id.start_ns * 0x9e3779b97f4a7c15ULL) ^ (std::uint64_t{id.pid} << 32 | id.exec_id);
        }
    };
    using Order = std::list<Process>;  // the one that was asked for last is in front

    ExecutableHasher* hasher_;
    Order processes_;
    std::unordered_map<ProcessId, Order::iterator, IdHash> index_;
    std::uint64_t forgotten_ = 0;
    std::uint64_t hashes_failed_ = 0;  // those below, and requests that found no room
    std::array<std::uint64_t, 4> failed_by_{};
};

}  // namespace egresswatch::capture
