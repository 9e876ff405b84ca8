// tests/unit/classifier/datapath_account_test.cpp - what a packet adds to class, interface and flow.
// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "tests/support/catch.h"
#include "tests/support/datapath_bench.h"
#include "tests/support/packet_builder.h"

using namespace egresswatch;
using namespace egresswatch::datapath;
using egresswatch::test::PacketBuilder;

namespace {

// 10.0.0.0/8 local, 20.0.0.0/8 home, 30.0.0.0/8 outside; 40/8 and the rest unknown.
Bench europe(std::size_t slots = 64) {
    Bench bench(slots);
    bench.set_region({{Prefix::parse("10.0.0.0/8").value(), KIND_LOCAL},
                      {Prefix::parse("20.0.0.0/8").value(), KIND_HOME},
                      {Prefix::parse("30.0.0.0/8").value(), KIND_OUTSIDE},
                      {Prefix::parse("2400::/16").value(), KIND_OUTSIDE}});
    return bench;
}

PacketBuilder ip(std::string_view src, std::string_view dst, std::uint8_t proto) {
    return PacketBuilder().ethernet(ETHER_IPV4).ipv4(src, dst, proto);
}

std::vector<__u8> tcp(std::string_view src, std::string_view dst, __u16 sport, __u16 dport, __u8 flags,
                      std::size_t payload = 0) {
    return ip(src, dst, PROTO_TCP).tcp(sport, dport, flags).payload(payload).bytes();
}

__u64 outcome_bytes(const iface_direction& iface) {
    __u64 sum = 0;
    for (const auto& outcome : iface.outcome) sum += outcome.bytes;
    return sum;
}

}  // namespace

TEST_CASE("only flows whose far end is outside or unknown get an entry; all count", "[classifier][account]") {
    auto bench = europe();
    for (const char* dst : {"10.9.9.9", "20.1.1.1", "30.1.1.1", "40.1.1.1"})
        bench.account(tcp("10.0.0.1", dst, 40000, 443, TCP_SYN), DIRECTION_OUT);
    CHECK(bench.live().size() == 2);
    const auto& out = bench.iface.by_direction[DIRECTION_OUT];
    CHECK(out.seen.packets == 4);
    for (const auto outcome : {OUTCOME_LOCAL, OUTCOME_HOME, OUTCOME_OUTSIDE, OUTCOME_UNKNOWN})
        CHECK(out.outcome[outcome].packets == 1);
    bench.track_all = true;
    bench.account(tcp("10.0.0.1", "20.1.1.1", 40000, 443, TCP_SYN), DIRECTION_OUT);
    CHECK(bench.live().size() == 3);
}

TEST_CASE("both directions meet in one entry", "[classifier][account]") {
    auto bench = europe();
    bench.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_SYN), DIRECTION_OUT);
    bench.account(tcp("30.0.0.1", "10.0.0.1", 443, 40000, TCP_SYN | TCP_ACK), DIRECTION_IN);
    bench.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_ACK, 100), DIRECTION_OUT);
    const auto flows = bench.live();
    REQUIRE(flows.size() == 1);
    CHECK(flows[0].counts.packets_out == 2);
    CHECK(flows[0].counts.bytes_out == 40 + 140);
    CHECK(flows[0].counts.packets_in == 1);
    CHECK(flows[0].head.tcp_flags_out == (TCP_SYN | TCP_ACK));
    CHECK(flows[0].head.tcp_flags_in == (TCP_SYN | TCP_ACK));
    CHECK(flows[0].head.initiator == INITIATOR_LOCAL);
    CHECK(flows[0].head.initiator_sure == 1);
}

TEST_CASE("the initiator is who sent the SYN, else the side without the registered port",
          "[classifier][account]") {
    struct Case {
        direction way;
        __u16 sport, dport;
        __u8 flags;
        initiator expected;
        bool sure;
    };
    for (const auto& one :
         std::vector<Case>{{DIRECTION_IN, 50000, 22, TCP_SYN, INITIATOR_REMOTE, true},
                           {DIRECTION_OUT, 22, 50000, TCP_SYN | TCP_ACK, INITIATOR_REMOTE, true},
                           {DIRECTION_OUT, 22, 50000, TCP_ACK, INITIATOR_REMOTE, false},
                           {DIRECTION_IN, 443, 50000, TCP_ACK, INITIATOR_LOCAL, false},
                           {DIRECTION_IN, 8443, 50000, TCP_ACK, INITIATOR_REMOTE, false}}) {
        auto bench = europe();
        const bool out = one.way == DIRECTION_OUT;
        bench.account(tcp(out ? "10.0.0.1" : "30.0.0.1", out ? "30.0.0.1" : "10.0.0.1", one.sport, one.dport,
                          one.flags),
                      one.way);
        INFO(one.sport << " > " << one.dport << " flags " << int{one.flags});
        REQUIRE(bench.live().size() == 1);
        CHECK(static_cast<int>(bench.live()[0].head.initiator) == one.expected);
        CHECK((bench.live()[0].head.initiator_sure == 1) == one.sure);
    }
}

TEST_CASE("the handshake round trip is measured whoever opens", "[classifier][account]") {
    auto bench = europe();
    bench.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_SYN), DIRECTION_OUT);
    bench.now += 20'500'000;
    bench.account(tcp("30.0.0.1", "10.0.0.1", 443, 40000, TCP_SYN | TCP_ACK), DIRECTION_IN);
    bench.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_ACK), DIRECTION_OUT);
    bench.now += 5'000'000;
    bench.account(tcp("30.0.0.1", "10.0.0.1", 443, 40000, TCP_ACK, 10), DIRECTION_IN);
    CHECK(bench.live()[0].head.handshake_rtt_us == 20'500);

    auto served = europe();
    served.account(tcp("30.0.0.1", "10.0.0.1", 50000, 443, TCP_SYN), DIRECTION_IN);
    served.now += 1'000'000;
    served.account(tcp("10.0.0.1", "30.0.0.1", 443, 50000, TCP_SYN | TCP_ACK), DIRECTION_OUT);
    served.now += 90'000'000;
    served.account(tcp("30.0.0.1", "10.0.0.1", 50000, 443, TCP_ACK), DIRECTION_IN);
    CHECK(served.live()[0].head.handshake_rtt_us == 90'000);

    auto again = europe();  // a SYN sent twice: which one was answered is not known
    again.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_SYN), DIRECTION_OUT);
    again.now += 1'000'000'000;
    again.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_SYN), DIRECTION_OUT);
    again.now += 10'000'000;
    again.account(tcp("30.0.0.1", "10.0.0.1", 443, 40000, TCP_SYN | TCP_ACK), DIRECTION_IN);
    CHECK(again.live()[0].head.handshake_rtt_us == 0);
}

TEST_CASE("a super-packet counts as the segments that the wire carries", "[classifier][account]") {
    auto bench = europe();
    // 10,000 payload bytes, segments of 1,448: seven of them, each with its own 66 bytes of headers.
    const auto bytes =
        ip("10.0.0.1", "30.0.0.1", PROTO_TCP).tcp(40000, 443, TCP_ACK, 12).payload(10'000).bytes();
    for (const __u32 segments : {7u, 0u}) bench.account(bytes, DIRECTION_OUT, segments, 1448);
    const auto flow = bench.live().at(0);
    CHECK(flow.counts.packets_out == 2 * 7);
    CHECK(flow.counts.bytes_out == 2 * (10'000 + 7 * 52));
    const auto& out = bench.iface.by_direction[DIRECTION_OUT];
    CHECK(out.seen.bytes == 2 * (10'000 + 7 * 66));
    CHECK(out.as_given.packets == 2);
    CHECK(out.as_given.bytes == 2 * bytes.size());
}

TEST_CASE("of carrier and content the worse region counts", "[classifier][account]") {
    const auto through = [](std::string_view outer, std::string_view inner) {
        auto bench = europe();
        bench.account(ip("10.0.0.1", outer, PROTO_IPIP).ipv4("10.0.0.9", inner, PROTO_UDP).udp(1, 2).bytes(),
                      DIRECTION_OUT);
        const auto& out = bench.iface.by_direction[DIRECTION_OUT];
        for (int kind = 0; kind < KIND_COUNT; kind++)
            if (out.outcome[kind].packets) return kind;
        return -1;
    };
    CHECK(through("20.0.0.1", "30.0.0.1") == KIND_OUTSIDE);
    CHECK(through("30.0.0.1", "20.0.0.1") == KIND_OUTSIDE);
    CHECK(through("20.0.0.1", "10.0.0.2") == KIND_HOME);
    CHECK(through("40.0.0.1", "20.0.0.1") == KIND_UNKNOWN);

    auto bench = europe();  // the carrier in the middle is outside, both ends of the chain are home
    bench.account(ip("10.0.0.1", "20.0.0.1", PROTO_IPIP)
                      .ipv4("10.0.0.2", "30.0.0.1", PROTO_IPIP)
                      .ipv4("10.0.0.3", "20.0.0.2", PROTO_UDP)
                      .udp(1, 2)
                      .bytes(),
                  DIRECTION_OUT);
    REQUIRE(bench.live().size() == 1);
    CHECK(Address::from_bytes(bench.live()[0].head.key.remote_addr).to_string() == "20.0.0.2");
    CHECK(bench.iface.by_direction[DIRECTION_OUT].outcome[OUTCOME_OUTSIDE].packets == 1);
}

TEST_CASE("addresses that translate to IPv4 take the region of that IPv4 address", "[classifier][account]") {
    auto bench = europe();
    const auto send = [&](std::string_view dst) {
        bench.account(
            PacketBuilder().ethernet(ETHER_IPV6).ipv6("2001:db8::1", dst, PROTO_UDP).udp(1, 2).bytes(),
            DIRECTION_OUT);
    };
    send("64:ff9b::1e00:1");  // NAT64 of 30.0.0.1
    send("2002:1e00:1::1");   // 6to4 of 30.0.0.1
    send("64:ff9b::1400:1");  // NAT64 of 20.0.0.1
    send("2400::5");
    const auto& out = bench.iface.by_direction[DIRECTION_OUT];
    CHECK(out.outcome[OUTCOME_OUTSIDE].packets == 3);
    CHECK(out.outcome[OUTCOME_HOME].packets == 1);
}

TEST_CASE("without a region table everything is unknown, tracked and counted as such",
          "[classifier][account]") {
    Bench bench;
    bench.account(tcp("10.0.0.1", "20.0.0.1", 1, 2, TCP_SYN), DIRECTION_OUT);
    CHECK(bench.losses[LOSS_NO_REGION_TABLE] == 1);
    CHECK(bench.live().size() == 1);
    CHECK(bench.iface.by_direction[DIRECTION_OUT].outcome[OUTCOME_UNKNOWN].packets == 1);
}

TEST_CASE("volume events come at 64 KiB and at each doubling", "[classifier][account]") {
    auto bench = europe();
    for (int i = 0; i < 1000; i++)
        bench.account(tcp("10.0.0.1", "30.0.0.1", 40000, 443, TCP_ACK, 960), DIRECTION_OUT);
    REQUIRE(bench.events.size() >= 1);
    CHECK(bench.events[0].kind == EVENT_FLOW_NEW);
    std::vector<__u64> volumes;
    for (std::size_t i = 1; i < bench.events.size(); i++) volumes.push_back(bench.events[i].bytes_out);
    CHECK(volumes == std::vector<__u64>{66'000, 132'000, 264'000, 528'000});
}

TEST_CASE("a full table loses flows, never bytes", "[classifier][account]") {
    auto bench = europe(256);
    std::mt19937 random(7);
    __u64 bytes = 0;
    const __u64 packets = 4000;
    for (__u64 i = 0; i < packets; i++) {
        const auto dst = "30." + std::to_string(random() % 256) + "." + std::to_string(random() % 256) + ".1";
        const auto frame = tcp("10.0.0.1", dst, static_cast<__u16>(random()), 443, TCP_SYN, random() % 50);
        bytes += frame.size() - ETHERNET_BYTES;
        bench.account(frame, DIRECTION_OUT);
    }
    __u64 flow_packets = 0;
    __u64 flow_bytes = 0;
    for (const auto& flow : bench.live()) {
        flow_packets += flow.counts.packets_out;
        flow_bytes += flow.counts.bytes_out;
    }
    CHECK(bench.live().size() > 250);
    CHECK(flow_packets + bench.losses[LOSS_FLOWS_FULL] == packets);
    CHECK(flow_bytes + bench.losses[LOSS_FLOWS_FULL_BYTES] == bytes);
    CHECK(bench.classes[3].by_direction[DIRECTION_OUT].ip_bytes == bytes);
    const auto full_events = [&] {
        return std::count_if(bench.events.begin(), bench.events.end(),
                             [](const auto& event) { return event.kind == EVENT_FLOWS_FULL; });
    };
    CHECK(full_events() == 1);
    bench.now += 1'000'000'000;  // at most one a second
    for (__u16 port = 1; port <= 50; port++)
        bench.account(tcp("10.0.0.1", "30.255.255.1", port, 443, TCP_SYN), DIRECTION_OUT);
    CHECK(full_events() == 2);
}

TEST_CASE("slots freed in any order leave no flow behind", "[classifier][account][property]") {
    auto bench = europe(64);
    std::mt19937 random(99);
    std::map<std::pair<int, int>, __u64> sent;
    __u64 lost = 0;
    for (int round = 0; round < 20'000; round++) {
        const int host = static_cast<int>(random() % 12);
        const int port = static_cast<int>(random() % 6) + 1;
        bench.account(
            tcp("10.0.0.1", "30.0.0." + std::to_string(host), static_cast<__u16>(port), 443, TCP_ACK),
            DIRECTION_OUT);
        if (bench.losses[LOSS_FLOWS_FULL] > lost)
            lost++;
        else
            sent[{host, port}]++;
        if (random() % 4 == 0) {  // take a random slot out, as the drain does
            auto& entry = bench.flows[random() % 64];
            if (!(entry.head.tag & FLOW_LIVE)) continue;
            const auto key =
                std::pair{int{entry.head.key.remote_addr[15]}, int{host16(entry.head.key.local_port)}};
            REQUIRE(entry.counts.packets_out == sent[key]);
            sent.erase(key);
            entry.head.tag = FLOW_FREE;
        }
    }
    CHECK(bench.section.spilled > 0);
    std::map<std::pair<int, int>, __u64> kept;
    for (const auto& flow : bench.live())
        kept[{flow.head.key.remote_addr[15], host16(flow.head.key.local_port)}] += flow.counts.packets_out;
    CHECK(kept == sent);
}

TEST_CASE("each packet is in exactly one outcome, whatever its bytes", "[classifier][account][property]") {
    auto bench = europe(1024);
    std::mt19937 random(3);
    const auto whole = ip("10.0.0.1", "30.0.0.1", PROTO_UDP)
                           .udp(4000, PORT_VXLAN)
                           .raw("0800000000000100")
                           .ethernet(ETHER_IPV6)
                           .ipv6("2001:db8::1", "2400::1", PROTO_TCP)
                           .tcp(1, 2, 0)
                           .payload(30)
                           .bytes();
    __u64 bytes = 0;
    for (int i = 0; i < 100'000; i++) {
        auto frame = whole;
        for (auto n = random() % 6; n > 0; n--) frame[random() % frame.size()] = static_cast<__u8>(random());
        frame.resize(random() % frame.size() + 1);
        bytes += frame.size();
        bench.account(frame, random() % 2 ? DIRECTION_OUT : DIRECTION_IN);
    }
    __u64 packets = 0;
    __u64 counted = 0;
    for (const auto& way : bench.iface.by_direction) {
        packets += way.seen.packets;
        CHECK(way.seen.bytes == outcome_bytes(way));
        counted += outcome_bytes(way);
    }
    CHECK(packets == 100'000);
    CHECK(counted == bytes);
}
