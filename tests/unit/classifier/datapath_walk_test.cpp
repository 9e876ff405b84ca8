// tests/unit/classifier/datapath_walk_test.cpp - the header walk, by hand-built packets; captures are in
// tests/corpus. SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <random>

#include "tests/support/catch.h"
#include "tests/support/datapath_bench.h"
//
#include "classifier/plain_packet.h"
#include "tests/support/packet_builder.h"

using namespace egresswatch;
using namespace egresswatch::datapath;
using egresswatch::test::PacketBuilder;

namespace {

walk_result walk_bytes(const std::vector<__u8>& bytes, __u32 wire_bytes = 0, __u8 start = START_ETHERNET) {
    static Bench bench;
    bench.frame = bytes;
    frame_facts frame{};
    frame.wire_bytes = wire_bytes ? wire_bytes : static_cast<__u32>(bytes.size());
    frame.captured_bytes = static_cast<__u32>(bytes.size());
    frame.start = start;
    walk_full(&bench, &bench.scratch, &frame);
    return bench.scratch.result;
}

walk_result walk(const PacketBuilder& packet, __u8 start = START_ETHERNET) {
    INFO(packet.to_scapy());
    return walk_bytes(packet.bytes(), 0, start);
}

std::string text(const __u8* address) {
    return Address::from_bytes(address).to_string();
}

// The innermost five-tuple as one string, so that a case is one comparison.
std::string tuple(const walk_result& r) {
    return text(r.src) + "." + std::to_string(host16(r.sport)) + ">" + text(r.dst) + "." +
           std::to_string(host16(r.dport)) + "/" + std::to_string(r.l4_proto);
}

PacketBuilder inner_udp(PacketBuilder packet) {
    return packet.ipv4("192.0.2.1", "198.51.100.2", PROTO_UDP).udp(4000, 53).payload(10);
}
const std::string inner_tuple = "192.0.2.1.4000>198.51.100.2.53/17";

}  // namespace

TEST_CASE("link headers, tags and labels lead to the same five-tuple", "[classifier][walk]") {
    CHECK(tuple(walk(inner_udp(PacketBuilder().ethernet(ETHER_IPV4)))) == inner_tuple);
    CHECK(tuple(walk(inner_udp(PacketBuilder().ethernet(ETHER_VLAN).vlan(7, ETHER_IPV4)))) == inner_tuple);
    CHECK(tuple(walk(inner_udp(
              PacketBuilder().ethernet(ETHER_SERVICE_VLAN).vlan(7, ETHER_VLAN).vlan(8, ETHER_IPV4)))) ==
          inner_tuple);
    CHECK(tuple(walk(inner_udp(PacketBuilder().ethernet(ETHER_MPLS).mpls(16, false).mpls(17, true)))) ==
          inner_tuple);
    CHECK(tuple(walk(inner_udp(PacketBuilder().ethernet(ETHER_PPPOE_SESSION).pppoe(0x21)))) == inner_tuple);
    CHECK(tuple(walk(inner_udp(PacketBuilder().ethernet(40).raw("aaaa03 000000 0800")))) == inner_tuple);
    CHECK(tuple(walk(inner_udp(PacketBuilder()), START_IP)) == inner_tuple);
}

TEST_CASE("IPv4 options move the ports, they do not hide them", "[classifier][walk]") {
    const auto r = walk(PacketBuilder()
                            .ethernet(ETHER_IPV4)
                            .ipv4("192.0.2.1", "192.0.2.2", PROTO_TCP, 40)
                            .tcp(1, 2, TCP_SYN));
    CHECK(tuple(r) == "192.0.2.1.1>192.0.2.2.2/6");
    CHECK(r.tcp_flags == TCP_SYN);
    CHECK(r.payload_offset == 14 + 60 + 20);
}

TEST_CASE("IPv6 extension headers are walked to the transport header", "[classifier][walk]") {
    const auto r = walk(PacketBuilder()
                            .ethernet(ETHER_IPV6)
                            .ipv6("2001:db8::1", "2001:db8::2", PROTO_HOPOPTS)
                            .extension(PROTO_ROUTING, 8)
                            .extension(PROTO_DSTOPTS, 24)
                            .extension(PROTO_TCP, 2048)
                            .tcp(50000, 443, TCP_ACK, 12));
    CHECK(tuple(r) == "2001:db8::1.50000>2001:db8::2.443/6");
    CHECK(r.ip_bytes == 40 + 8 + 24 + 2048 + 32);
}

TEST_CASE("a fragment that is not the first has no ports and names its protocol", "[classifier][walk]") {
    const auto rest = walk(PacketBuilder()
                               .ethernet(ETHER_IPV4)
                               .ipv4_fragment("192.0.2.1", "192.0.2.2", PROTO_UDP, 1480, false)
                               .payload(100));
    CHECK(tuple(rest) == "192.0.2.1.0>192.0.2.2.0/17");
    CHECK((rest.flags & WALK_FRAGMENT) != 0);
    const auto first = walk(PacketBuilder()
                                .ethernet(ETHER_IPV4)
                                .ipv4_fragment("192.0.2.1", "192.0.2.2", PROTO_UDP, 0, true)
                                .udp(9, 10)
                                .payload(100));
    CHECK(tuple(first) == "192.0.2.1.9>192.0.2.2.10/17");
    const auto six = walk(PacketBuilder()
                              .ethernet(ETHER_IPV6)
                              .ipv6("2001:db8::1", "2001:db8::2", PROTO_FRAGMENT)
                              .ipv6_fragment(PROTO_TCP, 1400, true)
                              .payload(64));
    CHECK(tuple(six) == "2001:db8::1.0>2001:db8::2.0/6");
}

TEST_CASE("every tunnel of the design is opened and named", "[classifier][walk]") {
    struct Case {
        const char* name;
        PacketBuilder packet;
        tunnel_kind kind;
    };
    const auto outer = [](std::uint8_t proto) {
        return PacketBuilder().ethernet(ETHER_IPV4).ipv4("203.0.113.1", "203.0.113.2", proto);
    };
    const auto udp = [&](std::uint16_t port) { return outer(PROTO_UDP).udp(55555, port); };
    const std::vector<Case> cases = {
        {"ipip", inner_udp(outer(PROTO_IPIP)), TUNNEL_IPIP},
        {"gre", inner_udp(outer(PROTO_GRE).raw("0000 0800")), TUNNEL_GRE},
        {"gre with checksum, key and sequence",
         inner_udp(outer(PROTO_GRE).raw("b000 0800 00000000 00000001 00000002")), TUNNEL_GRE},
        {"gre with Ethernet", inner_udp(outer(PROTO_GRE).raw("0000 6558").ethernet(ETHER_IPV4)), TUNNEL_GRE},
        {"pptp", inner_udp(outer(PROTO_GRE).raw("3081 880b 00000000 00000001 00000002 ff03 0021")),
         TUNNEL_GRE},
        {"gre in udp", inner_udp(udp(PORT_GRE_IN_UDP).raw("0000 0800")), TUNNEL_GRE},
        {"erspan I", inner_udp(outer(PROTO_GRE).raw("0000 88be").ethernet(ETHER_IPV4)), TUNNEL_ERSPAN},
        {"erspan II",
         inner_udp(outer(PROTO_GRE)
                       .raw("1000 88be 00000001 1000000000000000")
                       .ethernet(ETHER_VLAN)
                       .vlan(1, ETHER_IPV4)),
         TUNNEL_ERSPAN},
        {"erspan III",
         inner_udp(outer(PROTO_GRE).raw("1000 22eb 00000001 200000000000000000000000").ethernet(ETHER_IPV4)),
         TUNNEL_ERSPAN},
        {"erspan III with subheader",
         inner_udp(outer(PROTO_GRE)
                       .raw("1000 22eb 00000001 200000000000000000000001 0000000000000000")
                       .ethernet(ETHER_IPV4)),
         TUNNEL_ERSPAN},
        {"vxlan", inner_udp(udp(PORT_VXLAN).raw("0800000000000100").ethernet(ETHER_IPV4)), TUNNEL_VXLAN},
        {"geneve with options",
         inner_udp(udp(PORT_GENEVE).raw("0200 6558 00000100 0000000000000000").ethernet(ETHER_IPV4)),
         TUNNEL_GENEVE},
        {"geneve with IP", inner_udp(udp(PORT_GENEVE).raw("0000 0800 00000100")), TUNNEL_GENEVE},
        {"gtp-u", inner_udp(udp(PORT_GTPU).raw("30ff 0000 00000001")), TUNNEL_GTPU},
        {"gtp-u with extension header", inner_udp(udp(PORT_GTPU).raw("34ff 0000 00000001 00000085 01100900")),
         TUNNEL_GTPU},
    };
    for (const auto& one : cases) {
        INFO(one.name << ": " << one.packet.to_scapy());
        const auto r = walk(one.packet);
        CHECK(tuple(r) == inner_tuple);
        CHECK(static_cast<int>(r.tunnel) == one.kind);
        CHECK(r.levels == 1);
        CHECK(text(r.outer_src) == "203.0.113.1");
        CHECK(text(r.outer_dst) == "203.0.113.2");
        CHECK(r.ip_bytes == 38);
    }
}

TEST_CASE("IPv6 inside IPv4 is 6in4 by protocol 41 and Teredo by port 3544", "[classifier][walk]") {
    const auto outer = [](std::uint8_t proto) {
        return PacketBuilder().ethernet(ETHER_IPV4).ipv4("203.0.113.1", "203.0.113.2", proto);
    };
    const auto six = [](PacketBuilder packet) {
        return packet.ipv6("2001:db8::1", "2001:db8::2", PROTO_TCP).tcp(50000, 80, TCP_SYN);
    };
    CHECK(walk(six(outer(PROTO_IPV6))).tunnel == TUNNEL_SIXINFOUR);
    CHECK(walk(six(outer(PROTO_UDP).udp(50000, PORT_TEREDO))).tunnel == TUNNEL_TEREDO);
    const auto r = walk(six(outer(PROTO_UDP)
                                .udp(50000, PORT_TEREDO)
                                .raw("0001 0000 0000000000000000 00")
                                .raw("0000 1234 01020304")));
    CHECK(r.tunnel == TUNNEL_TEREDO);
    CHECK(tuple(r) == "2001:db8::1.50000>2001:db8::2.80/6");
}

TEST_CASE("the third tunnel is not opened, and that is said", "[classifier][walk]") {
    PacketBuilder packet;
    packet.ethernet(ETHER_IPV4);
    packet.ipv4("10.0.0.1", "10.0.0.2", PROTO_IPIP).ipv4("10.0.1.1", "10.0.1.2", PROTO_IPIP);
    const auto two = walk(inner_udp(packet));
    CHECK(two.levels == 2);
    CHECK(tuple(two) == inner_tuple);
    CHECK(text(two.outer_dst) == "10.0.0.2");
    CHECK(text(two.middle_dst) == "10.0.1.2");
    const auto three = walk(inner_udp(packet.ipv4("10.0.2.1", "10.0.2.2", PROTO_IPIP)));
    CHECK(three.levels == 2);
    CHECK(tuple(three) == "10.0.2.1.0>10.0.2.2.0/4");
    CHECK((three.flags & WALK_TUNNEL_DEPTH) != 0);
}

TEST_CASE("what is not IP, nonsense and cut frames are told apart", "[classifier][walk]") {
    CHECK(walk(PacketBuilder().ethernet(0x0806).payload(28)).status == WALK_NOT_IP);
    CHECK(walk(PacketBuilder().ethernet(ETHER_IPV4).raw("55")).status == WALK_MALFORMED);
    CHECK(walk(PacketBuilder().ethernet(ETHER_IPV4).raw("4400001400000000400600000a0000010a000002")).status ==
          WALK_MALFORMED);
    const auto whole =
        PacketBuilder().ethernet(ETHER_IPV4).ipv4("192.0.2.1", "192.0.2.2", PROTO_TCP).tcp(1, 2, 0).bytes();
    const std::vector<__u8> cut(whole.begin(), whole.begin() + 30);
    CHECK(walk_bytes(cut, static_cast<__u32>(whole.size())).status == WALK_TRUNCATED);
    CHECK(walk_bytes(cut).status == WALK_MALFORMED);
    const std::vector<__u8> no_ports(whole.begin(), whole.begin() + 34);
    CHECK(tuple(walk_bytes(no_ports, static_cast<__u32>(whole.size()))) == "192.0.2.1.0>192.0.2.2.0/6");
}

TEST_CASE("a length that lies is believed only as far as the frame goes", "[classifier][walk]") {
    auto bytes =
        PacketBuilder().ethernet(ETHER_IPV4).ipv4("192.0.2.1", "192.0.2.2", PROTO_UDP).udp(1, 2).bytes();
    bytes[16] = 0xff;
    CHECK(walk_bytes(bytes).ip_bytes == 28);
    bytes[16] = 0;
    bytes[17] = 0;  // total length 0: a super-packet
    CHECK(walk_bytes(bytes).ip_bytes == 28);
    bytes.resize(60);  // Ethernet padding is not IP
    bytes[17] = 28;
    CHECK(walk_bytes(bytes).ip_bytes == 28);
}

TEST_CASE("a broken inner header leaves the packet with its carrier", "[classifier][walk]") {
    const auto r =
        walk(PacketBuilder().ethernet(ETHER_IPV4).ipv4("10.0.0.1", "10.0.0.2", PROTO_IPIP).raw("45000000"));
    CHECK(r.status == WALK_IP);
    CHECK(tuple(r) == "10.0.0.1.0>10.0.0.2.0/4");
    CHECK((r.flags & WALK_INNER_INCOMPLETE) != 0);
}

TEST_CASE("endless headers end", "[classifier][walk]") {
    PacketBuilder tags;
    tags.ethernet(ETHER_VLAN);
    for (int i = 0; i < 100; i++) tags.vlan(1, ETHER_VLAN);
    const auto r = walk(tags);
    CHECK(r.status == WALK_MALFORMED);
    CHECK((r.flags & WALK_HEADERS_MAX) != 0);
}

namespace {

bool is_plain_proto(const PlainPacket& packet) {
    return packet.sent >> 32 == PROTO_TCP || packet.sent >> 32 == PROTO_UDP;
}

// Of UDP: the fast walk leaves it to the full one.
bool goes_to_tunnel(const PlainPacket& packet) {
    const auto source = host16(static_cast<__u16>(packet.sent));
    const auto destination = host16(static_cast<__u16>(packet.sent >> 16));
    return packet.sent >> 32 == PROTO_UDP &&
           (is_tunnel_port(source) != 0 || is_tunnel_port(destination) != 0);
}

bool is_same(const std::uint8_t* data, const PlainPacket& plain, const walk_result& fast) {
    return std::memcmp(&plain.source, fast.src, 16) == 0 &&
           std::memcmp(&plain.destination, fast.dst, 16) == 0 &&
           plain.sent == (fast.sport | __u64{fast.dport} << 16 | __u64{fast.l4_proto} << 32) &&
           plain.ip_offset == fast.ip_offset && plain.ip_bytes == fast.ip_bytes &&
           payload_offset_of(data, plain) == fast.payload_offset && plain.tcp_flags == fast.tcp_flags;
}

}  // namespace

TEST_CASE("where the fast walk answers, the full walk gives the same answer",
          "[classifier][walk][property]") {
    std::mt19937 random(20261124);
    const auto any = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
    unsigned answered = 0;
    unsigned read_plainly = 0;
    for (int round = 0; round < 200'000; round++) {
        PacketBuilder packet;
        const bool l3 = any(2) != 0;
        if (!l3)
            packet.ethernet(any(8) ? static_cast<std::uint16_t>(any(2) ? ETHER_IPV4 : ETHER_IPV6)
                                   : static_cast<std::uint16_t>(random()));
        const std::uint8_t protos[] = {PROTO_TCP, PROTO_UDP,  PROTO_ICMP, PROTO_ICMPV6,
                                       PROTO_GRE, PROTO_SCTP, 255};
        const auto proto = protos[any(7)];
        if (any(2))
            packet.ipv4("192.0.2.1", "192.0.2.2", proto, any(4) ? 0 : 4);
        else
            packet.ipv6("2001:db8::1", "2001:db8::2", proto);
        const std::uint16_t ports[] = {53, 443, PORT_VXLAN, PORT_TEREDO, PORT_GTPU, 40000};
        if (proto == PROTO_UDP)
            packet.udp(ports[any(6)], ports[any(6)]);
        else
            packet.tcp(ports[any(6)], ports[any(6)], static_cast<std::uint8_t>(random()), 4 * any(3));
        auto bytes = packet.payload(any(40)).bytes();
        if (any(3) == 0) bytes[any(static_cast<unsigned>(bytes.size()))] = static_cast<__u8>(random());
        if (any(3) == 0) bytes.resize(any(static_cast<unsigned>(bytes.size())) + 1);
        const auto wire = static_cast<__u32>(bytes.size()) + (any(3) ? 0 : any(100));
        const __u8 start = l3 ? START_IP : START_ETHERNET;
        walk_result fast{};
        const bool is_fast = walk_fast(bytes.data(), bytes.data() + bytes.size(), start, wire, &fast) != 0;
        PlainPacket plain;
        if (start == START_ETHERNET &&
            read_plain(bytes.data(), static_cast<__u32>(bytes.size()), wire, plain) &&
            is_plain_proto(plain)) {
            INFO("round " << round << ": " << packet.to_scapy());
            REQUIRE(is_fast != goes_to_tunnel(plain));
            if (is_fast) REQUIRE(is_same(bytes.data(), plain, fast));
            read_plainly++;
        }
        if (!is_fast) continue;
        answered++;
        const auto full = walk_bytes(bytes, wire, start);
        INFO("round " << round << ": " << packet.to_scapy());
        REQUIRE(std::memcmp(&fast, &full, offsetof(walk_result, outer_src)) == 0);
    }
    CHECK(answered > 40'000);
    CHECK(read_plainly > 5'000);
}
