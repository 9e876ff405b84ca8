// tests/unit/classifier/single_flow_test.cpp - a flow of one packet has no counts in user space, and comes to
// what it would with them. SPDX-License-Identifier: Apache-2.0
#include <array>
#include <bit>
#include <map>
#include <random>
#include <string>

#include "classifier/flow_table.h"
#include "tests/support/catch.h"
#include "tests/support/datapath_bench.h"
#include "tests/support/packet_builder.h"

using namespace egresswatch;
using datapath::Bench;
using datapath::TCP_ACK;
using datapath::TCP_SYN;
using egresswatch::test::PacketBuilder;

namespace {

struct Recorder final : FlowSink {
    std::vector<FlowUpdate> updates;
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        updates.insert(updates.end(), news.begin(), news.end());
    }
    [[nodiscard]] std::vector<FlowUpdate> of(UpdateReason reason) const {
        std::vector<FlowUpdate> found;
        for (const FlowUpdate& update : updates)
            if (update.reason == reason) found.push_back(update);
        return found;
    }
};

constexpr std::string_view ours = "10.0.0.1", theirs = "30.0.0.1";

std::vector<std::uint8_t> packet_of(datapath::direction way, std::uint8_t proto, std::uint16_t port,
                                    std::uint8_t flags, std::size_t payload) {
    const bool out = way == datapath::DIRECTION_OUT;
    constexpr std::uint16_t remote_port = 443;
    auto packet = PacketBuilder().ethernet(datapath::ETHER_IPV4);
    packet.ipv4(out ? ours : theirs, out ? theirs : ours, proto);
    const std::uint16_t from = out ? port : remote_port, to = out ? remote_port : port;
    if (proto == datapath::PROTO_TCP)
        packet.tcp(from, to, flags);
    else
        packet.udp(from, to);
    return packet.payload(payload).bytes();
}

// The same packets to a table of user space, and the kernel's way: one after the other, each to an entry that
// is whole from its first packet on.
struct Both {
    Both() : kernel(64), table(config()) {
        kernel.set_region({{Prefix::parse("30.0.0.0/8").value(), datapath::KIND_OUTSIDE},
                           {Prefix::parse("2400::/16").value(), datapath::KIND_OUTSIDE}});
        table.install_region(std::as_bytes(std::span(kernel.region)));
    }
    static FlowTableConfig config() {
        FlowTableConfig out;
        out.hash_seed = 42;  // the kernel's here
        out.slots_start = out.slots_max = 64;
        return out;
    }
    void feed(datapath::direction way, std::uint8_t proto, std::uint16_t port, std::uint8_t flags,
              std::size_t payload, std::uint64_t at_ns) {
        feed(way, packet_of(way, proto, port, flags, payload), at_ns);
    }
    void feed(datapath::direction way, const std::vector<std::uint8_t>& bytes, std::uint64_t at_ns) {
        constexpr std::uint32_t interface = 7;
        PacketInput input;
        input.bytes = bytes;
        input.wire_bytes = static_cast<std::uint32_t>(bytes.size());
        input.at_ns = at_ns;
        input.link = {LinkStart::ethernet, 0, 0};
        input.direction = static_cast<std::uint8_t>(way);
        input.ifindex = interface;
        kernel.now = at_ns;
        kernel.account(bytes, way, 0, 0, 1, interface);
        table.account({&input, 1}, sink);
    }
    // By key: where an entry lies is each table's own affair.
    [[nodiscard]] bool equal() const {
        using Entry = std::array<char, sizeof(datapath::flow_entry)>;
        std::map<std::string, Entry> mine, its;
        const auto add = [](auto& to, const datapath::flow_entry& entry) {
            if (entry.head.tag != datapath::FLOW_FREE)
                to.emplace(std::string(reinterpret_cast<const char*>(&entry.head.key), sizeof entry.head.key),
                           std::bit_cast<Entry>(entry));
        };
        for (std::uint32_t slot = 0; slot < table.slots(); ++slot)
            add(mine, table.entry_in(slot).value_or(datapath::flow_entry{}));
        for (const datapath::flow_entry& entry : kernel.flows) add(its, entry);
        return mine == its;
    }
    Bench kernel;
    FlowTable table;
    Recorder sink;
};

constexpr std::uint64_t second = 1'000'000'000;

}  // namespace

TEST_CASE("flows of one packet and of a few have the entries that the kernel would give them",
          "[classifier][flow]") {
    std::mt19937 random(20261126);
    std::size_t single = 0;
    for (int round = 0; round < 300; ++round) {
        Both both;
        const std::size_t packets = 1 + random() % 12;
        for (std::size_t i = 0; i < packets; ++i) {
            const auto way = random() % 2 == 0 ? datapath::DIRECTION_OUT : datapath::DIRECTION_IN;
            const bool tcp = random() % 4 != 0;
            constexpr std::uint8_t flags[] = {TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK,
                                              datapath::TCP_FIN | TCP_ACK};
            const std::size_t payload = random() % 3 == 0 ? random() % 65'000 : random() % 100;
            both.feed(way, tcp ? datapath::PROTO_TCP : datapath::PROTO_UDP,
                      static_cast<std::uint16_t>(40000 + random() % 6), flags[random() % 4], payload,
                      second + i * 1'000'000 + random() % 1000);
        }
        REQUIRE(both.equal());
        both.table.finish(both.sink);
        for (const FlowUpdate& flow : both.sink.of(UpdateReason::ended))
            single += flow.total.packets_out + flow.total.packets_in == 1 ? 1 : 0;
    }
    CHECK(single > 300);  // the test would notice
}

TEST_CASE("the only packet of a flow is told as the first of many would be", "[classifier][flow]") {
    Both both;
    both.feed(datapath::DIRECTION_IN, datapath::PROTO_TCP, 40000, TCP_SYN | TCP_ACK, 10, second + 5);
    both.table.finish(both.sink);
    REQUIRE(both.sink.updates.size() == 2);
    for (const FlowUpdate& update : both.sink.updates) {
        CHECK(update.total == FlowCounters{0, 0, 1, 50});
        CHECK(update.first_seen == update.last_seen);
        CHECK(update.first_seen.time_since_epoch().count() == second + 5);
        CHECK(update.handshake_rtt_us == 0);
        CHECK(update.initiator == datapath::INITIATOR_LOCAL);
        CHECK(update.initiator_sure);
        CHECK(update.tcp_flags_out == 0);
        CHECK(update.tcp_flags_in == (TCP_SYN | TCP_ACK));
        CHECK(update.ifindex == 7);
    }
    CHECK(both.sink.updates[0].reason == UpdateReason::created);
    CHECK(both.sink.updates[0].delta == FlowCounters{0, 0, 1, 50});
    CHECK(both.sink.updates[1].reason == UpdateReason::ended);
    CHECK(both.sink.updates[1].delta == FlowCounters{});
}

TEST_CASE("the round trip of a handshake is measured from a SYN that was the only packet, and was told",
          "[classifier][flow]") {
    for (const int syns : {1, 2}) {
        Both both;
        for (int i = 0; i < syns; ++i)
            both.feed(datapath::DIRECTION_OUT, datapath::PROTO_TCP, 40000, TCP_SYN, 0,
                      second + static_cast<std::uint64_t>(i));
        both.table.drain(both.sink);
        both.feed(datapath::DIRECTION_IN, datapath::PROTO_TCP, 40000, TCP_SYN | TCP_ACK, 0,
                  second + 25'000'000);
        both.table.finish(both.sink);
        const auto ended = both.sink.of(UpdateReason::ended);
        REQUIRE(ended.size() == 1);
        CHECK(ended[0].handshake_rtt_us == (syns == 1 ? 25'000 : 0));  // sent twice: no sample
        const auto active = both.sink.of(UpdateReason::active);
        REQUIRE(active.size() == 1);
        CHECK(active[0].delta == FlowCounters{0, 0, 1, 40});
    }
}

TEST_CASE("a flow of one packet can be asked to tell before its next one", "[classifier][flow]") {
    for (const bool asked : {false, true}) {
        Both both;
        both.feed(datapath::DIRECTION_OUT, datapath::PROTO_UDP, 40000, 0, 100, second);
        both.table.drain(both.sink);
        REQUIRE(both.sink.updates.size() == 1);
        if (asked) both.table.notify_at(both.sink.updates[0].key, 1000);
        both.feed(datapath::DIRECTION_OUT, datapath::PROTO_UDP, 40000, 0, 900, second + 1);
        CHECK(both.sink.of(UpdateReason::volume).size() == (asked ? 1 : 0));
    }
}

TEST_CASE("a first packet of all that IPv6 can carry is more than a flow without counts can say",
          "[classifier][flow]") {
    constexpr std::size_t udp_header = 8, longest = 65'535;
    const auto bytes = PacketBuilder()
                           .ethernet(datapath::ETHER_IPV6)
                           .ipv6("2400::1", "2400::2", datapath::PROTO_UDP)
                           .udp(40000, 443)
                           .payload(longest - udp_header)
                           .bytes();
    Both both;
    both.feed(datapath::DIRECTION_OUT, bytes, second);
    REQUIRE(both.equal());
    both.table.finish(both.sink);
    CHECK(both.sink.of(UpdateReason::ended).at(0).total == FlowCounters{1, longest + 40, 0, 0});
}
