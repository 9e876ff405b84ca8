// classifier/flow_update.h - what every capture engine hands up: news of one flow.
// SPDX-License-Identifier: Apache-2.0
//
// In:  engines of capture/ make them.     Out: the agent feeds them to rules/ and to the journal.
// Threads: on_flow_updates() is called from the engine's own thread, never concurrently.
// Clock: packet time, since the epoch. An engine never reads the wall clock to stamp a packet.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"

namespace egresswatch {

using Timestamp = std::chrono::sys_time<std::chrono::nanoseconds>;

struct FlowCounters {
    std::uint64_t packets_out = 0;  // on the wire: a segmentation-offloaded packet counts as its segments
    std::uint64_t bytes_out = 0;    // IP bytes
    std::uint64_t packets_in = 0;
    std::uint64_t bytes_in = 0;

    auto operator<=>(const FlowCounters&) const = default;
};

// What was counted since `before`.
[[nodiscard]] constexpr FlowCounters operator-(const FlowCounters& now, const FlowCounters& before) noexcept {
    return {now.packets_out - before.packets_out, now.bytes_out - before.bytes_out,
            now.packets_in - before.packets_in, now.bytes_in - before.bytes_in};
}

enum class UpdateReason : std::uint8_t {
    created,  // first news of this flow
    active,   // its counters moved since the last update
    volume,   // it crossed notify_bytes_out: delivered at once, not at the next drain
    ended     // idle, closed or evicted: the last update; nothing follows under this flow's identity
};

struct FlowUpdate {
    datapath::flow_key key{};  // addresses and ports in network order
    FlowCounters total;        // since first_seen
    FlowCounters delta;  // since the previous update of this flow; sums of deltas equal `total`, exactly
    Timestamp first_seen{};
    Timestamp last_seen{};
    Address outer_local;  // zero where key.tunnel is TUNNEL_NONE
    Address outer_remote;
    std::uint32_t ifindex = 0;           // 0 for files
    std::uint32_t handshake_rtt_us = 0;  // smallest TCP handshake round trip; 0: none seen
    datapath::initiator initiator = datapath::INITIATOR_UNKNOWN;
    bool initiator_sure = false;  // from a SYN or SYN-ACK, not guessed from ports or order
    std::uint8_t tcp_flags_out = 0;
    std::uint8_t tcp_flags_in = 0;
    UpdateReason reason = UpdateReason::active;

    [[nodiscard]] Address local() const noexcept { return Address::from_bytes(key.local_addr); }
    [[nodiscard]] Address remote() const noexcept { return Address::from_bytes(key.remote_addr); }
    [[nodiscard]] std::uint16_t local_port() const noexcept { return datapath::host16(key.local_port); }
    [[nodiscard]] std::uint16_t remote_port() const noexcept { return datapath::host16(key.remote_port); }
};

// The words of the policy, the journal and the command line for enum tunnel_kind: "none", "ipip", "6in4",
// "gre", "erspan", "vxlan", "geneve", "gtpu", "teredo".
[[nodiscard]] std::string_view tunnel_name(std::uint8_t kind) noexcept;

class FlowSink {
public:
    virtual ~FlowSink() = default;
    // The updates die when this returns: copy what you keep. `now` is the packet time reached: windows may
    // advance to it; it never goes back. Also called with an empty span, so that time passes without traffic.
    virtual void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept = 0;
};

}  // namespace egresswatch
