// tests/bpf/sampler_test.cpp - how much payload the kernel hands up, and that counting does not depend on it.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "tests/bench/traffic_mix.h"
#include "tests/support/bpf_test_run.h"
#include "tests/support/catch.h"
#include "tests/support/packet_builder.h"
#include "tests/support/test_region.h"

namespace dp = egresswatch::datapath;
using namespace egresswatch::test;

namespace {

BpfTestRun open_or_fail(const BpfTestRun::Options& options, std::span<const std::byte> block) {
    auto run = BpfTestRun::open(options, block);
    if (!run) FAIL(run.error().to_string());
    return std::move(*run);
}

void send(BpfTestRun& run, const BpfTestRun::Packet& packet) {
    const auto ran = run.run(packet);
    if (!ran) FAIL(ran.error().to_string());
}

// Of a CPU over so much packet time, the windows at its ends included.
std::uint64_t samples_at_most(std::uint64_t ns) {
    return ((ns >> dp::SAMPLE_WINDOW_SHIFT) + 2) * dp::SAMPLES_A_WINDOW;
}

}  // namespace

// A quarter of a million packets a second, of one CPU. What is slower than 190,000 may have a larger share,
// of a CPU that has time.
TEST_CASE("fewer than one packet in fifty of a mixed load is sampled", "[ebpf][bpf]") {
    const auto region = make_region("0.0.0.0/0 US\n::/0 US\n");
    auto run = open_or_fail({.flow_slots = 65536, .samples = true}, region->block());
    TrafficMix mix({.packets = 500'000, .flows = 10'000, .seconds = 2});
    std::uint64_t sent = 0;
    for (MadePacket made; mix.next(made);) {
        BpfTestRun::Packet packet;
        packet.bytes = made.bytes;
        packet.at_ns = made.at_ns;
        packet.direction = made.from_local ? dp::DIRECTION_OUT : dp::DIRECTION_IN;
        send(run, packet);
        sent++;
        if (sent % 4096 == 0) (void)run.take_events();
    }
    const dp::sampler samples = run.sampler();
    std::printf("  %llu packets: %llu samples, %llu beyond the limit, %llu without room\n",
                static_cast<unsigned long long>(sent), static_cast<unsigned long long>(samples.sampled),
                static_cast<unsigned long long>(samples.limited),
                static_cast<unsigned long long>(samples.full));
    CHECK(samples.sampled > 100);
    CHECK((samples.sampled + samples.full) * 50 < sent);
    const dp::iface_totals totals = run.iface_totals();
    CHECK(totals.by_direction[0].seen.packets + totals.by_direction[1].seen.packets == sent);
}

TEST_CASE("a flood of new flows is counted whole, and sampled no more than the limit lets it",
          "[ebpf][bpf]") {
    const auto region = make_region("1.0.0.0/8 US\n");
    const auto us = region->lookup(egresswatch::Address::parse("1.2.3.4").value());
    constexpr std::uint64_t flows = 200'000, ns_apart = 1000;
    auto run = open_or_fail({.flow_slots = 1u << 18, .samples = true}, region->block());
    std::uint64_t ip_bytes = 0;
    for (std::uint64_t i = 0; i < flows; ++i) {
        const auto bytes = PacketBuilder()
                               .ethernet(0x0800)
                               .ipv4("10.0.0." + std::to_string(1 + i / 60'000), "1.2.3.4", 17)
                               .udp(static_cast<std::uint16_t>(1 + i % 60'000), 443)
                               .payload(200)
                               .bytes();
        ip_bytes += bytes.size() - 14;
        BpfTestRun::Packet packet;
        packet.bytes = bytes;
        packet.at_ns = 1 + i * ns_apart;
        send(run, packet);
        if (i % 4096 == 0) (void)run.take_events();
    }
    const dp::sampler samples = run.sampler();
    CHECK(samples.limited > flows / 2);
    CHECK(samples.sampled + samples.full <= samples_at_most(flows * ns_apart));
    std::uint64_t live = 0, in_flows = 0;
    for (const auto& entry : run.table()) {
        if ((entry.head.tag & dp::FLOW_LIVE) == 0) continue;
        live++;
        in_flows += entry.counts.packets_out;
    }
    const auto losses = run.losses();
    CHECK(live == in_flows);
    CHECK(samples.sampled + samples.full + samples.limited == live);
    CHECK(in_flows + losses[dp::LOSS_FLOWS_FULL] == flows);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].packets == flows);
    CHECK(run.class_totals(us).by_direction[dp::DIRECTION_OUT].ip_bytes == ip_bytes);
}
