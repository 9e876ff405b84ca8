// capture/ebpf/attribution.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/attribution.h"

#include <algorithm>
#include <utility>

namespace egresswatch::capture {

std::expected<std::unique_ptr<Attribution>, OsError> Attribution::start(Config config, const SharedMaps& maps,
                                                                        std::uint32_t flow_slots) {
    std::unique_ptr<Attribution> made(new Attribution);
    made->config_ = config;
    if (config.hashes) {
        auto hasher = ExecutableHasher::start();
        if (!hasher) return std::unexpected(hasher.error());
        made->hasher_ = std::move(*hasher);
    }
    auto object = SenderObject::load(maps, flow_slots);
    if (!object) return std::unexpected(object.error());
    made->object_ = std::move(*object);
    made->cache_ = std::make_unique<ProcessCache>(made->hasher_.get());
    // After the hooks: what is opened meanwhile is seen by one of the two.
    if (auto looked = made->object_->look_for_older_sockets(); !looked)
        return std::unexpected(looked.error());
    made->read_news();
    return made;
}

void Attribution::read_news() {
    object_->read_processes(*cache_, users_, config_.arguments);
    cache_->take_hashes();
}

const Origin* Attribution::origin_of(const datapath::flow_sender& sender) {
    return sender.outcome == datapath::SENDER_ROUTED ? peers_.behind(sender.ingress_ifindex) : nullptr;
}

const Process* Attribution::process_of(const datapath::flow_sender& sender) {
    if (sender.outcome != datapath::SENDER_PROCESS) return nullptr;
    const ProcessId id{sender.start_ns, sender.pid, sender.exec_id};
    if (const Process* known = cache_->find(id)) return known;
    // Lost, or forgotten: its next use of the network tells of it again.
    object_->forget(sender.pid);
    without_details_++;
    Process unknown;
    unknown.id = id;
    unknown.details_lost = true;
    cache_->add(std::move(unknown), 0, 0, 0);
    return cache_->find(id);
}

void Attribution::admit(Batch& fresh, Batch& ready, bool all) {
    held_.updates.insert(held_.updates.end(), fresh.updates.begin(), fresh.updates.end());
    held_.senders.insert(held_.senders.end(), fresh.senders.begin(), fresh.senders.end());
    fresh.clear();
    ready.clear();
    auto& senders = held_.senders;
    if (senders.empty()) return;
    const auto waits = [this](const datapath::flow_sender& sender) {
        const Process* process = process_of(sender);
        return process != nullptr && process->hash == HashState::pending;
    };
    auto end = std::find_if(senders.begin(), senders.end(), waits);
    const auto now = Clock::now();
    const bool was_waiting = held_since_ != Clock::time_point{};
    const bool too_long = was_waiting && now - held_since_ >= HOLD_MAX;
    if (end != senders.end() && (all || senders.size() > HELD_MAX || too_long)) {
        without_hash_ += static_cast<std::uint64_t>(std::count_if(end, senders.end(), waits));
        end = senders.end();
    }
    const auto count = end - senders.begin();
    ready.senders.assign(senders.begin(), end);
    ready.updates.assign(held_.updates.begin(), held_.updates.begin() + count);
    senders.erase(senders.begin(), end);
    held_.updates.erase(held_.updates.begin(), held_.updates.begin() + count);
    if (senders.empty())
        held_since_ = {};
    else if (!was_waiting || count != 0)
        held_since_ = now;
}

void Attribution::add_details(EngineDetails& details) const {
    details.words["senders"] = "processes";
    details.counters["processes.known"] = cache_->size();
    details.counters["processes.forgotten"] = cache_->forgotten();
    details.counters["processes.lost"] = object_->lost();
    details.counters["processes.without_details"] = without_details_;
    details.counters["hashes.failed"] = cache_->hashes_failed();
    using Problem = ExecutableHasher::Problem;
    details.counters["hashes.changed"] = cache_->hashes_failed(Problem::changed);
    details.counters["hashes.too_large"] = cache_->hashes_failed(Problem::too_large);
    details.counters["hashes.too_slow"] = cache_->hashes_failed(Problem::too_slow);
    details.counters["hashes.threads_stuck"] = hasher_ ? hasher_->stuck() : 0;
    details.counters["hashes.files_read"] = hasher_ ? hasher_->files_read() : 0;
    details.counters["hashes.not_waited_for"] = without_hash_;
}

}  // namespace egresswatch::capture
