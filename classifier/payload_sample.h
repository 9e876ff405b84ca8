// classifier/payload_sample.h - payload of packets on its way from an engine to whoever reads names in it.
//
// An engine that was told to sample gives it to the sink that it is started with, where that is a PayloadSink
// too. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "classifier/flow_update.h"

namespace egresswatch {

// Payload of one of the first packets of a flow, or of any packet from or to a name server.
struct PayloadSample {
    datapath::flow_key key{};
    bool tracked = false;  // false: the flow has no entry, and no update will tell of it
    datapath::direction direction = datapath::DIRECTION_OUT;
    datapath::initiator initiator = datapath::INITIATOR_UNKNOWN;
    std::uint8_t tcp_flags = 0;
    std::uint32_t tcp_sequence = 0;
    std::uint32_t ip_bytes = 0;
    std::uint32_t ifindex = 0;
    Timestamp at{};
    std::span<const std::uint8_t> payload;  // what was captured of it; never empty
};

// Of how many packets of a flow, counted in both directions, the payload is handed over: a TLS 1.2 server has
// shown its certificate by then, and both sides of SSH their algorithms. Datagrams of any protocol but DNS: a
// ClientHello of QUIC lies in the first two or three.
inline constexpr std::uint64_t sampled_packets_max = 32;
inline constexpr std::uint64_t sampled_datagrams_max = 8;

[[nodiscard]] constexpr bool is_name_server_port(std::uint16_t big_endian) noexcept {
    return big_endian == 0x3500;  // 53
}
[[nodiscard]] inline bool speaks_to_name_server(const datapath::flow_key& key) noexcept {
    const int remote = is_name_server_port(key.remote_port);
    const int local = is_name_server_port(key.local_port);
    return (remote | local) != 0;  // no branch on each
}

class PayloadSink {
public:
    virtual ~PayloadSink() = default;
    // Before any update that counts the packet; the payload dies when this returns. True: the next packet of
    // this flow may say more.
    virtual bool on_payload(const PayloadSample& sample) noexcept = 0;
};

}  // namespace egresswatch
