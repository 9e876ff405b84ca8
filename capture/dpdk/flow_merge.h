// capture/dpdk/flow_merge.h - one flow, one story: puts together what several cores tell of the same flow.
//
// Where a device sends the packets of one flow to two queues (fragments, a hash that does not know the
// carrier's header, a full ring), two tables hold a part each. Here the parts become one flow again: sums of
// the counters, one `created`, one `ended`. In:       updates of each core in its own order.   Out: the same
// updates, rewritten; some are swallowed. Threads:  the owner's.    Limits: one entry a live flow, about 150
// B; as many as the tables have slots. Not here: a flow whose ends each core takes for local differently:
// `local_networks` decides that. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "classifier/flow_update.h"

namespace egresswatch::capture {

class FlowMerge {
public:
    // What one core has told of its part.
    struct Part {
        FlowCounters total;
        Timestamp first_seen{}, last_seen{};
        std::uint32_t handshake_rtt_us = 0;
        datapath::initiator initiator = datapath::INITIATOR_UNKNOWN;
        bool initiator_sure = false;
        std::uint8_t tcp_flags_out = 0, tcp_flags_in = 0;
        std::uint8_t core = 0;
    };

    // False: nothing is left to tell.
    [[nodiscard]] bool merge(unsigned core, FlowUpdate& update);
    // Calls for each core that has a part: what it has told last of bytes_out, and how many parts there are.
    void for_parts(const datapath::flow_key& key,
                   const std::function<void(unsigned core, std::uint64_t bytes_out, std::size_t parts,
                                            std::uint64_t flow_bytes_out)>& call) const;
    [[nodiscard]] std::uint64_t flows() const noexcept { return flows_.size(); }
    [[nodiscard]] std::uint64_t flows_split() const noexcept { return flows_split_; }

private:
    struct KeyHash {
        std::size_t operator()(const datapath::flow_key& key) const noexcept {
            return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof key});
        }
    };
    struct KeyEqual {
        bool operator()(const datapath::flow_key& a, const datapath::flow_key& b) const noexcept {
            return std::memcmp(&a, &b, sizeof a) == 0;
        }
    };
    struct Split {
        std::vector<Part> live;
        Part over;  // the sum of the parts that ended
        bool any_over = false;
    };
    [[nodiscard]] bool merge_split(unsigned core, FlowUpdate& update, Split& split);

    std::unordered_map<datapath::flow_key, Part, KeyHash, KeyEqual> flows_;   // of one core each; or split:
    std::unordered_map<datapath::flow_key, Split, KeyHash, KeyEqual> split_;  // these have an entry in both
    std::uint64_t flows_split_ = 0;
};

}  // namespace egresswatch::capture
