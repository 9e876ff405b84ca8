// tests/unit/classifier/flow_direction_test.cpp - which end of a flow is ours, where no hook tells; time
// without packets. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <memory>

#include "classifier/flow_table.h"
#include "classifier/region/geo_builder.h"
#include "classifier/region/region_table.h"
#include "tests/support/catch.h"
#include "tests/support/packet_builder.h"

using namespace egresswatch;
using test::PacketBuilder;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

// No documentation prefixes: they are unknown by definition. 192.0.3.0/24 IE (home), 199.51.100.0/24 US,
// 203.0.114.0/24 CN.
std::shared_ptr<const RegionTable> region() {
    GeoBuilder builder;
    REQUIRE(builder.add_text({GeoFormat::cidr, "test", "test", ""},
                             "192.0.3.0/24 IE\n199.51.100.0/24 US\n203.0.114.0/24 CN\n"));
    const auto geo = builder.finish();
    REQUIRE(geo);
    RegionSpec spec;
    spec.home_countries = {"IE"};
    auto table = compile_region_table(*geo, spec);
    REQUIRE(table);
    return std::move(*table);
}

struct Recorder final : FlowSink {
    std::vector<FlowUpdate> updates;
    std::vector<Timestamp> ticks;
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp now) noexcept override {
        ticks.push_back(now);
        updates.insert(updates.end(), news.begin(), news.end());
    }
};

// A mirror port: nothing is said about networks.
struct Mirror {
    explicit Mirror(FlowTableConfig config = {}) : table(with_region(std::move(config))) {
        table.install_region(block->block());
    }
    static FlowTableConfig with_region(FlowTableConfig config) {
        config.direction_by_region = true;
        return config;
    }
    PacketVerdict see(const PacketBuilder& packet) {
        const auto bytes = packet.bytes();
        PacketInput input;
        input.bytes = bytes;
        input.wire_bytes = static_cast<std::uint32_t>(bytes.size());
        input.at_ns = at_ns += 1000;
        input.link = {LinkStart::ethernet, 0, 0};
        table.account({&input, 1}, sink);
        return table.last_verdict();
    }
    [[nodiscard]] std::uint64_t guessed() const { return table.losses()[datapath::LOSS_DIRECTION_GUESSED]; }

    std::shared_ptr<const RegionTable> block = region();
    FlowTable table;
    Recorder sink;
    std::uint64_t at_ns = 100 * second;
};

PacketBuilder tcp(const char* from, std::uint16_t sport, const char* to, std::uint16_t dport,
                  std::uint8_t flags) {
    PacketBuilder builder;
    builder.ethernet(0x0800).ipv4(from, to, 6).tcp(sport, dport, flags).payload(100);
    return builder;
}

constexpr auto out = datapath::DIRECTION_OUT;
constexpr auto in = datapath::DIRECTION_IN;

}  // namespace

TEST_CASE("seen from the middle, the end that is nearer to us is ours", "[classifier][direction]") {
    Mirror mirror;
    // Private before home before outside; whoever sends first.
    CHECK(mirror.see(tcp("199.51.100.1", 4000, "10.0.0.5", 80, 0x10)).direction == in);
    CHECK(mirror.see(tcp("10.0.0.5", 80, "199.51.100.1", 4000, 0x10)).direction == out);
    CHECK(mirror.see(tcp("199.51.100.1", 4000, "192.0.3.5", 80, 0x10)).direction == in);
    CHECK(mirror.see(tcp("192.0.3.5", 80, "199.51.100.1", 4000, 0x10)).direction == out);
    CHECK(mirror.see(tcp("192.0.3.5", 80, "10.0.0.5", 4000, 0x10)).direction == in);
    CHECK(mirror.see(tcp("8.8.8.8", 80, "192.0.3.5", 4000, 0x10)).direction == in);  // unknown is farther
    CHECK(mirror.see(tcp("199.51.100.1", 80, "8.8.8.8", 4000, 0x10)).direction == in);
    CHECK(mirror.guessed() == 0);
}

TEST_CASE("two ends that are equally far are a guess, and counted where a rule could see them",
          "[classifier][direction]") {
    Mirror mirror;
    CHECK(mirror.see(tcp("199.51.100.1", 4000, "203.0.114.9", 80, 0x10)).direction == out);  // sent first
    CHECK(mirror.see(tcp("203.0.114.9", 80, "199.51.100.1", 4000, 0x10)).direction == in);
    CHECK(mirror.guessed() == 2);
    CHECK(mirror.see(tcp("192.0.3.5", 4000, "192.0.3.6", 80, 0x10)).direction == out);
    CHECK(mirror.guessed() == 2);  // home to home: no rule asks which way
}

TEST_CASE("networks that the configuration names come before the region", "[classifier][direction]") {
    Mirror mirror({.local_networks = {Prefix::parse("199.51.100.0/24").value()}});
    CHECK(mirror.see(tcp("199.51.100.1", 4000, "192.0.3.5", 80, 0x10)).direction == out);
    CHECK(mirror.see(tcp("192.0.3.5", 80, "199.51.100.1", 4000, 0x10)).direction == in);
    CHECK(mirror.see(tcp("203.0.114.9", 80, "192.0.3.5", 4000, 0x10)).direction == in);  // they do not decide
}

TEST_CASE("the carrier decides where both inner ends are private", "[classifier][direction]") {
    Mirror mirror;
    PacketBuilder tunnel;
    tunnel.ethernet(0x0800).ipv4("199.51.100.1", "192.0.3.5", 4).ipv4("10.0.0.1", "10.0.0.2", 17).udp(1, 2);
    CHECK(mirror.see(tunnel).direction == in);
    CHECK(mirror.guessed() == 0);
}

TEST_CASE("the initiator of a flow seen from the middle is who sent the SYN, whichever end is ours",
          "[classifier][direction]") {
    Mirror mirror;
    // A client abroad pulls from us, and the first packet that we see is the answer.
    (void)mirror.see(tcp("192.0.3.5", 80, "199.51.100.1", 4000, 0x12));
    (void)mirror.see(tcp("199.51.100.1", 4000, "192.0.3.5", 80, 0x10));
    // We call out; and a flow from its middle on, where only the ports tell.
    (void)mirror.see(tcp("192.0.3.5", 5000, "199.51.100.1", 443, 0x02));
    (void)mirror.see(tcp("192.0.3.5", 22, "199.51.100.2", 6000, 0x10));
    mirror.table.finish(mirror.sink);
    std::map<std::uint16_t, FlowUpdate> by_port;
    for (const auto& update : mirror.sink.updates)
        if (update.reason == UpdateReason::ended) by_port[update.local_port()] = update;
    REQUIRE(by_port.size() == 3);
    CHECK(by_port[80].initiator == datapath::INITIATOR_REMOTE);
    CHECK(by_port[80].initiator_sure);
    CHECK(by_port[80].local() == Address::parse("192.0.3.5").value());
    CHECK(by_port[5000].initiator == datapath::INITIATOR_LOCAL);
    CHECK(by_port[5000].initiator_sure);
    CHECK(by_port[22].initiator == datapath::INITIATOR_REMOTE);
    CHECK_FALSE(by_port[22].initiator_sure);
}

TEST_CASE("of a flow that is met in its middle the initiator is read off flags, then ports, then order",
          "[classifier][direction]") {
    constexpr const char *ours = "192.0.3.5", *theirs = "199.51.100.1";
    constexpr const char *ours6 = "fd00::5", *theirs6 = "2001:4860::1";
    struct Case {
        const char* what;
        bool out;  // the packet that is met first
        std::uint8_t l4_proto;
        std::uint16_t sport, dport;  // of ICMP: type and code
        std::uint8_t flags;
        datapath::initiator expected;
        bool sure;
    };
    constexpr auto us = datapath::INITIATOR_LOCAL, them = datapath::INITIATOR_REMOTE;
    const std::vector<Case> cases{
        {"our answer to their SYN", true, 6, 8443, 50000, 0x12, them, true},
        {"their answer to our SYN", false, 6, 8443, 50000, 0x12, us, true},
        {"data of our server", true, 6, 443, 50000, 0x18, them, false},
        {"data of their server", false, 6, 443, 50000, 0x18, us, false},
        {"data to their server", true, 6, 50000, 443, 0x18, us, false},
        {"two high ports: who is seen first", false, 6, 50000, 50001, 0x18, them, false},
        {"two low ports: who is seen first", true, 17, 123, 123, 0, us, false},
        {"the answer of a resolver", false, 17, 53, 40000, 0, us, false},
        {"our resolver's answer", true, 17, 53, 40000, 0, them, false},
        {"QUIC from their server", false, 17, 443, 40000, 0, us, false},
        {"their ping", false, 1, 8, 0, 0, them, false},
        {"our ping", true, 1, 8, 0, 0, us, false},
        {"our answer to their ping", true, 1, 0, 0, 0, them, false},
        {"their answer to our ping", false, 1, 0, 0, 0, us, false},
        {"their answer to our ping, IPv6", false, 58, 129, 0, 0, us, false},
        {"our ping, IPv6", true, 58, 128, 0, 0, us, false},
    };
    for (const Case& one : cases) {
        INFO(one.what);
        Mirror mirror;
        const auto packet = [&](bool out, std::uint16_t sport, std::uint16_t dport, std::uint8_t flags) {
            PacketBuilder builder;
            if (one.l4_proto == 58)
                builder.ethernet(0x86dd).ipv6(out ? ours6 : theirs6, out ? theirs6 : ours6, one.l4_proto);
            else
                builder.ethernet(0x0800).ipv4(out ? ours : theirs, out ? theirs : ours, one.l4_proto);
            if (one.l4_proto == 1) builder.raw(sport == 8 ? "08 00" : "00 00");
            if (one.l4_proto == 58) builder.raw(sport == 128 ? "80 00" : "81 00");
            if (one.l4_proto == 6) builder.tcp(sport, dport, flags);
            if (one.l4_proto == 17) builder.udp(sport, dport);
            return builder.payload(40);
        };
        (void)mirror.see(packet(one.out, one.sport, one.dport, one.flags));
        (void)mirror.see(packet(!one.out, one.dport, one.sport, 0x10));  // what comes back changes nothing
        mirror.table.finish(mirror.sink);
        REQUIRE_FALSE(mirror.sink.updates.empty());
        const FlowUpdate& last = mirror.sink.updates.back();
        CHECK(last.local() == Address::parse(one.l4_proto == 58 ? ours6 : ours).value());
        CHECK(last.total.packets_out == 1);
        CHECK(last.total.packets_in == 1);
        CHECK(static_cast<int>(last.initiator) == one.expected);
        CHECK(last.initiator_sure == one.sure);
    }
}

TEST_CASE("a SYN that is seen late corrects what ports and order said", "[classifier][direction]") {
    Mirror mirror;
    (void)mirror.see(tcp("192.0.3.5", 50000, "199.51.100.1", 50001, 0x10));  // the end of the last connection
    (void)mirror.see(tcp("199.51.100.1", 50001, "192.0.3.5", 50000, 0x02));
    mirror.table.finish(mirror.sink);
    CHECK(mirror.sink.updates.back().initiator == datapath::INITIATOR_REMOTE);
    CHECK(mirror.sink.updates.back().initiator_sure);
}

TEST_CASE("time passes without packets: updates come, and idle flows end", "[classifier][flow]") {
    Mirror mirror({.idle_timeout = std::chrono::seconds(5)});
    mirror.table.advance(50 * second, mirror.sink);  // before the first packet: nothing to tell of
    (void)mirror.see(tcp("192.0.3.5", 5000, "199.51.100.1", 443, 0x02));
    mirror.table.advance(mirror.at_ns, mirror.sink);
    CHECK(mirror.sink.updates.empty());
    mirror.table.advance(101 * second, mirror.sink);
    REQUIRE(mirror.sink.updates.size() == 1);
    CHECK(mirror.sink.updates[0].reason == UpdateReason::created);
    mirror.table.advance(104 * second, mirror.sink);
    CHECK(mirror.table.live() == 1);
    mirror.table.advance(107 * second, mirror.sink);
    CHECK(mirror.table.live() == 0);
    REQUIRE(mirror.sink.updates.size() == 2);
    CHECK(mirror.sink.updates[1].reason == UpdateReason::ended);
    const auto ticks = mirror.sink.ticks;
    CHECK(std::is_sorted(ticks.begin(), ticks.end()));
    mirror.table.advance(90 * second, mirror.sink);  // back in time: nothing
    CHECK(mirror.sink.ticks == ticks);
}
