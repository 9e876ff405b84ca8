// tests/unit/classifier/flow_table_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/flow_table.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "classifier/first_sender.h"
#include "tests/support/catch.h"

using namespace egresswatch;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

struct Update {
    FlowUpdate flow;
    Timestamp now;
};

struct Recorder final : FlowSink {
    std::vector<Update> updates;
    std::vector<Timestamp> ticks;
    FlowTable* table = nullptr;
    std::uint64_t ask_every = 0;  // after each volume update: ask for the next one so many bytes later

    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp now) noexcept override {
        ticks.push_back(now);
        for (const auto& update : news) {
            updates.push_back({update, now});
            if (ask_every != 0) table->notify_at(update.key, update.total.bytes_out + ask_every);
        }
    }
    [[nodiscard]] std::vector<FlowUpdate> of(UpdateReason reason) const {
        std::vector<FlowUpdate> found;
        for (const auto& update : updates)
            if (update.flow.reason == reason) found.push_back(update.flow);
        return found;
    }
};

// A UDP packet of bare IP: 10.0.0.x of the local side to 198.51.100.1.
std::vector<std::uint8_t> udp(std::uint32_t client, std::uint16_t port, bool reply = false,
                              std::uint16_t ip_bytes = 100) {
    std::vector<std::uint8_t> packet(28);
    packet[0] = 0x45;
    packet[2] = static_cast<std::uint8_t>(ip_bytes >> 8);
    packet[3] = static_cast<std::uint8_t>(ip_bytes);
    packet[9] = 17;
    const std::uint8_t ours[4] = {10, static_cast<std::uint8_t>(client >> 16),
                                  static_cast<std::uint8_t>(client >> 8), static_cast<std::uint8_t>(client)};
    const std::uint8_t theirs[4] = {198, 51, 100, 1};
    std::memcpy(&packet[12], reply ? theirs : ours, 4);
    std::memcpy(&packet[16], reply ? ours : theirs, 4);
    const std::uint16_t from = reply ? 9999 : port;
    const std::uint16_t to = reply ? port : 9999;
    packet[20] = static_cast<std::uint8_t>(from >> 8);
    packet[21] = static_cast<std::uint8_t>(from);
    packet[22] = static_cast<std::uint8_t>(to >> 8);
    packet[23] = static_cast<std::uint8_t>(to);
    return packet;
}

PacketInput input_of(const std::vector<std::uint8_t>& packet, std::uint64_t at_ns) {
    PacketInput input;
    input.bytes = packet;
    input.wire_bytes = 2000;
    input.at_ns = at_ns;
    input.link = {LinkStart::ip, 0, 0};
    return input;
}

void feed(FlowTable& table, FlowSink& sink, const std::vector<std::uint8_t>& packet, std::uint64_t at_ns) {
    const PacketInput input = input_of(packet, at_ns);
    table.account({&input, 1}, sink);
}

// Packets of both directions and many sizes, of so many clients, 7 ms apart.
struct Mixture {
    Mixture(std::uint32_t number, std::uint32_t clients) {
        for (std::uint32_t i = 0; i < number; ++i)
            packets.push_back(
                udp(i * 7919 % clients, 1000, i % 3 == 0, static_cast<std::uint16_t>(100 + i % 1300)));
        for (std::size_t i = 0; i < packets.size(); ++i)
            inputs.push_back(input_of(packets[i], second + i * 7'000'000));
    }
    std::vector<std::vector<std::uint8_t>> packets;
    std::vector<PacketInput> inputs;
};

std::uint64_t seconds_of(Timestamp time) {
    return static_cast<std::uint64_t>(time.time_since_epoch().count()) / second;
}

}  // namespace

TEST_CASE("a flow is told at the next second, and its deltas add up to its total", "[classifier][flow]") {
    FlowTable table({});
    Recorder sink;
    feed(table, sink, udp(1, 1000), 5 * second + 1);
    feed(table, sink, udp(1, 1000, true), 5 * second + 2);
    CHECK(sink.updates.empty());
    feed(table, sink, udp(1, 1000), 6 * second);  // the tick falls before this packet
    REQUIRE(sink.updates.size() == 1);
    CHECK(sink.updates[0].flow.reason == UpdateReason::created);
    CHECK(sink.updates[0].flow.total == FlowCounters{1, 100, 1, 100});
    CHECK(seconds_of(sink.updates[0].now) == 6);
    table.finish(sink);
    REQUIRE(sink.updates.size() == 3);
    CHECK(sink.updates[1].flow.reason == UpdateReason::active);
    CHECK(sink.updates[1].flow.delta == FlowCounters{1, 100, 0, 0});
    CHECK(sink.updates[2].flow.reason == UpdateReason::ended);
    CHECK(sink.updates[2].flow.total == FlowCounters{2, 200, 1, 100});
    CHECK(sink.updates[2].flow.delta == FlowCounters{});
    CHECK(table.live() == 0);
}

TEST_CASE("the table grows, and loses nothing, whatever size it starts with", "[classifier][flow]") {
    std::map<std::uint32_t, std::vector<FlowUpdate>> results;
    for (const std::uint32_t start : {64u, 65536u}) {
        FlowTable table({.slots_start = start, .slots_max = 1u << 17});
        Recorder sink;
        for (std::uint32_t i = 0; i < 60000; ++i) feed(table, sink, udp(i % 20000, 1000), second + i);
        CHECK(table.live() == 20000);
        CHECK(table.losses()[datapath::LOSS_FLOWS_FULL] == 0);
        table.finish(sink);
        results[start] = sink.of(UpdateReason::ended);
        REQUIRE(results[start].size() == 20000);
        bool all_three = true;
        for (const auto& flow : results[start]) all_three = all_three && flow.total.packets_out == 3;
        CHECK(all_three);
    }
    bool same_order = true;
    for (std::size_t i = 0; i < 20000; ++i)
        same_order =
            same_order &&
            datapath::flow_key(results[64][i].key).local_port == results[65536][i].key.local_port &&
            std::memcmp(&results[64][i].key, &results[65536][i].key, sizeof(datapath::flow_key)) == 0;
    CHECK(same_order);
}

TEST_CASE("a table that grows while flows end tells what a large one tells", "[classifier][flow]") {
    std::map<std::uint32_t, std::vector<FlowUpdate>> results;
    for (const std::uint32_t start : {64u, 65536u}) {
        FlowTable table({.slots_start = start, .idle_timeout = std::chrono::seconds(2)});
        Recorder sink;
        // More flows each second; a third of those of the second before goes on, the others end.
        for (std::uint32_t at = 1; at < 120; ++at)
            for (std::uint32_t i = 0; i < 40 * at; ++i)
                feed(table, sink, udp(i % 3 == 0 ? i : at * 10000 + i, 1000), at * second + i);
        CHECK(table.losses()[datapath::LOSS_FLOWS_FULL] == 0);
        CHECK(table.slots() >= start);
        table.finish(sink);
        for (const auto& update : sink.updates) results[start].push_back(update.flow);
    }
    REQUIRE(results[64].size() == results[65536].size());
    bool same = true;
    for (std::size_t i = 0; i < results[64].size(); ++i) {
        const FlowUpdate& a = results[64][i];
        const FlowUpdate& b = results[65536][i];
        same = same && std::memcmp(&a.key, &b.key, sizeof a.key) == 0 && a.total == b.total &&
               a.delta == b.delta && a.reason == b.reason && a.first_seen == b.first_seen;
    }
    CHECK(same);
}

TEST_CASE("a full table loses flows, never totals, and says how much", "[classifier][flow]") {
    FlowTable table({.slots_start = 64, .slots_max = 64});
    Recorder sink;
    for (std::uint32_t i = 0; i < 1000; ++i) feed(table, sink, udp(i, 1000), second + i);
    table.finish(sink);
    std::uint64_t in_flows = 0;
    for (const auto& flow : sink.of(UpdateReason::ended)) in_flows += flow.total.packets_out;
    CHECK(in_flows > 32);
    CHECK(in_flows <= 64);
    CHECK(in_flows + table.losses()[datapath::LOSS_FLOWS_FULL] == 1000);
    CHECK(table.losses()[datapath::LOSS_FLOWS_FULL_BYTES] == 100 * (1000 - in_flows));
    std::uint64_t in_totals = 0;
    for (const auto& totals : table.class_totals()) in_totals += totals.by_direction[0].packets;
    CHECK(in_totals == 1000);
}

TEST_CASE("an idle flow ends at the first second that is late enough, not before", "[classifier][flow]") {
    FlowTable table({.idle_timeout = std::chrono::seconds(10)});
    Recorder sink;
    feed(table, sink, udp(1, 1000), 100 * second + second / 2);
    for (std::uint64_t at = 101; at < 140; ++at) feed(table, sink, udp(2, 2000), at * second);
    const auto ended = sink.of(UpdateReason::ended);
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].local_port() == 1000);
    for (const auto& update : sink.updates)
        if (update.flow.reason == UpdateReason::ended) CHECK(seconds_of(update.now) == 111);
    CHECK(table.live() == 1);
    feed(table, sink, udp(1, 1000), 140 * second);  // the same five-tuple begins a new flow
    table.finish(sink);
    REQUIRE(sink.of(UpdateReason::ended).size() == 3);
    CHECK(sink.of(UpdateReason::ended).back().total == FlowCounters{1, 100, 0, 0});
}

TEST_CASE("after a long silence every idle flow ends once, also when the table has grown",
          "[classifier][flow]") {
    FlowTable table({.slots_start = 64, .idle_timeout = std::chrono::seconds(30)});
    Recorder sink;
    for (std::uint32_t i = 0; i < 5000; ++i) feed(table, sink, udp(i, 1000), (i / 100) * second);
    feed(table, sink, udp(9999, 1), 86400 * second);
    CHECK(sink.of(UpdateReason::ended).size() == 5000);
    CHECK(table.live() == 1);
    std::uint64_t packets = 0;
    for (const auto& update : sink.updates) packets += update.flow.delta.packets_out;
    CHECK(packets == 5000);
}

TEST_CASE("crossing the bytes asked for is told at the packet that crosses", "[classifier][flow]") {
    FlowTable table({});
    Recorder sink;
    sink.table = &table;
    sink.ask_every = 10000;
    for (int i = 0; i < 200; ++i)
        feed(table, sink, udp(1, 1000, false, 1000), second + static_cast<std::uint64_t>(i));
    const auto volume = sink.of(UpdateReason::volume);
    REQUIRE(volume.size() > 10);
    CHECK(volume[0].total.bytes_out == 66000);  // VOLUME_EVENT_MIN, whole packets
    for (std::size_t i = 1; i < volume.size(); ++i)
        CHECK(volume[i].total.bytes_out == volume[i - 1].total.bytes_out + 10000);
}

TEST_CASE("updates do not depend on how packets come in batches", "[classifier][flow]") {
    const Mixture mixture(3000, 300);
    const std::span<const PacketInput> inputs(mixture.inputs);
    std::vector<std::vector<Update>> results;
    for (const std::size_t batch : {std::size_t{1}, std::size_t{31}, std::size_t{1024}}) {
        FlowTable table({.idle_timeout = std::chrono::seconds(1)});
        Recorder sink;
        for (std::size_t at = 0; at < inputs.size(); at += batch)
            table.account(inputs.subspan(at, std::min(batch, inputs.size() - at)), sink);
        table.finish(sink);
        results.push_back(std::move(sink.updates));
    }
    for (const auto& result : results) {
        REQUIRE(result.size() == results[0].size());
        bool equal = true;
        for (std::size_t i = 0; i < result.size(); ++i)
            equal =
                equal && result[i].now == results[0][i].now &&
                result[i].flow.delta == results[0][i].flow.delta &&
                result[i].flow.reason == results[0][i].flow.reason &&
                std::memcmp(&result[i].flow.key, &results[0][i].flow.key, sizeof(datapath::flow_key)) == 0;
        CHECK(equal);
    }
}

TEST_CASE("time never goes back for the sink", "[classifier][flow]") {
    FlowTable table({.idle_timeout = std::chrono::seconds(5)});
    Recorder sink;
    for (std::uint64_t i = 0; i < 2000; ++i)
        feed(table, sink, udp(static_cast<std::uint32_t>(i % 50), 1000), (1000 + i * 7919 % 100) * second);
    table.finish(sink);
    CHECK(std::is_sorted(sink.ticks.begin(), sink.ticks.end()));
    std::uint64_t packets = 0;
    for (const auto& update : sink.updates) packets += update.flow.delta.packets_out;
    CHECK(packets == 2000);
}

TEST_CASE("local networks decide which end is ours, private addresses without any, else who sent first",
          "[classifier][flow]") {
    struct Case {
        std::vector<Prefix> networks;
        const char* local;
    };
    const Case cases[] = {{{*Prefix::parse("10.0.0.0/8")}, "10.0.0.1"},
                          {default_local_networks(), "10.0.0.1"},
                          {{*Prefix::parse("198.51.0.0/16")}, "198.51.100.1"},
                          {{}, "198.51.100.1"}};
    for (const Case& expected : cases) {
        FlowTable table({.local_networks = expected.networks});
        Recorder sink;
        feed(table, sink, udp(1, 1000, true), second);  // the far end is seen first
        feed(table, sink, udp(1, 1000), second + 1);
        table.finish(sink);
        const auto ended = sink.of(UpdateReason::ended);
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].local().to_string() == expected.local);
        CHECK(ended[0].total == FlowCounters{1, 100, 1, 100});
    }
}

TEST_CASE("a limited memory of first senders counts what it cannot remember", "[classifier][flow]") {
    FirstSenders senders(2);
    const std::uint8_t a[16] = {1}, b[16] = {2}, c[16] = {3};
    const auto sent_first = [&](const std::uint8_t* from, const std::uint8_t* to, std::uint16_t from_port,
                                std::uint16_t to_port, std::uint8_t l4_proto) {
        return senders.sent_first(FirstSenders::conversation(from, to, from_port, to_port, l4_proto));
    };
    CHECK(sent_first(b, a, 5, 6, 17));
    CHECK_FALSE(sent_first(a, b, 6, 5, 17));
    CHECK(sent_first(a, b, 6, 5, 6));  // another protocol is another conversation
    CHECK(senders.forgotten() == 0);
    CHECK(sent_first(a, c, 1, 1, 17));
    CHECK(sent_first(c, a, 1, 1, 17));
    CHECK(senders.forgotten() == 2);
}

TEST_CASE("a flow that lives is told each active timeout, moved or not, and does not end by it",
          "[classifier][flow]") {
    FlowTable table({.idle_timeout = std::chrono::seconds(60), .active_timeout = std::chrono::seconds(20)});
    Recorder sink;
    feed(table, sink, udp(1, 1000), 100 * second);
    for (std::uint64_t at = 101; at < 155; ++at) feed(table, sink, udp(2, 2000), at * second);
    std::vector<std::uint64_t> told;
    for (const auto& update : sink.updates)
        if (update.flow.local_port() == 1000 && update.flow.delta == FlowCounters{})
            told.push_back(seconds_of(update.now));
    CHECK(told == std::vector<std::uint64_t>{120, 140});
    CHECK(sink.of(UpdateReason::ended).empty());
    CHECK(table.live() == 2);
    // The nearest negative: without an active timeout a silent flow is not told again.
    FlowTable silent({.idle_timeout = std::chrono::seconds(60)});
    Recorder other;
    feed(silent, other, udp(1, 1000), 100 * second);
    for (std::uint64_t at = 101; at < 155; ++at) feed(silent, other, udp(2, 2000), at * second);
    CHECK(
        std::ranges::none_of(other.updates, [](const Update& u) { return u.flow.delta == FlowCounters{}; }));
}

TEST_CASE("a TCP flow that was reset ends after the closed timeout, an open one after the idle timeout",
          "[classifier][flow]") {
    FlowTable table({.idle_timeout = std::chrono::seconds(60), .closed_timeout = std::chrono::seconds(5)});
    Recorder sink;
    for (const std::uint16_t port : {std::uint16_t{1000}, std::uint16_t{2000}}) {
        auto packet = udp(1, port);
        packet.resize(40);
        packet[9] = 6;
        packet[32] = 0x50;
        packet[33] = port == 1000 ? 0x14 : 0x10;  // RST and ACK; ACK
        feed(table, sink, packet, 100 * second + 1);
    }
    for (std::uint64_t at = 101; at < 170; ++at) feed(table, sink, udp(2, 3000), at * second);
    std::map<std::uint16_t, std::uint64_t> ended;
    for (const auto& update : sink.updates)
        if (update.flow.reason == UpdateReason::ended)
            ended[update.flow.local_port()] = seconds_of(update.now);
    CHECK(ended == std::map<std::uint16_t, std::uint64_t>{{1000, 106}, {2000, 161}});
}

TEST_CASE("a memory limit bounds flows; packets beyond it are in totals and losses, none twice",
          "[classifier][flow]") {
    constexpr std::uint64_t bytes = 2u << 20;
    FlowTable table({.memory_max_bytes = bytes});
    Recorder sink;
    constexpr std::uint32_t sent = 40000;
    for (std::uint32_t i = 0; i < sent; ++i) feed(table, sink, udp(i % 20000, 1000), second + i);
    CHECK(table.live() <= table.flows_max());
    CHECK(table.live() == table.flows_max());  // no place is lost to crowds around a slot
    CHECK(table.flows_max() * FlowTableConfig::flow_bytes + table.slots() * FlowTableConfig::slot_bytes <=
          bytes);
    CHECK(table.flows_max() * FlowTableConfig::flow_bytes > bytes / 2);
    table.finish(sink);
    std::uint64_t in_flows = 0, in_totals = 0;
    for (const auto& flow : sink.of(UpdateReason::ended)) in_flows += flow.total.packets_out;
    for (const auto& totals : table.class_totals()) in_totals += totals.by_direction[0].packets;
    CHECK(in_flows + table.losses()[datapath::LOSS_FLOWS_FULL] == sent);
    CHECK(in_totals == sent);
}

TEST_CASE("places of ended flows are used again, within the memory limit", "[classifier][flow]") {
    FlowTable table({.idle_timeout = std::chrono::seconds(2), .memory_max_bytes = 1u << 20});
    Recorder sink;
    const std::uint64_t each = table.flows_max() / 8;
    for (std::uint32_t i = 0; i < 50 * each; ++i) feed(table, sink, udp(i, 1000), (100 + i / each) * second);
    table.finish(sink);
    CHECK(sink.of(UpdateReason::ended).size() == 50 * each);
    CHECK(table.losses()[datapath::LOSS_FLOWS_FULL] == 0);
}

TEST_CASE("classifying on other cores gives the same updates and totals, however the packets are dealt out",
          "[classifier][flow]") {
    const Mixture mixture(4000, 400);
    const std::span<const PacketInput> inputs(mixture.inputs);
    // Without prefixes who sent first decides, which only the table can know.
    for (const auto& networks : {default_local_networks(), std::vector<Prefix>{}}) {
        const FlowTableConfig config{.idle_timeout = std::chrono::seconds(1), .local_networks = networks};
        FlowTable whole(config);
        Recorder expected;
        whole.account(inputs, expected);
        whole.finish(expected);
        FlowTable halves(config);
        Recorder sink;
        std::vector<PacketClassifier> classifiers;
        for (int i = 0; i < 3; ++i) classifiers.push_back(halves.classifier());
        ClassifiedBatch batch;
        for (std::size_t at = 0, turn = 0; at < inputs.size(); at += 97, ++turn) {
            const auto piece = std::span(inputs).subspan(at, std::min<std::size_t>(97, inputs.size() - at));
            classifiers[turn % 3].classify(piece, batch);
            halves.account_classified(batch, piece, sink);
        }
        for (auto& classifier : classifiers) halves.absorb(std::move(classifier));
        halves.finish(sink);
        REQUIRE(sink.updates.size() == expected.updates.size());
        bool equal = true;
        for (std::size_t i = 0; i < sink.updates.size(); ++i)
            equal = equal && sink.updates[i].now == expected.updates[i].now &&
                    sink.updates[i].flow.total == expected.updates[i].flow.total &&
                    sink.updates[i].flow.reason == expected.updates[i].flow.reason &&
                    std::memcmp(&sink.updates[i].flow.key, &expected.updates[i].flow.key,
                                sizeof(datapath::flow_key)) == 0;
        CHECK(equal);
        CHECK(std::memcmp(halves.class_totals().data(), whole.class_totals().data(),
                          whole.class_totals().size_bytes()) == 0);
        CHECK(std::memcmp(halves.interface_totals().data(), whole.interface_totals().data(),
                          whole.interface_totals().size_bytes()) == 0);
    }
}
