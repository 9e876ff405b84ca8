// tests/unit/capture/live_capture_test.cpp - the parts of live capture that need no interface.
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/live_engine.h"
#include "capture/pcap/packet_direction.h"
#include "capture/pcap/stamp_clock.h"
#include "classifier/datapath/layout.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using namespace egresswatch::capture;

namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint8_t by_address = 2;
constexpr EthernetAddress own{2, 0, 0, 0, 0, 9}, other{2, 0, 0, 0, 0, 7}, third{2, 0, 0, 0, 0, 8};

std::vector<std::uint8_t> frame(const EthernetAddress& to, const EthernetAddress& from) {
    std::vector<std::uint8_t> bytes(to.begin(), to.end());
    bytes.insert(bytes.end(), from.begin(), from.end());
    bytes.resize(60);
    return bytes;
}

}  // namespace

TEST_CASE("a frame from or to the interface's own address has a direction, a mirrored one has none",
          "[capture][pcap]") {
    CHECK(packet_direction(1, frame(other, own), own) == datapath::DIRECTION_OUT);
    CHECK(packet_direction(1, frame(own, other), own) == datapath::DIRECTION_IN);
    CHECK(packet_direction(1, frame(other, third), own) == by_address);
    CHECK(packet_direction(1, frame({255, 255, 255, 255, 255, 255}, third), own) == datapath::DIRECTION_IN);
    CHECK(packet_direction(1, frame({1, 0, 0x5e, 0, 0, 1}, own), own) == datapath::DIRECTION_OUT);
    CHECK(packet_direction(1, frame(own, own), own) == by_address);
    // The loopback has no address: all zero on both sides.
    CHECK(packet_direction(1, frame({}, {}), {}) == by_address);
    CHECK(packet_direction(1, std::vector<std::uint8_t>(11), own) == by_address);
}

TEST_CASE("a cooked capture says itself which packets were outgoing", "[capture][pcap]") {
    std::vector<std::uint8_t> sll(40), sll2(40);
    const auto of_type = [&](std::uint8_t type) {
        sll[1] = type;
        sll2[10] = type;
        const auto direction = packet_direction(113, sll, own);
        CHECK(packet_direction(276, sll2, own) == direction);
        return direction;
    };
    CHECK(of_type(0) == datapath::DIRECTION_IN);
    CHECK(of_type(1) == datapath::DIRECTION_IN);
    CHECK(of_type(2) == datapath::DIRECTION_IN);
    CHECK(of_type(3) == by_address);
    CHECK(of_type(4) == datapath::DIRECTION_OUT);
    CHECK(packet_direction(276, std::vector<std::uint8_t>(10), own) == by_address);
    CHECK(packet_direction(101, sll, own) == by_address);
}

TEST_CASE("packet time goes on when the wall clock is set back, and follows it forward", "[capture][pcap]") {
    StampClock clock;
    clock.read(10000 * second, 50 * second);
    CHECK(clock.now() == 10000 * second);
    CHECK(clock.of_stamp(10000 * second - 5) == 10000 * second - 5);
    // Two seconds later the clock has been set back by an hour.
    clock.read(6402 * second, 52 * second);
    CHECK(clock.now() == 10002 * second);
    CHECK(clock.of_stamp(6401 * second) == 10001 * second);
    // A packet from before the step, read after it, is not taken for one of the future.
    CHECK(clock.of_stamp(10001 * second) == 10002 * second + StampClock::ahead_max_ns);
    // Set right again.
    clock.read(10012 * second, 62 * second);
    CHECK(clock.now() == 10012 * second);
    CHECK(clock.of_stamp(10011 * second) == 10011 * second);
}

TEST_CASE("small corrections of the clock pass as they are, and time never goes back", "[capture][pcap]") {
    StampClock clock;
    clock.read(1000 * second, 50 * second);
    clock.read(1001 * second - second / 10, 51 * second);
    CHECK(clock.of_stamp(1000 * second) == 1000 * second);
    const std::uint64_t before = clock.now();
    clock.read(1001 * second - second / 5, 51 * second + 1);
    CHECK(clock.now() == before);
}

TEST_CASE("a configuration that no interface could take is refused at once", "[capture][pcap]") {
    PcapConfig config;
    config.live.filter = "port port";
    const auto bad = PcapEngine::make(config);
    REQUIRE_FALSE(bad);
    CHECK(bad.error().to_string().find("port port") != std::string::npos);
    CHECK(bad.error().to_string().find("syntax error") != std::string::npos);
    config.live.filter.clear();
    config.interfaces.clear();
    CHECK_FALSE(PcapEngine::make(config));
    config.interfaces = {"lo"};
    config.live.buffer_bytes = 1ULL << 31;
    CHECK_FALSE(PcapEngine::make(config));
}
