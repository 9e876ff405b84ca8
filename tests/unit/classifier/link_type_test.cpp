// tests/unit/classifier/link_type_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/link_type.h"

#include <string>
#include <vector>

#include "tests/support/catch.h"

using egresswatch::LinkStart;
using egresswatch::locate_link;

namespace {

using Bytes = std::vector<std::uint8_t>;

// "E", "T0800", "I", "P" with "@offset"; "-" not IP, "?" truncated.
std::string place(std::uint32_t link_type, const Bytes& bytes) {
    const auto where = locate_link(link_type, bytes);
    const auto offset = "@" + std::to_string(where.offset);
    char type[8];
    switch (where.start) {
        case LinkStart::ethernet:
            return "E" + offset;
        case LinkStart::ether_type:
            std::snprintf(type, sizeof type, "T%04x", where.ether_type);
            return type + offset;
        case LinkStart::ip:
            return "I" + offset;
        case LinkStart::ppp:
            return "P" + offset;
        case LinkStart::not_ip:
            return "-";
        case LinkStart::truncated:
            return "?";
    }
    return "";
}

Bytes join(Bytes first, const Bytes& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

const Bytes snap_ipv4{0xaa, 0xaa, 3, 0, 0, 0, 8, 0};

}  // namespace

TEST_CASE("link types without a header start where they should", "[classifier][link]") {
    CHECK(place(1, Bytes(60)) == "E@0");
    for (const std::uint32_t type : {12u, 14u, 101u, 228u, 229u}) CHECK(place(type, Bytes(20)) == "I@0");
    CHECK(place(51, Bytes(20)) == "T8864@0");
    CHECK(place(274, Bytes(60)) == "E@8");
    CHECK(place(274, Bytes(7)) == "?");
    CHECK(place(283, Bytes(60)) == "E@4");
}

TEST_CASE("loopback takes the address family of either byte order and of every system",
          "[classifier][link]") {
    CHECK(place(0, {2, 0, 0, 0, 0x45}) == "I@4");
    CHECK(place(0, {0, 0, 0, 2, 0x45}) == "I@4");
    CHECK(place(0, {30, 0, 0, 0}) == "I@4");
    CHECK(place(108, {0, 0, 0, 24}) == "I@4");
    CHECK(place(0, {0xff, 3, 0, 0x21}) == "P@2");
    CHECK(place(0, {0x0f, 0, 8, 0}) == "T0800@4");
    CHECK(place(0, {7, 0, 0, 0}) == "-");
    CHECK(place(0, {2, 0, 0}) == "?");
    CHECK(place(109, join({2, 0, 0, 0}, Bytes(8))) == "I@12");
}

TEST_CASE("Linux cooked headers", "[classifier][link]") {
    Bytes v1(16);
    v1[14] = 0x86;
    v1[15] = 0xdd;
    CHECK(place(113, v1) == "T86dd@16");
    CHECK(place(113, Bytes(v1.begin(), v1.end() - 1)) == "?");
    v1[2] = 824 >> 8;
    v1[3] = 824 & 0xff;
    CHECK(place(113, v1) == "-");  // netlink: the protocol field is not an EtherType
    Bytes llc(16);
    llc[15] = 4;
    CHECK(place(113, join(llc, snap_ipv4)) == "T0800@24");
    Bytes v2(20);
    v2[0] = 0x08;
    CHECK(place(276, v2) == "T0800@20");
    CHECK(place(276, Bytes(19)) == "?");
}

TEST_CASE("PPP with and without address and control bytes, and Cisco HDLC", "[classifier][link]") {
    CHECK(place(9, {0xff, 3, 0, 0x21}) == "P@2");
    CHECK(place(9, {0, 0x21, 0x45}) == "P@0");
    CHECK(place(50, {0x0f, 0, 8, 0, 0x45}) == "T0800@4");
    CHECK(place(104, {0x0f, 0, 0x86, 0xdd}) == "T86dd@4");
    CHECK(place(104, {0x0f, 0, 0x80, 0x35}) == "T8035@4");
    CHECK(place(104, {0x0f, 0, 8}) == "?");
    CHECK(place(204, {1, 0xff, 3, 0, 0x57}) == "P@3");
}

TEST_CASE("802.11 data frames, plain only", "[classifier][link]") {
    Bytes data(24);
    data[0] = 0x08;
    CHECK(place(105, join(data, snap_ipv4)) == "T0800@32");
    CHECK(place(105, data) == "?");
    auto quality = join(data, {0, 0});
    quality[0] = 0x88;
    CHECK(place(105, join(quality, snap_ipv4)) == "T0800@34");
    quality[1] = 0x80;  // HT control follows
    CHECK(place(105, join(join(quality, Bytes(4)), snap_ipv4)) == "T0800@38");
    quality[1] = 0;
    quality[24] = 0x80;  // A-MSDU
    CHECK(place(105, join(quality, snap_ipv4)) == "-");
    data[1] = 0x40;  // encrypted
    CHECK(place(105, join(data, snap_ipv4)) == "-");
    data[1] = 0x03;
    CHECK(place(105, join(join(data, Bytes(6)), snap_ipv4)) == "T0800@38");
    data[1] = 0;
    data[22] = 1;  // a later fragment
    CHECK(place(105, join(data, snap_ipv4)) == "-");
    CHECK(place(105, Bytes(24)) == "-");  // management
}

TEST_CASE("radiotap and PPI wrap 802.11", "[classifier][link]") {
    Bytes frame(24);
    frame[0] = 0x08;
    frame = join(frame, snap_ipv4);
    CHECK(place(127, join({0, 0, 8, 0, 0, 0, 0, 0}, frame)) == "T0800@40");
    CHECK(place(127, {0, 0, 40, 0, 0, 0, 0, 0}) == "?");
    CHECK(place(127, {0, 0, 4, 0, 0, 0, 0, 0}) == "-");
    // Flags with the padding bit, after a time stamp: QoS header of 26 bytes is padded to 28.
    Bytes tap(17);
    tap[2] = 17;
    tap[4] = 3;
    tap[16] = 0x20;
    Bytes padded(28);
    padded[0] = 0x88;
    CHECK(place(127, join(join(tap, padded), snap_ipv4)) == "T0800@53");
    CHECK(place(192, join({0, 0, 8, 0, 105, 0, 0, 0}, frame)) == "T0800@40");
    Bytes nested{0, 0, 8, 0, 192, 0, 0, 0};
    Bytes deep;
    for (int i = 0; i < 20; ++i) deep = join(deep, nested);
    CHECK(place(192, deep) == "-");
}

TEST_CASE("frame relay, NFLOG and switch tags", "[classifier][link]") {
    CHECK(place(107, {0x18, 0x41, 0x03, 0xcc, 0x45}) == "T0800@4");
    CHECK(place(107, {0x18, 0x41, 0x03, 0x00, 0x80, 0, 0, 0, 0x86, 0xdd}) == "T86dd@10");
    CHECK(place(107, {0x18, 0x41, 0x03, 0x81}) == "-");
    CHECK(place(107, {0x18}) == "?");
    CHECK(place(239, {2, 0, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4, 24, 0, 9, 0, 0x45}) == "I@16");
    CHECK(place(239, {2, 0, 0, 0, 0, 24, 0, 9, 0x45}) == "I@8");
    CHECK(place(239, {2, 0, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4}) == "?");
    CHECK(place(239, {2, 0, 0, 0, 0, 0, 3, 0}) == "-");
    Bytes dsa(18);
    dsa[16] = 8;
    CHECK(place(284, dsa) == "T0800@18");
}

TEST_CASE("an unsupported link type is not IP and has a name for the reader", "[classifier][link]") {
    CHECK(place(253, Bytes(100)) == "-");
    CHECK_FALSE(egresswatch::link_type_supported(253));
    CHECK(egresswatch::link_type_name(253) == "link type 253");
    CHECK(egresswatch::link_type_supported(1));
    CHECK(egresswatch::link_type_name(1) == "Ethernet");
}

TEST_CASE("no link type reads beyond the packet, whatever its length", "[classifier][link]") {
    for (std::uint32_t type = 0; type < 300; ++type)
        for (std::size_t length = 0; length < 80; ++length)
            for (const int fill : {0x00, 0xff, 0x08, 0xaa, 0x88}) {
                const Bytes packet(length, static_cast<std::uint8_t>(fill));
                const auto where = locate_link(type, packet);
                CHECK(where.offset <= packet.size());
            }
}
