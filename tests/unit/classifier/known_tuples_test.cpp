// tests/unit/classifier/known_tuples_test.cpp - what is known of a tuple changes no answer.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <initializer_list>
#include <map>
#include <random>
#include <vector>

#include "classifier/classify_step.h"
#include "classifier/flow_table.h"
#include "tests/support/catch.h"
#include "tests/support/packet_builder.h"
#include "tests/support/same_update.h"
#include "tests/support/test_region.h"

using namespace egresswatch;
using test::PacketBuilder;
using test::raw;
using test::same;

namespace {

struct Recorder final : FlowSink {
    std::vector<FlowUpdate> updates;
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        updates.insert(updates.end(), news.begin(), news.end());
    }
};

class Packets {
public:
    explicit Packets(std::uint64_t seed) : random_(seed) {}

    // Few addresses and ports, so that tuples come again; every shape that a plain packet may be taken for.
    std::vector<std::uint8_t> next() {
        const char* ends4[] = {"10.0.0.1", "10.0.0.2", "8.0.0.1", "5.0.0.7", "203.0.113.9"};
        const char* ends6[] = {"fd00::1", "2600::1", "2600::2", "2a00::53"};
        const std::uint16_t ports[] = {53, 443, 4789, 2152, 40000, 40001};
        const std::uint8_t protos[] = {6, 6, 6, 17, 17, 1, 58, 132};
        const std::uint8_t proto = protos[any(8)];
        const std::uint32_t shape = any(12);
        const bool six = any(2) != 0;
        PacketBuilder out;
        const std::uint16_t ether_type = six ? 0x86dd : 0x0800;
        out.ethernet(shape == 0 ? 0x8100 : ether_type);
        if (shape == 0) out.vlan(7, ether_type);
        const auto end4 = [&] { return ends4[any(5)]; };
        const auto end6 = [&] { return ends6[any(4)]; };
        if (!six && shape == 1)
            out.ipv4_fragment(end4(), end4(), proto, any(2) * 8, true);
        else if (!six)
            out.ipv4(end4(), end4(), proto, shape == 2 ? 4 : 0);
        else if (shape == 1)
            out.ipv6(end6(), end6(), 44).ipv6_fragment(proto, any(2) * 8, true);
        else if (shape == 2)
            out.ipv6(end6(), end6(), 60).extension(proto, 8);
        else
            out.ipv6(end6(), end6(), proto);
        if (proto == 17)
            out.udp(ports[any(6)], ports[any(6)]);
        else
            out.tcp(ports[any(6)], ports[any(6)], static_cast<std::uint8_t>(1u << any(6)), 4 * any(3));
        auto bytes = out.payload(any(60)).bytes();
        if (any(10) == 0)
            bytes[any(static_cast<std::uint32_t>(bytes.size()))] = static_cast<std::uint8_t>(any(256));
        if (any(10) == 0) bytes.resize(any(static_cast<std::uint32_t>(bytes.size())) + 1);
        return bytes;
    }
    std::uint32_t any(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }

private:
    std::mt19937_64 random_;
};

}  // namespace

TEST_CASE("a table that knows tuples tells what one tells that forgets them before each packet",
          "[classifier][flow][property]") {
    constexpr std::uint32_t packets_max = 60'000;
    const auto region = test::make_region("8.0.0.0/8 US\n5.0.0.0/8 IE\n2600::/16 US\n2a00::/16 DE\n");
    const bool track_all = GENERATE(true, false);
    Packets packets(20261126);
    FlowTableConfig config{.track_all = track_all,
                           .hash_seed = 7,
                           .idle_timeout = std::chrono::seconds(3),
                           .active_timeout = std::chrono::seconds(5),
                           .sample_payload = true};
    FlowTable knows(config);
    FlowTable forgets(config);
    FlowTable halves(config);  // a classifier of its own, as where another core classifies
    for (FlowTable* table : {&knows, &forgets, &halves}) table->install_region(region->block());
    PacketClassifier classifier = halves.classifier();
    Recorder known, forgotten, halved;
    std::vector<std::vector<std::uint8_t>> bytes;
    std::vector<PacketInput> inputs;
    std::uint64_t at_ns = 1'000'000'000;
    for (std::uint32_t done = 0; done < packets_max; done += static_cast<std::uint32_t>(inputs.size())) {
        bytes.clear();
        inputs.clear();
        const std::uint32_t batch = 1 + packets.any(90);
        for (std::uint32_t i = 0; i < batch; ++i) bytes.push_back(packets.next());
        for (const auto& packet : bytes) {
            PacketInput& input = inputs.emplace_back();
            input.bytes = packet;
            input.wire_bytes = static_cast<std::uint32_t>(packet.size()) + packets.any(3) * 40;
            input.at_ns = at_ns += packets.any(400'000);
            input.link = {LinkStart::ethernet, 0, 0};
            if (packets.any(4) == 0) input.direction = static_cast<std::uint8_t>(packets.any(2));
            input.interface = packets.any(20) == 0 ? 1 : 0;
        }
        knows.account(inputs, known);
        ClassifiedBatch classified;
        classifier.classify(inputs, classified);
        halves.account_classified(classified, inputs, halved);
        for (const PacketInput& input : inputs) {
            forgets.install_region(region->block());
            forgets.account({&input, 1}, forgotten);
        }
        const PacketVerdict one = knows.last_verdict(), other = forgets.last_verdict();
        REQUIRE(one.outcome == other.outcome);
        REQUIRE(one.direction == other.direction);
        REQUIRE(one.ip_bytes == other.ip_bytes);
        REQUIRE(raw(&one.key, sizeof one.key) == raw(&other.key, sizeof other.key));
    }
    halves.absorb(std::move(classifier));
    knows.finish(known);
    forgets.finish(forgotten);
    halves.finish(halved);
    REQUIRE(known.updates.size() > 1000);
    for (const auto* recorder : {&known, &halved}) {
        REQUIRE(recorder->updates.size() == forgotten.updates.size());
        bool all_same = true;
        for (std::size_t i = 0; i < forgotten.updates.size(); ++i)
            all_same = all_same && same(recorder->updates[i], forgotten.updates[i]);
        CHECK(all_same);
    }
    for (const FlowTable* table : {&knows, &halves}) {
        CHECK(raw(table->class_totals().data(), table->class_totals().size_bytes()) ==
              raw(forgets.class_totals().data(), forgets.class_totals().size_bytes()));
        CHECK(raw(table->interface_totals().data(), table->interface_totals().size_bytes()) ==
              raw(forgets.interface_totals().data(), forgets.interface_totals().size_bytes()));
        CHECK(raw(table->losses().data(), table->losses().size_bytes()) ==
              raw(forgets.losses().data(), forgets.losses().size_bytes()));
    }
}

TEST_CASE("more flows end than a known tuple can count: entries are found again all the same",
          "[classifier][flow]") {
    constexpr std::uint32_t rounds = 120, passing = 600, standing = 40;  // 76,800 ends
    const auto region = test::make_region("8.0.0.0/8 US\n");
    FlowTableConfig config{.track_all = true, .hash_seed = 7, .idle_timeout = std::chrono::seconds(1)};
    FlowTable knows(config);
    FlowTable forgets(config);
    for (FlowTable* table : {&knows, &forgets}) table->install_region(region->block());
    Recorder known, forgotten;
    std::vector<std::vector<std::uint8_t>> bytes;
    for (std::uint32_t flow = 0; flow < passing + standing; ++flow)
        bytes.push_back(PacketBuilder()
                            .ethernet(0x0800)
                            .ipv4("10.0.0.1", "8.0.0." + std::to_string(flow % 7), 6)
                            .tcp(static_cast<std::uint16_t>(40000 + flow), 443, 16)
                            .bytes());
    std::uint64_t at_ns = 1'000'000'000;
    std::vector<PacketInput> inputs;
    for (std::uint32_t round = 0; round < rounds; ++round) {
        inputs.clear();
        for (std::uint32_t i = 0; i < passing + 10 * standing; ++i) {
            // Some flows' places are taken by others: entries are not those of the round before.
            const std::uint32_t flow = i < passing ? (i * 7 + round) % passing : passing + i % standing;
            PacketInput& input = inputs.emplace_back();
            input.bytes = bytes[flow];
            input.wire_bytes = static_cast<std::uint32_t>(bytes[flow].size());
            input.at_ns = at_ns += 1000;
            input.link = {LinkStart::ethernet, 0, 0};
        }
        at_ns += 4'000'000'000;
        knows.account(inputs, known);
        for (const PacketInput& input : inputs) {
            forgets.install_region(region->block());
            forgets.account({&input, 1}, forgotten);
        }
    }
    knows.finish(known);
    forgets.finish(forgotten);
    REQUIRE(known.updates.size() == forgotten.updates.size());
    REQUIRE(known.updates.size() >= rounds * (passing + standing));
    bool all_same = true;
    for (std::size_t i = 0; i < forgotten.updates.size(); ++i)
        all_same = all_same && same(known.updates[i], forgotten.updates[i]);
    CHECK(all_same);
    CHECK(raw(knows.losses().data(), knows.losses().size_bytes()) ==
          raw(forgets.losses().data(), forgets.losses().size_bytes()));
}

TEST_CASE("two flows of one hash and one place stay two", "[classifier][flow]") {
    // These remote addresses give the same flow_hash() under any seed, and with this source and these ports
    // the same place among the known tuples.
    const auto frame_to = [](const char* remote) {
        return PacketBuilder().ethernet(0x86dd).ipv6("fd00::4084:1", remote, 6).tcp(40000, 443, 16).bytes();
    };
    const std::vector<std::uint8_t> frames[2] = {frame_to("2600::1"), frame_to("2600:0:0:80:0:80:0:81")};
    KnownTuples places;
    PlainPacket plain[2];
    for (std::size_t i = 0; i < 2; ++i)
        REQUIRE(read_plain(frames[i].data(), static_cast<std::uint32_t>(frames[i].size()),
                           static_cast<std::uint32_t>(frames[i].size()), plain[i]));
    REQUIRE(&places.find(plain[0], places.word(plain[0], 2)) ==
            &places.find(plain[1], places.word(plain[1], 2)));
    const auto region = test::make_region("2600::/16 US\n");
    FlowTable table({.track_all = true, .hash_seed = std::random_device()()});
    table.install_region(region->block());
    Recorder sink;
    std::uint64_t at_ns = 1'000'000'000;
    const auto account = [&](std::initializer_list<std::size_t> flows) {
        std::vector<PacketInput> inputs;
        for (const std::size_t flow : flows) {
            PacketInput& input = inputs.emplace_back();
            input.bytes = frames[flow];
            input.wire_bytes = static_cast<std::uint32_t>(frames[flow].size());
            input.at_ns = at_ns += 1000;
            input.link = {LinkStart::ethernet, 0, 0};
        }
        table.account(inputs, sink);
    };
    for (int i = 0; i < 3; ++i) account({0});
    account({0, 1});  // the place is the first one's till the chunk is done
    for (int i = 0; i < 100; ++i) account({0});
    account({1});
    account({1, 0});
    for (int i = 0; i < 10; ++i) account({1});
    table.finish(sink);
    std::map<std::uint8_t, std::uint64_t> packets;  // by the last byte of the remote address
    for (const FlowUpdate& update : sink.updates)
        if (update.reason == UpdateReason::ended)
            packets[update.key.remote_addr[15]] = update.total.packets_out;
    CHECK(packets == std::map<std::uint8_t, std::uint64_t>{{0x01, 105}, {0x81, 13}});
}

TEST_CASE("another region block: nothing of the one before it is known", "[classifier][flow]") {
    const auto before = test::make_region("8.0.0.0/8 US\n");
    const auto after = test::make_region("8.0.0.0/8 IE\n", before.get());
    FlowTable table({.track_all = true});
    Recorder sink;
    const auto bytes =
        PacketBuilder().ethernet(0x0800).ipv4("10.0.0.1", "8.0.0.1", 6).tcp(40000, 443, 16).bytes();
    PacketInput input;
    input.bytes = bytes;
    input.wire_bytes = static_cast<std::uint32_t>(bytes.size());
    input.link = {LinkStart::ethernet, 0, 0};
    input.at_ns = 1'000'000'000;
    table.install_region(before->block());
    table.account({&input, 1}, sink);
    table.account({&input, 1}, sink);
    CHECK(table.last_verdict().outcome == datapath::OUTCOME_OUTSIDE);
    CHECK(table.live() == 1);
    table.install_region(after->block());
    table.account({&input, 1}, sink);
    CHECK(table.last_verdict().outcome == datapath::OUTCOME_HOME);
    CHECK(table.live() == 2);  // another class: another flow
}
