// tests/bench/traffic_mix_test.cpp - the made-up traffic is what it says it is: measurements stand on it.
// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/traffic_mix.h"

#include <set>
#include <stdexcept>

#include "capture/userspace/file_engine.h"
#include "tests/support/catch.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;

struct CountingSink final : FlowSink {
    std::uint64_t ended = 0;
    std::uint64_t directions = 0;
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
        for (const FlowUpdate& update : updates) {
            if (update.reason != UpdateReason::ended) continue;
            ++ended;
            directions += (update.total.packets_out > 0 ? 1 : 0) + (update.total.packets_in > 0 ? 1 : 0);
        }
    }
};

struct Replayed {
    CountingSink sink;
    capture::TotalsSnapshot totals;
    std::optional<capture::FileError> damage;
    std::uint64_t frame_bytes = 0, ip_bytes = 0, packets = 0, counted = 0;
};

Replayed replay(std::span<const std::uint8_t> file) {
    Replayed result;
    const auto region = make_region("3.0.0.0/8 US\n53.0.0.0/8 DE\n");
    auto engine =
        capture::FileEngine::of(capture::FileReader::from_memory(file).value(),
                                {.track_all = true, .local_networks = TrafficMix::local_networks()});
    REQUIRE(engine->install_region(*region));
    REQUIRE(engine->start(result.sink));
    while (!engine->finished()) (void)engine->poll({});
    engine->stop();
    result.damage = engine->damage();
    result.totals = engine->totals();
    for (const auto& interface : result.totals.interfaces)
        for (const auto& side : interface.totals.by_direction) {
            result.packets += side.seen.packets;
            result.frame_bytes += side.seen.bytes;
            for (int kind = 0; kind < datapath::KIND_COUNT; ++kind)
                result.counted += side.outcome[kind].packets;
        }
    for (const auto& by_class : result.totals.by_class)
        for (const auto& side : by_class.by_direction) result.ip_bytes += side.ip_bytes;
    return result;
}

std::uint64_t fnv1a(std::span<const std::uint8_t> bytes) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}

}  // namespace

TEST_CASE("the engine finds in made-up traffic exactly what the generator says is there", "[bench]") {
    for (const CaptureFormat format :
         {CaptureFormat{}, CaptureFormat{true, false}, CaptureFormat{true, true}})
        for (const std::uint32_t snap : {0u, 96u}) {
            TrafficMix mix({.packets = 30000, .flows = 1500, .snap_bytes = snap});
            std::vector<std::uint8_t> file;
            append_capture(file, mix, snap, format);
            const auto& truth = mix.truth();
            const Replayed found = replay(file);
            INFO("snap length " << snap << ", nanoseconds " << format.nanoseconds << ", big endian "
                                << format.big_endian);
            CHECK_FALSE(found.damage.has_value());
            CHECK(truth.packets == 30000);
            CHECK(truth.flows == 1500);
            CHECK(found.packets == truth.packets);
            CHECK(found.counted == truth.packets);
            CHECK(found.frame_bytes == truth.frame_bytes);
            CHECK(found.ip_bytes == truth.ip_bytes);
            CHECK(found.sink.ended == truth.flows);
            CHECK(found.sink.directions == truth.directed_flows);
            CHECK(file.size() == 24 + 16 * truth.packets + truth.captured_bytes);
        }
}

TEST_CASE("every kind of odd flow is in the mix, and none of its packets is lost", "[bench]") {
    TrafficMix mix({.packets = 30000, .flows = 1500, .odd_of_thousand = 500});
    std::vector<std::uint8_t> file;
    append_capture(file, mix, 0);
    const Replayed found = replay(file);
    std::array<std::uint64_t, datapath::OUTCOME_COUNT> outcomes{};
    for (const auto& side : found.totals.interfaces[0].totals.by_direction)
        for (int i = 0; i < datapath::OUTCOME_COUNT; ++i) outcomes[i] += side.outcome[i].packets;
    CHECK_FALSE(found.damage.has_value());
    CHECK(mix.truth().odd_packets > 10000);
    CHECK(outcomes[datapath::OUTCOME_NOT_IP] > 0);
    CHECK(outcomes[datapath::OUTCOME_MALFORMED] > 0);
    CHECK(outcomes[datapath::OUTCOME_TRUNCATED] > 0);
    CHECK(found.packets == 30000);
    CHECK(found.frame_bytes == mix.truth().frame_bytes);
    CHECK(found.counted + outcomes[datapath::OUTCOME_NOT_IP] + outcomes[datapath::OUTCOME_MALFORMED] +
              outcomes[datapath::OUTCOME_TRUNCATED] ==
          30000);
}

TEST_CASE("the same seed gives the same bytes on every machine, another seed others", "[bench]") {
    const auto bytes_of = [](std::uint64_t seed) {
        TrafficMix mix({.packets = 5000, .flows = 300, .seed = seed, .odd_of_thousand = 100});
        std::vector<std::uint8_t> file;
        append_capture(file, mix, 0);
        return file;
    };
    CHECK(fnv1a(bytes_of(1)) == 0xcfa909918ec65863);
    CHECK(bytes_of(1) == bytes_of(1));
    CHECK(bytes_of(1) != bytes_of(2));
}

TEST_CASE("made-up time never goes back and stays within its span", "[bench]") {
    for (const bool even : {false, true}) {
        TrafficMix mix({.packets = 20000, .flows = even ? 20000u : 1000u, .even = even, .seconds = 7});
        std::uint64_t before = 0;
        MadePacket packet;
        while (mix.next(packet)) {
            REQUIRE(packet.at_ns >= before);
            before = packet.at_ns;
        }
        CHECK(before < TrafficSpec{}.start_ns + 7'000'000'000);
        CHECK(mix.truth().flows == (even ? 20000u : 1000u));
    }
}

TEST_CASE("a spec that breaks a limit is refused", "[bench]") {
    CHECK_THROWS_AS(TrafficMix({.packets = 10, .flows = 11}), std::invalid_argument);
    CHECK_THROWS_AS(TrafficMix({.packets = 10, .flows = 0}), std::invalid_argument);
    CHECK_THROWS_AS(TrafficMix({.packets = 10, .flows = 1, .seconds = 0}), std::invalid_argument);
}
