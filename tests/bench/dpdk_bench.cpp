// tests/bench/dpdk_bench.cpp - packets a second of the DPDK engine, by number of cores. A subject of
// tools/bench.
//
// Packets go round in net_ring devices (tests/support/dpdk_rings.h): nobody has to keep up with feeding the
// cores, and what is measured is burst, classification, flow table and freeing. Each core has `--ports` rings
// of 1023 packets, each packet of a flow of its own. --null: net_null, whose packets are not IP: the engine's
// own cost alone. DPDK starts once in a process: each figure is of a process of its own.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "capture/dpdk/dpdk_engine.h"
#include "tests/support/dpdk_rings.h"
#include "tests/support/packet_builder.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;
using Clock = std::chrono::steady_clock;

struct Nobody final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        updates += news.size();
    }
    std::uint64_t updates = 0;
};

std::vector<std::uint8_t> frame_of(unsigned flow) {
    const std::string theirs = "8." + std::to_string(flow >> 16 & 255) + "." +
                               std::to_string(flow >> 8 & 255) + "." + std::to_string(flow & 255);
    return PacketBuilder().ethernet(0x0800).ipv4("10.0.0.1", theirs, 17).udp(5000, 443).payload(18).bytes();
}

// Packets a second of all cores together, or a negative number where DPDK would not.
double measure(unsigned cores, unsigned ports, bool null, double seconds, const RegionTable& region) {
    capture::DpdkConfig config;
    config.eal_args = {"--no-pci"};
    for (unsigned port = 0; port < ports; ++port)
        config.eal_args.push_back(null ? "--vdev=net_null" + std::to_string(port) + ",size=64"
                                       : "--vdev=net_ring" + std::to_string(port));
    config.huge_pages = false;
    config.memory_mb = 1024;
    config.queues = static_cast<std::uint16_t>(cores);
    for (unsigned cpu = 0; cpu < cores; ++cpu) config.cores.push_back(cpu);
    config.mbufs = 1023;
    config.descriptors = 512;
    config.promiscuous = false;
    config.spread = capture::DpdkSpread::queues;
    config.idle = capture::DpdkIdle::spin;
    config.table.slots_max = 1u << 17;
    config.table.local_networks = {Prefix::parse("10.0.0.0/8").value()};
    auto engine = capture::DpdkEngine::make(config);
    Nobody sink;
    if (!engine || !(*engine)->install_region(region)) return -1;
    if (auto done = (*engine)->start(sink); !done) {
        std::fprintf(stderr, "dpdk_bench: %s\n", done.error().to_string().c_str());
        return -1;
    }
    if (!null)
        for (unsigned port = 0; port < ports; ++port)
            for (unsigned queue = 0; queue < cores; ++queue)
                fill_for_ever(ring_of(port, queue),
                              ("round" + std::to_string(port) + "_" + std::to_string(queue)).c_str(),
                              [&](unsigned i) { return frame_of((port * cores + queue) << 10 | i); });
    const auto packets = [&] {
        std::uint64_t sum = 0;
        for (const auto& core : (*engine)->status().cores) sum += core.packets;
        return sum;
    };
    const auto poll_for = [&](double time) {
        const auto end = Clock::now() + std::chrono::duration<double>(time);
        while (Clock::now() < end)
            if (!(*engine)->poll(std::chrono::milliseconds(100))) return;
    };
    poll_for(seconds / 4);  // warm
    const auto begin = Clock::now();
    const std::uint64_t before = packets();
    poll_for(seconds);
    const double rate =
        static_cast<double>(packets() - before) / std::chrono::duration<double>(Clock::now() - begin).count();
    (*engine)->stop();
    return rate;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"dpdk_bench: packets a second of the DPDK engine, one core and two"};
    unsigned ports = 8, repeat = 3;
    double seconds = 2;
    bool json = false, null = false;
    app.add_option("--ports", ports, "net_ring devices, 1023 packets and flows for each and core")
        ->capture_default_str();
    app.add_option("--seconds", seconds, "length of each measurement")->capture_default_str();
    app.add_option("--repeat", repeat, "measurements of each kind, in turns; the median counts")
        ->capture_default_str();
    app.add_flag("--null", null, "net_null: packets that are not IP");
    app.add_flag("--json", json, "as JSON");
    CLI11_PARSE(app, argc, argv);
    const auto region = make_region("8.0.0.0/8 US\n");
    std::array<std::vector<double>, 2> rates;
    for (unsigned round = 0; round < repeat; ++round)
        for (unsigned cores = 1; cores <= 2; ++cores) {
            double rate = -1;
            const std::string said =
                in_own_process([&] { return std::to_string(measure(cores, ports, null, seconds, *region)); });
            if (std::sscanf(said.c_str(), "%lf", &rate) != 1 || rate < 0) return 3;
            rates[cores - 1].push_back(rate);
        }
    for (auto& of_one : rates) std::ranges::sort(of_one);
    const double one = rates[0][repeat / 2], two = rates[1][repeat / 2];
    const char* input = null ? "net_null" : "net_ring";
    if (json)
        std::puts(nlohmann::json{{"subject", "dpdk_engine"},
                                 {"input", input},
                                 {"flows_per_core", null ? 0 : ports * 1023},
                                 {"packets_per_second", {{"1", one}, {"2", two}}},
                                 {"scaling", two / one}}
                      .dump()
                      .c_str());
    else
        std::printf("%s: one core %.2f Mpps, two cores %.2f Mpps, %.2f times\n", input, one / 1e6, two / 1e6,
                    two / one);
    return 0;
}
