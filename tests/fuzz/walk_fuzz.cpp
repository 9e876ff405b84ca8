// tests/fuzz/walk_fuzz.cpp - any bytes as a packet of any link type: no crash, one outcome, one answer.
//
// The first four bytes choose: link type, direction, how much longer the packet was on the wire. Held for
// each input: the fast walk agrees with the full one where it answers, and what is
// read without a guess with the fast one; the frame is in exactly one outcome;
// bytes never exceed the frame; a packet and its cut-off copy never disagree on addresses.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "classifier/datapath/layout.h"
#include "classifier/flow_table.h"
#include "classifier/link_type.h"
#include "tests/support/memory_frame.h"
//
#include "classifier/plain_packet.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::datapath;

struct NullSink final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
};

void require(bool condition) {
    if (!condition) std::abort();
}

void fast_equals_full(const std::vector<std::uint8_t>& bytes, std::uint32_t wire_bytes) {
    for (const std::uint8_t start : {START_ETHERNET, START_IP}) {
        walk_result fast;
        std::memset(&fast, 0xaa, sizeof fast);  // what it must write, it must write
        if (!walk_fast(bytes.data(), bytes.data() + bytes.size(), start, wire_bytes, &fast)) continue;
        const MemoryFrame frame{bytes.data(), static_cast<__u32>(bytes.size())};
        walk_state state;
        frame_facts facts{};
        facts.wire_bytes = wire_bytes;
        facts.captured_bytes = frame.captured;
        facts.start = start;
        walk_full(&frame, &state, &facts);
        const walk_result& full = state.result;
        require(std::memcmp(fast.src, full.src, 16) == 0 && std::memcmp(fast.dst, full.dst, 16) == 0);
        require(fast.sport == full.sport && fast.dport == full.dport && fast.l4_proto == full.l4_proto);
        require(fast.tcp_flags == full.tcp_flags && fast.status == full.status && fast.levels == full.levels);
        require(fast.tunnel == full.tunnel && fast.flags == full.flags && fast.ip_offset == full.ip_offset);
        require(fast.ip_bytes == full.ip_bytes && fast.payload_offset == full.payload_offset);
    }
}

// Read without a guess: the same as the fast walk's answer, which refuses nothing of it but a tunnel's port.
void plain_equals_fast(const std::vector<std::uint8_t>& bytes, std::uint32_t wire_bytes) {
    PlainPacket plain;
    if (!read_plain(bytes.data(), static_cast<__u32>(bytes.size()), wire_bytes, plain)) return;
    if (plain.sent >> 32 != PROTO_TCP && plain.sent >> 32 != PROTO_UDP) return;
    walk_result fast;
    const bool to_tunnel =
        plain.sent >> 32 == PROTO_UDP && (is_tunnel_port(host16(static_cast<__u16>(plain.sent))) != 0 ||
                                          is_tunnel_port(host16(static_cast<__u16>(plain.sent >> 16))) != 0);
    const bool answers =
        walk_fast(bytes.data(), bytes.data() + bytes.size(), START_ETHERNET, wire_bytes, &fast) != 0;
    require(answers != to_tunnel);
    if (!answers) return;
    require(std::memcmp(&plain.source, fast.src, 16) == 0 &&
            std::memcmp(&plain.destination, fast.dst, 16) == 0);
    require(plain.sent == (fast.sport | __u64{fast.dport} << 16 | __u64{fast.l4_proto} << 32));
    require(plain.ip_offset == fast.ip_offset && plain.ip_bytes == fast.ip_bytes);
    require(payload_offset_of(bytes.data(), plain) == fast.payload_offset &&
            plain.tcp_flags == fast.tcp_flags);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 4) return 0;
    const std::uint32_t link_type = data[0] | (data[1] & 1u) << 8;
    const auto direction = static_cast<std::uint8_t>(data[2] % 3);
    const std::vector<std::uint8_t> bytes(data + 4, data + size);  // exact: a sanitizer sees one byte too far
    const auto wire_bytes = static_cast<std::uint32_t>(bytes.size() + data[3] * 7u);
    if (!bytes.empty()) fast_equals_full(bytes, wire_bytes);
    plain_equals_fast(bytes, wire_bytes);

    static FlowTable table({.slots_start = 64, .slots_max = 256, .track_all = true});
    static NullSink sink;
    static std::uint64_t packets = 0;
    PacketInput input;
    input.bytes = bytes;
    input.wire_bytes = wire_bytes;
    input.link = locate_link(link_type, bytes);
    input.direction = direction;
    input.at_ns = ++packets * 1000000;
    table.account({&input, 1}, sink);

    const PacketVerdict verdict = table.last_verdict();
    require(verdict.outcome < OUTCOME_COUNT);
    if (verdict.outcome <= OUTCOME_OUTSIDE) require(verdict.ip_bytes <= wire_bytes);
    std::uint64_t seen = 0;
    std::uint64_t outcomes = 0;
    std::uint64_t seen_bytes = 0;
    std::uint64_t outcome_bytes = 0;
    for (const auto& side : table.interface_totals()[0].by_direction) {
        seen += side.seen.packets;
        seen_bytes += side.seen.bytes;
        for (const auto& outcome : side.outcome) {
            outcomes += outcome.packets;
            outcome_bytes += outcome.bytes;
        }
    }
    require(seen == packets && outcomes == packets && seen_bytes == outcome_bytes);
    return 0;
}
