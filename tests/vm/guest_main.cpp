// tests/vm/guest_main.cpp - what runs inside the guest: the engine on an older kernel, from load to detach.
//
// Prints one line per claim and "GUEST PASS" when all hold; tests/vm/run looks for that line.
// SPDX-License-Identifier: Apache-2.0
#include <sys/utsname.h>

#include <chrono>
#include <cstdio>

#include "capture/ebpf/detach.h"
#include "capture/ebpf/ebpf_engine.h"
#include "capture/ebpf/object.h"
#include "tests/support/test_netns.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using namespace std::chrono_literals;
namespace dp = egresswatch::datapath;

int failures = 0;

void claim(bool holds, const char* what) {
    std::printf("%s %s\n", holds ? "ok  " : "FAIL", what);
    std::fflush(stdout);
    if (!holds) failures++;
}

template <typename T>
bool good(const std::expected<T, capture::OsError>& result) {
    if (!result) std::printf("     %s\n", result.error().to_string().c_str());
    return result.has_value();
}

struct Sink final : FlowSink {
    FlowCounters sum;
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        for (const FlowUpdate& update : news) {
            sum.packets_out += update.delta.packets_out;
            sum.bytes_out += update.delta.bytes_out;
        }
    }
};

std::unique_ptr<capture::EbpfEngine> start_engine(Sink& sink, const RegionTable& region) {
    capture::EbpfConfig config;
    config.interfaces = {"ew0"};
    config.flow_slots_per_cpu = 1024;
    config.drain_interval = 100ms;
    auto engine = capture::EbpfEngine::make(config);
    if (!good(engine) || !good((*engine)->install_region(region)) || !good((*engine)->start(sink)))
        return nullptr;
    return std::move(*engine);
}

void poll_until(capture::EbpfEngine& engine, const Sink& sink, std::uint64_t packets) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (sink.sum.packets_out < packets && std::chrono::steady_clock::now() < deadline)
        if (!good(engine.poll(100ms))) return;
}

// Counts, dies, is adopted, counts on.
void life(const RegionTable& region) {
    {
        Sink sink;
        const auto engine = start_engine(sink, region);
        claim(engine != nullptr, "the programs load and the hooks are set");
        if (!engine) return;
        const auto interfaces = engine->totals().interfaces;
        claim(interfaces.size() == 1 && interfaces[0].hooked, "the interface is hooked");
        if (!interfaces.empty()) std::printf("     by %s\n", interfaces[0].hook.c_str());
        test::TestNetns::send_udp("1.2.3.4", 443, 5000, 10, 100);
        test::TestNetns::send_udp("2.2.3.4", 443, 5000, 7, 100);
        poll_until(*engine, sink, 10);
        claim(sink.sum.packets_out == 10 && sink.sum.bytes_out == 1280,
              "outside traffic becomes flow updates");
    }
    test::TestNetns::send_udp("1.2.3.4", 443, 5000, 5, 100);
    Sink sink;
    const auto engine = start_engine(sink, region);
    claim(engine && engine->adoption().adopted && engine->adoption().hooks_replaced == 2,
          "the next engine takes maps and hooks over");
    if (!engine) return;
    claim(sink.sum.packets_out == 15, "what was counted in between is there");
    test::TestNetns::send_udp("1.2.3.4", 443, 5000, 3, 100);
    poll_until(*engine, sink, 18);
    const auto totals = engine->totals();
    const auto us = region.lookup(Address::parse("1.2.3.4").value());
    const auto de = region.lookup(Address::parse("2.2.3.4").value());
    claim(totals.by_class[us].by_direction[dp::DIRECTION_OUT].ip_bytes == 18 * 128,
          "bytes of the US class are exact");
    claim(totals.by_class[de].by_direction[dp::DIRECTION_OUT].packets == 7,
          "packets of the home class are exact");
    claim(!totals.interfaces.empty() &&
              totals.interfaces[0].totals.by_direction[dp::DIRECTION_OUT].seen.packets == 25,
          "the interface saw every packet");
    engine->stop();
    claim(sink.sum.packets_out == 18, "the last updates are handed over");
    const auto report = capture::detach(capture::PIN_DIR_DEFAULT);
    claim(good(report) && report->removed.empty(), "a clean stop leaves nothing behind");
}

}  // namespace

int main() {
    utsname system{};
    ::uname(&system);
    std::printf("guest kernel %s\n", system.release);
    const auto region = test::make_region("1.0.0.0/8 US\n2.0.0.0/8 DE\n");
    const test::TestNetns netns;
    life(*region);
    std::printf("%s\n", failures == 0 ? "GUEST PASS" : "GUEST FAIL");
    return failures == 0 ? 0 : 1;
}
