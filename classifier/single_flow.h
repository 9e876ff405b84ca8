// classifier/single_flow.h - flows of one packet, in user space. Internal to classifier/.
// SPDX-License-Identifier: Apache-2.0
//
// What a scan or a name server leaves is flows of one packet each. Such a flow has a head and no counts yet:
// a cache line less to write, to read, and of fresh memory for the kernel to clear. Its head says what its
// counts would be; they are written with its second packet, as flow_create() would have written them with the
// first.
#pragma once

#include <cstdint>

#include "classifier/datapath/layout.h"
#include "classifier/plain_packet.h"

namespace egresswatch {

// Beside FLOW_LIVE in a head's tag (account_flow(), which compares whole tags, is asked only for flows that
// the table does not have): the flow has no counts. `handshake_rtt_us`, which no flow of one packet has, is
// the packet's IP bytes then, and its direction.
constexpr std::uint32_t single_flow = 1;
static_assert((single_flow & datapath::FLOW_LIVE) == 0);
constexpr unsigned single_direction_bit = 31;
// A packet that is told of at once is in its counts.
constexpr std::uint64_t single_bytes_max = datapath::VOLUME_EVENT_MIN - 1;

// FlowCounters, what went out and what came in each at once: what is written in words and read in halves soon
// after waits until the words have arrived in the cache.
struct CounterHalves {
    Halves out, in;  // packets, bytes

    [[nodiscard]] std::uint64_t packets() const noexcept { return out[0] + in[0]; }
};

[[nodiscard]] inline bool is_single(const datapath::flow_head& head) noexcept {
    return (head.tag & single_flow) != 0;
}
[[nodiscard]] inline std::uint32_t single_word(std::uint64_t ip_bytes, std::uint8_t direction) noexcept {
    return static_cast<std::uint32_t>(ip_bytes) | static_cast<std::uint32_t>(direction)
                                                      << single_direction_bit;
}
[[nodiscard]] inline datapath::direction single_direction(const datapath::flow_head& head) noexcept {
    return static_cast<datapath::direction>(head.handshake_rtt_us >> single_direction_bit);
}
[[nodiscard]] inline std::uint32_t single_bytes(const datapath::flow_head& head) noexcept {
    return head.handshake_rtt_us & ~(1u << single_direction_bit);
}
[[nodiscard]] inline CounterHalves single_counters(const datapath::flow_head& head) noexcept {
    const Halves counted = {1, single_bytes(head)};
    const std::uint64_t in = single_direction(head);
    return {counted & Halves{in - 1, in - 1}, counted & Halves{0 - in, 0 - in}};
}

}  // namespace egresswatch
