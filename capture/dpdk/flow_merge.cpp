// capture/dpdk/flow_merge.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/flow_merge.h"

#include <algorithm>
#include <utility>

namespace egresswatch::capture {
namespace {

using Part = FlowMerge::Part;

Part part_of(unsigned core, const FlowUpdate& update) {
    return {update.total,
            update.first_seen,
            update.last_seen,
            update.handshake_rtt_us,
            update.initiator,
            update.initiator_sure,
            update.tcp_flags_out,
            update.tcp_flags_in,
            static_cast<std::uint8_t>(core)};
}

// Adds a part to a sum. Who opened the flow: a sure word before a guess, then the word of the part seen
// first.
void add(Part& sum, bool first, const Part& part) {
    if (first) {
        sum = part;
        return;
    }
    sum.total.packets_out += part.total.packets_out;
    sum.total.bytes_out += part.total.bytes_out;
    sum.total.packets_in += part.total.packets_in;
    sum.total.bytes_in += part.total.bytes_in;
    if (part.handshake_rtt_us != 0 &&
        (sum.handshake_rtt_us == 0 || part.handshake_rtt_us < sum.handshake_rtt_us))
        sum.handshake_rtt_us = part.handshake_rtt_us;
    const bool better =
        part.initiator_sure != sum.initiator_sure ? part.initiator_sure : part.first_seen < sum.first_seen;
    if (part.initiator != datapath::INITIATOR_UNKNOWN &&
        (sum.initiator == datapath::INITIATOR_UNKNOWN || better)) {
        sum.initiator = part.initiator;
        sum.initiator_sure = part.initiator_sure;
    }
    sum.first_seen = std::min(sum.first_seen, part.first_seen);
    sum.last_seen = std::max(sum.last_seen, part.last_seen);
    sum.tcp_flags_out |= part.tcp_flags_out;
    sum.tcp_flags_in |= part.tcp_flags_in;
}

}  // namespace

bool FlowMerge::merge(unsigned core, FlowUpdate& update) {
    const auto found = flows_.find(update.key);
    if (found == flows_.end()) {
        if (update.reason != UpdateReason::ended) flows_.emplace(update.key, part_of(core, update));
        return true;
    }
    auto split = split_.find(update.key);
    if (split == split_.end()) {
        if (found->second.core == core) {
            if (update.reason == UpdateReason::ended)
                flows_.erase(found);
            else
                found->second = part_of(core, update);
            return true;
        }
        ++flows_split_;
        split = split_.emplace(update.key, Split{}).first;
        split->second.live.push_back(found->second);
    }
    if (merge_split(core, update, split->second)) return true;
    // The last part is over.
    const bool ended = split->second.live.empty();
    if (ended) {
        split_.erase(split);
        flows_.erase(found);
    }
    return ended;
}

// True: tell it. False with parts left: nothing to tell; without: the flow is over, and that is to be told.
bool FlowMerge::merge_split(unsigned core, FlowUpdate& update, Split& split) {
    const Part part = part_of(core, update);
    const auto mine = std::ranges::find(split.live, static_cast<std::uint8_t>(core), &Part::core);
    if (update.reason == UpdateReason::ended) {
        if (mine != split.live.end()) split.live.erase(mine);
        add(split.over, !std::exchange(split.any_over, true), part);
    } else if (mine != split.live.end()) {
        *mine = part;
    } else {
        split.live.push_back(part);
    }
    Part sum;
    bool first = true;
    if (split.any_over) add(sum, std::exchange(first, false), split.over);
    for (const Part& each : split.live) add(sum, std::exchange(first, false), each);
    update.total = sum.total;
    update.first_seen = sum.first_seen;
    update.last_seen = sum.last_seen;
    update.handshake_rtt_us = sum.handshake_rtt_us;
    update.initiator = sum.initiator;
    update.initiator_sure = sum.initiator_sure;
    update.tcp_flags_out = sum.tcp_flags_out;
    update.tcp_flags_in = sum.tcp_flags_in;
    if (split.live.empty()) return false;
    // An active update with a zero delta says that the flow still lasts; another reason without one says
    // nothing of the whole flow.
    if (update.delta == FlowCounters{} && update.reason != UpdateReason::active) return false;
    if (update.reason == UpdateReason::created || update.reason == UpdateReason::ended)
        update.reason = UpdateReason::active;
    return true;
}

void FlowMerge::for_parts(
    const datapath::flow_key& key,
    const std::function<void(unsigned, std::uint64_t, std::size_t, std::uint64_t)>& call) const {
    const auto found = flows_.find(key);
    if (found == flows_.end()) return;
    const auto split = split_.find(key);
    if (split == split_.end()) {
        call(found->second.core, found->second.total.bytes_out, 1, found->second.total.bytes_out);
        return;
    }
    std::uint64_t all = split->second.any_over ? split->second.over.total.bytes_out : 0;
    for (const Part& part : split->second.live) all += part.total.bytes_out;
    for (const Part& part : split->second.live)
        call(part.core, part.total.bytes_out, split->second.live.size(), all);
}

}  // namespace egresswatch::capture
