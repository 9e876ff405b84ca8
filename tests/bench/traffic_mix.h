// tests/bench/traffic_mix.h - made-up traffic of a rack, the same bytes for the same seed on every machine.
//
// In:      how many packets and flows, and their shares (TrafficSpec).
// Out:     Ethernet frames in order of time, one a call; and what a perfect observer would have counted.
// Memory:  8 bytes a packet and 20 a flow: 84 MB for 10 M packets of 200,000 flows.
// Clock:   made up: `seconds` of traffic from start_ns on, never going back.
// Limits:  flows_max, seconds_max.
// Not so:  checksums of TCP and UDP are zero (those of IPv4 headers are right); no IP options.
// SPDX-License-Identifier: Apache-2.0
//
// The traffic: hosts 10.32.0.0/20 and fd00:32::/64 talk to servers and clients all over the world (home,
// outside, unknown: traffic_mix.cpp has the prefixes) and to 10.33.0.0/16. TCP with handshake, data, FIN;
// UDP; ICMP echo. Three of ten flows are mice of one to three packets (DNS, lone SYNs, pings); the sizes of
// the others follow Zipf's law with exponent 1. Frame lengths are IMIX's (7 of 60, 4 of 590, 1 of 1514
// bytes). A share of the flows is IPv6, a share is tagged (802.1Q). A few remote servers get most of the
// flows.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "classifier/address.h"

namespace egresswatch::test {

struct TrafficSpec {
    static constexpr std::uint64_t flows_max = 1u << 24;
    static constexpr std::uint64_t seconds_max = 1000;

    std::uint64_t packets = 10'000'000;
    std::uint64_t flows = 200'000;  // at most as many as packets
    bool even = false;              // every flow has the same number of packets, no mice
    std::uint64_t seed = 1;
    std::uint64_t seconds = 100;
    std::uint32_t snap_bytes = 0;  // 0: whole frames
    unsigned ipv6_percent = 25;
    unsigned vlan_percent = 20;
    // Of a thousand flows, how many are out of the ordinary: tunnels, fragments, extension headers, IP
    // options, stacked tags, ARP, broken and cut headers (all kinds, in turns). For tests that compare
    // engines.
    unsigned odd_of_thousand = 0;
    std::uint64_t start_ns = 1'764'000'000'000'000'000;  // 2025-11-24 16:00:00 UTC
};

// What was handed out so far. Without odd flows a perfect observer finds exactly this.
struct TrafficTruth {
    std::uint64_t packets = 0;
    std::uint64_t frame_bytes = 0;  // on the wire, without frame check sequence
    std::uint64_t captured_bytes = 0;
    std::uint64_t ip_bytes = 0;  // of the outermost IP header: total length; payload length + 40. 0 for ARP
    std::uint64_t flows = 0;     // conversations: both directions are one
    std::uint64_t directed_flows = 0;  // each direction that sent a packet
    std::uint64_t odd_packets = 0;     // of odd flows; these are in the other sums as well
};

struct MadePacket {
    std::span<const std::uint8_t> bytes;  // captured part; dies with the next packet
    std::uint32_t wire_bytes = 0;
    std::uint64_t at_ns = 0;
    std::uint32_t flow = 0;
    bool from_local = false;
};

class TrafficMix {
public:
    // Throws std::invalid_argument where the spec breaks a limit.
    explicit TrafficMix(const TrafficSpec& spec);

    // False after the last packet.
    [[nodiscard]] bool next(MadePacket& out);
    [[nodiscard]] const TrafficTruth& truth() const noexcept { return truth_; }
    // Our end of every flow. East-west peers lie outside of it.
    [[nodiscard]] static std::vector<Prefix> local_networks();

private:
    struct Conversation;  // what a flow is, computed from its number
    struct FlowState {
        std::uint32_t packets = 0;
        std::uint32_t sent = 0;
        std::array<std::uint32_t, 2> sequence{};  // next TCP sequence number of each end
        std::uint8_t directions = 0;              // bit 0: our end has sent, bit 1: the other
    };
    struct Step;  // what one packet of a flow does

    void share_out();
    void schedule();
    [[nodiscard]] Conversation conversation(std::uint32_t flow) const noexcept;
    [[nodiscard]] static Step step_of(const Conversation& flow, const FlowState& state, std::uint64_t random);
    void put_link(const Conversation& flow, bool from_local);
    void put_ip(const Conversation& flow, bool from_local, std::uint32_t l4_bytes);
    void put_l4(const Conversation& flow, FlowState& state, const Step& step, std::uint32_t payload);
    void put_odd_packet(const Conversation& flow, std::uint32_t number, std::uint64_t random);
    void put8(unsigned value) { frame_[used_++] = static_cast<std::uint8_t>(value); }
    void put16(unsigned value);
    void put32(std::uint32_t value);
    void put_address(const Address& address, bool ipv6);

    TrafficSpec spec_;
    std::vector<FlowState> flows_;
    std::vector<std::uint64_t> schedule_;  // nanoseconds << 24 | flow, sorted
    std::size_t position_ = 0;
    TrafficTruth truth_;
    static constexpr std::uint32_t wire_max = 2048;  // of an odd packet too
    std::array<std::uint8_t, wire_max> frame_{};
    std::uint32_t used_ = 0;  // bytes of frame_ that are written
    std::uint32_t wire_ = 0;  // bytes of the frame
    std::uint32_t captured_max_ = 0;
    std::uint32_t ip_bytes_ = 0;
};

// Classic pcap, written as fast as memory takes it.
struct CaptureFormat {
    bool nanoseconds = false;
    bool big_endian = false;
};
// Appends header and records of the whole mix.
void append_capture(std::vector<std::uint8_t>& to, TrafficMix& mix, std::uint32_t snap_bytes,
                    CaptureFormat format = {});
// The same into a file; an errno, 0 where all went well.
[[nodiscard]] int write_capture(const std::string& path, TrafficMix& mix, std::uint32_t snap_bytes,
                                CaptureFormat format = {});

}  // namespace egresswatch::test
