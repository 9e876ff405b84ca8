// tests/bpf/program_test.cpp - the tc programs alone: the verifier's word, counts, losses, the swap of the
// region. SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <random>

#include "tests/support/bpf_test_run.h"
#include "tests/support/catch.h"
#include "tests/support/datapath_bench.h"
#include "tests/support/packet_builder.h"
#include "tests/support/test_region.h"

namespace dp = egresswatch::datapath;
using egresswatch::Prefix;
using egresswatch::test::BpfTestRun;
using egresswatch::test::make_region;
using egresswatch::test::PacketBuilder;

namespace {

BpfTestRun open_or_fail(const BpfTestRun::Options& options, std::span<const std::byte> block) {
    auto run = BpfTestRun::open(options, block);
    if (!run) FAIL(run.error().to_string());
    return std::move(*run);
}

void send(BpfTestRun& run, const std::vector<std::uint8_t>& bytes, dp::direction way, std::uint64_t at_ns = 1,
          std::uint16_t segments = 0, std::uint16_t segment_bytes = 0) {
    BpfTestRun::Packet packet;
    packet.bytes = bytes;
    packet.at_ns = at_ns;
    packet.direction = way;
    packet.gso_segments = segments;
    packet.gso_bytes = segment_bytes;
    const auto ran = run.run(packet);
    if (!ran) FAIL(ran.error().to_string());
}

std::vector<std::uint8_t> udp(const std::string& to, std::uint16_t port, std::size_t payload = 18) {
    return PacketBuilder()
        .ethernet(0x0800)
        .ipv4("10.0.0.1", to, 17)
        .udp(40000, port)
        .payload(payload)
        .bytes();
}

}  // namespace

TEST_CASE("every program passes the verifier", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    auto run = open_or_fail({}, region->block());
    const auto facts = run.facts();
    REQUIRE(facts.size() == 4);
    for (const auto& fact : facts) {
        std::printf("%-14s %u instructions, %u walked by the verifier, %u bytes of machine code\n",
                    fact.program.c_str(), fact.instructions, fact.verified_instructions, fact.native_bytes);
        CHECK(fact.instructions > 0);
        // The kernel's limit is a million (BPF_COMPLEXITY_LIMIT_INSNS); older verifiers prune less.
        CHECK(fact.verified_instructions < 500'000);
    }
}

TEST_CASE("a packet counts to its class, its interface and its flow", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n2.0.0.0/8 DE\n");
    auto run = open_or_fail({}, region->block());
    const auto us = region->lookup(egresswatch::Address::parse("1.2.3.4").value());
    const auto de = region->lookup(egresswatch::Address::parse("2.2.3.4").value());
    REQUIRE(us != de);
    send(run, udp("1.2.3.4", 443), dp::DIRECTION_OUT, 1000);
    send(run, udp("2.2.3.4", 443), dp::DIRECTION_OUT, 2000);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].packets == 1);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].ip_bytes == 46);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].frame_bytes == 60);
    CHECK(run.class_totals(de).by_direction[dp::DIRECTION_OUT].packets == 1);
    CHECK(run.iface_totals().by_direction[dp::DIRECTION_OUT].seen.packets == 2);
    unsigned live = 0;
    for (const auto& entry : run.table()) {
        if (!(entry.head.tag & dp::FLOW_LIVE)) continue;
        live++;
        CHECK(entry.head.key.class_id == us);
        CHECK(entry.counts.bytes_out == 46);
        CHECK(entry.head.first_seen_ns == 1000);
    }
    CHECK(live == 1);  // home traffic has totals and no entry
    const auto events = run.take_events();
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == dp::EVENT_FLOW_NEW);
}

TEST_CASE("a super-packet counts as the segments that the wire carries", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    auto run = open_or_fail({}, region->block());
    const auto us = region->lookup(egresswatch::Address::parse("1.2.3.4").value());
    const auto bytes = PacketBuilder()
                           .ethernet(0x0800)
                           .ipv4("10.0.0.1", "1.2.3.4", 6)
                           .tcp(40000, 443, 0x10)
                           .payload(3000)
                           .bytes();
    send(run, bytes, dp::DIRECTION_OUT, 1, 3, 1000);
    const auto& out = run.class_totals(us).by_direction[dp::DIRECTION_OUT];
    CHECK(out.packets == 3);
    CHECK(out.ip_bytes == 3000 + 3 * 40);
    CHECK(out.frame_bytes == 3000 + 3 * 54);
    const auto iface = run.iface_totals().by_direction[dp::DIRECTION_OUT];
    CHECK(iface.as_given.packets == 1);
    CHECK(iface.as_given.bytes == bytes.size());
}

TEST_CASE("a full flow table loses no packet: flows and losses are what was sent", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    auto run = open_or_fail({.flow_slots = 256}, region->block());
    const auto us = region->lookup(egresswatch::Address::parse("1.2.3.4").value());
    constexpr unsigned SENT = 2000;
    std::uint64_t bytes = 0;
    for (unsigned i = 0; i < SENT; i++) {
        const auto packet = udp("1.2.3.4", static_cast<std::uint16_t>(1000 + i), 18 + i % 50);
        bytes += packet.size() - 14;
        send(run, packet, dp::DIRECTION_OUT, 1 + i);
    }
    std::uint64_t packets_in_flows = 0, bytes_in_flows = 0;
    for (const auto& entry : run.table()) {
        if (!(entry.head.tag & dp::FLOW_LIVE)) continue;
        packets_in_flows += entry.counts.packets_out;
        bytes_in_flows += entry.counts.bytes_out;
    }
    const auto losses = run.losses();
    CHECK(losses[dp::LOSS_FLOWS_FULL] > 0);
    CHECK(packets_in_flows > 200);
    CHECK(packets_in_flows + losses[dp::LOSS_FLOWS_FULL] == SENT);
    CHECK(bytes_in_flows + losses[dp::LOSS_FLOWS_FULL_BYTES] == bytes);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].packets == SENT);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].ip_bytes == bytes);
    unsigned full_events = 0;
    for (const auto& event : run.take_events()) full_events += event.kind == dp::EVENT_FLOWS_FULL;
    CHECK(full_events == 1);  // at most one a second: the packets' clock moved 2 us
}

TEST_CASE("an event ring without room is a counted loss, and the flow is not touched", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    auto run = open_or_fail({.flow_slots = 32768}, region->block());
    // 1 MiB of 80-byte records hold 13,107 events; nobody reads.
    constexpr unsigned SENT = 16000;
    for (unsigned i = 0; i < SENT; i++)
        send(run, udp("1.2.3.4", static_cast<std::uint16_t>(i + 1)), dp::DIRECTION_OUT, 1);
    const auto losses = run.losses();
    const auto events = run.take_events();
    CHECK(losses[dp::LOSS_EVENTS_FULL] > 0);
    CHECK(events.size() + losses[dp::LOSS_EVENTS_FULL] ==
          SENT + (losses[dp::LOSS_FLOWS_FULL] != 0 ? 1 : 0) - losses[dp::LOSS_FLOWS_FULL]);
    std::uint64_t packets = losses[dp::LOSS_FLOWS_FULL];
    for (const auto& entry : run.table())
        if (entry.head.tag & dp::FLOW_LIVE) packets += entry.counts.packets_out;
    CHECK(packets == SENT);
}

TEST_CASE("a flow's volume event comes at 64 KiB and then at doublings", "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    auto run = open_or_fail({}, region->block());
    const auto packet = udp("1.2.3.4", 443, 1472 - 28 + 0);
    const std::uint64_t ip_bytes = packet.size() - 14;
    for (std::uint64_t sent = 0; sent < 600'000; sent += ip_bytes) send(run, packet, dp::DIRECTION_OUT, 1);
    std::vector<std::uint64_t> at;
    for (const auto& event : run.take_events())
        if (event.kind == dp::EVENT_FLOW_VOLUME) at.push_back(event.bytes_out);
    REQUIRE(at.size() == 4);
    CHECK(at[0] >= 65536);
    CHECK(at[0] < 65536 + ip_bytes);
    for (std::size_t i = 1; i < at.size(); i++) {
        CHECK(at[i] >= 2 * at[i - 1]);
        CHECK(at[i] < 2 * at[i - 1] + ip_bytes);
    }
}

TEST_CASE("a new region table takes effect whole, and one beyond the capacity is not put in", "[ebpf][bpf]") {
    const auto before = make_region("1.0.0.0/8 US\n");
    const auto after = make_region("1.0.0.0/8 DE\n", before.get());
    auto run = open_or_fail({}, before->block());
    send(run, udp("1.2.3.4", 443), dp::DIRECTION_OUT);
    const auto swapped = run.install_block(after->block());
    REQUIRE(swapped);
    CHECK(*swapped);
    send(run, udp("1.2.3.4", 443), dp::DIRECTION_OUT);
    const auto address = egresswatch::Address::parse("1.2.3.4").value();
    CHECK(run.class_totals(before->lookup(address)).by_direction[dp::DIRECTION_OUT].packets == 1);
    CHECK(run.class_totals(after->lookup(address)).by_direction[dp::DIRECTION_OUT].packets == 1);
    const std::vector<std::byte> huge(8 << 20);
    const auto refused = run.install_block(huge);
    REQUIRE(refused);
    CHECK_FALSE(*refused);
}

namespace {

// Frames of many shapes, some of them cut anywhere or with a byte turned.
std::vector<std::uint8_t> random_frame(std::mt19937& random) {
    const auto address = [&] {
        return std::to_string(1 + random() % 4) + "." + std::to_string(random() % 2) + ".0." +
               std::to_string(random() % 4);
    };
    const auto port = [&]() -> std::uint16_t {
        constexpr std::uint16_t PORTS[] = {53, 443, 40000, 4789, 6081, 2152, 3544};
        return PORTS[random() % std::size(PORTS)];
    };
    PacketBuilder builder;
    if (random() % 4 == 0)
        builder.ethernet(0x8100).vlan(7, 0x0800);
    else
        builder.ethernet(0x0800);
    if (random() % 4 == 0) builder.ipv4(address(), address(), 4);
    if (random() % 5 == 0)
        builder.ipv4(address(), address(), 41).ipv6("2001:db8::1", "2600::2", 6).tcp(port(), port(), 0x18);
    else if (random() % 2)
        builder.ipv4(address(), address(), 6, random() % 2 ? 0 : 8)
            .tcp(port(), port(), static_cast<std::uint8_t>(random() % 32), random() % 2 ? 0 : 12);
    else
        builder.ipv4(address(), address(), 17).udp(port(), port());
    auto bytes = builder.payload(random() % 64).bytes();
    if (random() % 8 == 0) bytes[14 + random() % (bytes.size() - 14)] = static_cast<std::uint8_t>(random());
    // Not below an IPv4 header: BPF_PROG_TEST_RUN refuses such frames since Linux 6.17.
    if (random() % 8 == 0) bytes.resize(34 + random() % (bytes.size() - 34));
    return bytes;
}

}  // namespace

TEST_CASE("kernel and user space make equal tables, totals and losses of the same packets", "[ebpf][bpf]") {
    auto bench = std::make_unique<dp::Bench>(1024);
    bench->set_region({{Prefix::parse("1.0.0.0/8").value(), dp::KIND_OUTSIDE},
                       {Prefix::parse("2.0.0.0/8").value(), dp::KIND_HOME},
                       {Prefix::parse("3.0.0.0/8").value(), dp::KIND_LOCAL},
                       {Prefix::parse("2600::/12").value(), dp::KIND_OUTSIDE}});
    auto run = open_or_fail({.flow_slots = 1024, .hash_seed = 42}, std::as_bytes(std::span(bench->region)));
    std::mt19937 random(20261124);
    for (unsigned i = 0; i < 20000; i++) {
        const auto bytes = random_frame(random);
        const auto way = random() % 2 ? dp::DIRECTION_OUT : dp::DIRECTION_IN;
        const auto segments = static_cast<std::uint16_t>(random() % 8 == 0 ? 1 + random() % 3 : 0);
        const auto segment_bytes = static_cast<std::uint16_t>(segments ? 20 : 0);
        bench->now = 1'000'000'000ULL + i * 1000ULL;
        bench->account(bytes, way, segments, segment_bytes, 1, BpfTestRun::IFINDEX);
        send(run, bytes, way, bench->now, segments, segment_bytes);
    }
    const auto table = run.table();
    CHECK(std::memcmp(table.data(), bench->flows.data(), table.size_bytes()) == 0);
    const auto outers = run.outers();
    CHECK(std::memcmp(outers.data(), bench->outers.data(), outers.size_bytes()) == 0);
    const auto iface = run.iface_totals();
    CHECK(std::memcmp(&iface, &bench->iface, sizeof iface) == 0);
    CHECK(run.losses() == std::array<std::uint64_t, dp::LOSS_REASON_COUNT>(std::to_array<std::uint64_t>(
                              {bench->losses[0], bench->losses[1], bench->losses[2], bench->losses[3],
                               bench->losses[4], bench->losses[5], bench->losses[6], bench->losses[7]})));
    for (std::uint32_t id = 0; id < 5; id++) {
        const auto totals = run.class_totals(id);
        CHECK(std::memcmp(&totals, &bench->classes[id], sizeof totals) == 0);
    }
    unsigned live = 0;
    for (const auto& entry : table) live += (entry.head.tag & dp::FLOW_LIVE) != 0;
    CHECK(live > 200);
}
