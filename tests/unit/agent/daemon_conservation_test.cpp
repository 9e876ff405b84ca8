// tests/unit/agent/daemon_conservation_test.cpp - the residual: like with like, queues, bypass, resets.
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/conservation.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using daemon::Conservation;
using daemon::ConservationResult;
using daemon::LinkCounters;

namespace {

// One interface whose hook and driver are told what passed.
struct Wire {
    explicit Wire(std::string kind) {
        link.name = "eth0";
        link.ifindex = 3;
        link.kind = std::move(kind);
        status.name = "eth0";
        status.ifindex = 3;
        status.hooked = true;
    }
    // `given` packets handed over, which become `segments` on the wire with 66 more header bytes for each.
    void send(std::uint64_t given, std::uint64_t segments, std::uint64_t bytes) {
        auto& out = status.totals.by_direction[datapath::DIRECTION_OUT];
        out.as_given.packets += given;
        out.as_given.bytes += bytes;
        out.seen.packets += segments;
        out.seen.bytes += bytes + (segments - given) * 66;
        out.outcome[datapath::OUTCOME_OUTSIDE] = out.seen;
    }
    void drive(std::uint64_t packets, std::uint64_t bytes) {
        link.tx_packets += packets;
        link.tx_bytes += bytes;
    }
    ConservationResult period() {
        capture::TotalsSnapshot totals;
        totals.interfaces.push_back(status);
        const auto results = conservation.advance({link}, totals, {link});
        REQUIRE(results.size() == 1);
        return results.front();
    }
    LinkCounters link;
    capture::InterfaceStatus status;
    Conservation conservation{2};
};

}  // namespace

TEST_CASE("the first period of an interface compares nothing", "[daemon][conservation]") {
    Wire wire("veth");
    wire.drive(1000, 1'000'000);  // before we came
    const auto first = wire.period();
    CHECK_FALSE(first.compared);
    CHECK_FALSE(first.bypass_suspected);
}

TEST_CASE("a driver that is handed super-packets is compared with what was given", "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(1000, 44'000, 64'000'000);
    wire.drive(1000, 64'000'000);
    const auto result = wire.period();
    CHECK(result.compared);
    CHECK(result.basis == "as_given");
    CHECK(result.residual_bytes == 0);
    CHECK(result.hook_bytes == 64'000'000);
}

TEST_CASE("a driver that gets segments is compared with segments", "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(1000, 44'000, 64'000'000);
    wire.drive(44'000, 64'000'000 + 43'000 * 66);
    const auto result = wire.period();
    CHECK(result.basis == "segments");
    CHECK(result.residual_bytes == 0);
}

TEST_CASE("a driver that segments one protocol and not the other is no bypass", "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(1000, 44'000, 64'000'000);
    wire.drive(22'500, 64'000'000 + 21'500 * 66);
    auto result = wire.period();
    CHECK(result.basis == "mixed");
    CHECK(result.residual_bytes == 0);
    // And a bypass beside it is one.
    wire.send(1000, 44'000, 64'000'000);
    wire.drive(22'500 + 1'000, 64'000'000 + 21'500 * 66 + 1'500'000);
    result = wire.period();
    CHECK(result.residual_bytes == 1'500'000 - 66'000);
    CHECK(result.tolerance_bytes < 900'000);
    CHECK(result.bypass_suspected);
}

TEST_CASE("bytes around the hook above the tolerance are suspected, below it not", "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(1000, 1000, 1'000'000);
    const std::uint64_t tolerance = Conservation::tolerance_bytes_min + 1000;
    wire.drive(1044, 1'000'000 + tolerance);
    auto result = wire.period();
    CHECK(result.tolerance_bytes == tolerance);
    CHECK(result.residual_bytes == static_cast<std::int64_t>(tolerance));
    CHECK_FALSE(result.bypass_suspected);
    wire.drive(45, Conservation::tolerance_bytes_min + 1);
    result = wire.period();
    CHECK(result.excess_bytes == Conservation::tolerance_bytes_min + 1);
    CHECK(result.bypass_suspected);
}

TEST_CASE("a physical device may pad each frame, a virtual one may not", "[daemon][conservation]") {
    for (const bool physical : {true, false}) {
        Wire wire(physical ? "" : "veth");
        (void)wire.period();
        wire.send(100'000, 100'000, 5'400'000);
        wire.drive(100'000, 6'400'000);  // 54 bytes became 60 and an FCS
        CHECK(wire.period().bypass_suspected == !physical);
    }
}

TEST_CASE("what waits in a queue and leaves a period later is no bypass", "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(10'000, 10'000, 15'000'000);
    wire.drive(5'000, 7'500'000);
    auto result = wire.period();
    CHECK(result.residual_bytes == -7'500'000);
    CHECK_FALSE(result.bypass_suspected);
    wire.drive(5'000, 7'500'000);
    result = wire.period();
    CHECK(result.residual_bytes == 7'500'000);
    CHECK(result.excess_bytes == 0);
    CHECK_FALSE(result.bypass_suspected);
}

TEST_CASE("drops behind the hook hide a bypass only as long as the high-water mark lasts",
          "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.send(10'000, 10'000, 15'000'000);  // all dropped by a queue
    (void)wire.period();
    for (std::size_t i = 0; i < Conservation::high_water_periods; i++) (void)wire.period();
    wire.drive(1'000, 1'500'000);
    CHECK(wire.period().bypass_suspected);
}

TEST_CASE("counters that start anew are a new baseline, not a residual", "[daemon][conservation]") {
    Wire wire("veth");
    wire.send(10, 10, 10'000);
    wire.drive(10, 10'000);
    (void)wire.period();
    wire.link.tx_bytes = 5;
    wire.link.tx_packets = 1;
    CHECK_FALSE(wire.period().compared);
    wire.send(10, 10, 10'000);
    wire.drive(10, 10'000);
    const auto result = wire.period();
    CHECK(result.compared);
    CHECK(result.residual_bytes == 0);
}

TEST_CASE("an interface that goes and another that takes its number share no baseline",
          "[daemon][conservation]") {
    Wire wire("veth");
    (void)wire.period();
    wire.status.name = wire.link.name = "eth9";
    wire.drive(1'000, 9'000'000);
    CHECK_FALSE(wire.period().compared);
}

TEST_CASE("packets in flight do not break the balance, a leak does", "[daemon][conservation]") {
    Wire wire("veth");
    auto& out = wire.status.totals.by_direction[datapath::DIRECTION_OUT];
    out.seen = {10, 1000};
    out.outcome[datapath::OUTCOME_HOME] = {9, 900};
    auto result = wire.period();
    CHECK(result.unbalanced_packets == 1);
    CHECK(result.unbalanced_bytes == 100);
    CHECK_FALSE(result.balance_broken);
    CHECK(wire.period().balance_broken);  // still missing ten seconds later: not in flight
    out.outcome[datapath::OUTCOME_HOME] = {10, 1000};
    CHECK_FALSE(wire.period().balance_broken);
    out.seen.packets += 2 * Conservation::in_flight_packets_per_cpu + 1;
    CHECK(wire.period().balance_broken);
}

TEST_CASE("a period with drops or super-packets of the device is not compared, the next one is",
          "[daemon][conservation]") {
    Wire wire("");
    (void)wire.period();
    wire.send(100, 100, 50'000);
    wire.drive(200, 900'000);
    wire.status.uncertain += 100;
    const auto uncertain = wire.period();
    CHECK_FALSE(uncertain.compared);
    CHECK_FALSE(uncertain.bypass_suspected);
    wire.send(100, 100, 50'000);
    wire.drive(200, 900'000);
    const auto certain = wire.period();
    CHECK(certain.compared);
    CHECK(certain.bypass_suspected);
}

TEST_CASE("an engine that is not shown everything is never compared with the driver",
          "[daemon][conservation]") {
    Wire wire("veth");
    wire.status.sees_all_sent = false;
    for (int i = 0; i < 3; i++) {
        wire.drive(1000, 1'000'000);
        CHECK_FALSE(wire.period().compared);
    }
}
