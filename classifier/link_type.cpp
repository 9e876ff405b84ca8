// classifier/link_type.cpp
// SPDX-License-Identifier: Apache-2.0
//
// One function a link type. The layouts are those of tcpdump.org/linktypes.html; where a field leaves a
// choice, we take the one that tshark takes, for tshark is what the corpus tests compare with.
#include "classifier/link_type.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace egresswatch {
namespace {

using Packet = std::span<const std::uint8_t>;

constexpr std::uint16_t ether_type_ipv4 = 0x0800;
constexpr std::uint16_t ether_type_ipv6 = 0x86dd;
constexpr std::uint16_t ether_type_pppoe_session = 0x8864;
constexpr std::uint16_t ether_type_min = 0x0600;  // below: a length (IEEE 802.3 clause 3.2.6)
constexpr int nested_headers_max = 3;             // PPI may name another link type, which may be radiotap

constexpr LinkPlace not_ip{LinkStart::not_ip, 0, 0};
constexpr LinkPlace truncated{LinkStart::truncated, 0, 0};

std::uint16_t be16(Packet packet, std::size_t at) noexcept {
    return static_cast<std::uint16_t>(packet[at] << 8 | packet[at + 1]);
}
std::uint16_t le16(Packet packet, std::size_t at) noexcept {
    return static_cast<std::uint16_t>(packet[at + 1] << 8 | packet[at]);
}
std::uint32_t be32(Packet packet, std::size_t at) noexcept {
    return std::uint32_t{be16(packet, at)} << 16 | be16(packet, at + 2);
}
std::uint32_t le32(Packet packet, std::size_t at) noexcept {
    return std::uint32_t{le16(packet, at + 2)} << 16 | le16(packet, at);
}

LinkPlace at_offset(LinkStart start, std::size_t offset, Packet packet,
                    std::uint16_t ether_type = 0) noexcept {
    if (offset > packet.size()) return truncated;
    return {start, ether_type, static_cast<std::uint32_t>(offset)};
}

// An EtherType two bytes before `offset`, the payload at `offset`.
LinkPlace typed(Packet packet, std::size_t type_at, std::size_t offset) noexcept {
    if (packet.size() < offset || packet.size() < type_at + 2) return truncated;
    const std::uint16_t type = be16(packet, type_at);
    return type < ether_type_min ? not_ip : at_offset(LinkStart::ether_type, offset, packet, type);
}

// IEEE 802.2 LLC: SNAP with an EtherType (RFC 1042), or the SAP of IP itself.
LinkPlace llc(Packet packet, std::size_t at) noexcept {
    if (packet.size() < at + 3) return truncated;
    if (packet[at] == 0x06 && packet[at + 2] == 0x03) return at_offset(LinkStart::ip, at + 3, packet);
    if (packet[at] != 0xaa || packet[at + 1] != 0xaa || packet[at + 2] != 0x03) return not_ip;
    if (packet.size() < at + 8) return truncated;
    const std::uint32_t oui = be32(packet, at + 2) & 0xffffff;
    // 00-00-00: RFC 1042. 00-00-f8: IEEE 802.1H bridge tunnel, the same layout.
    if (oui != 0 && oui != 0x0000f8) return not_ip;
    return typed(packet, at + 6, at + 8);
}

// AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD, 28 on FreeBSD, 30 on macOS, 23 on Windows.
bool is_ip_family(std::uint32_t family) noexcept {
    return family == 2 || family == 10 || family == 23 || family == 24 || family == 28 || family == 30;
}

// BSD loopback: the address family in the byte order of the machine that wrote it, which the file does not
// tell. Some writers put PPP or an EtherType there instead.
LinkPlace null_loopback(Packet packet) noexcept {
    if (packet.size() < 4) return truncated;
    if (packet[0] == 0xff && packet[1] == 0x03) return at_offset(LinkStart::ppp, 2, packet);
    if (is_ip_family(le32(packet, 0)) || is_ip_family(be32(packet, 0)))
        return at_offset(LinkStart::ip, 4, packet);
    for (const std::uint32_t value : {le32(packet, 0), be32(packet, 0)})
        if (value >= ether_type_min && value <= 0xffff)
            return at_offset(LinkStart::ether_type, 4, packet, static_cast<std::uint16_t>(value));
    if (const std::uint16_t type = be16(packet, 2); type == ether_type_ipv4 || type == ether_type_ipv6)
        return at_offset(LinkStart::ether_type, 4, packet, type);  // a Cisco HDLC header under this link type
    return not_ip;
}

// Linux cooked: protocol field and ARPHRD type (linux/if_arp.h) decide.
LinkPlace cooked(Packet packet, std::size_t protocol_at, std::size_t hardware_at,
                 std::size_t offset) noexcept {
    constexpr std::uint16_t protocol_802_2 = 0x0004;  // ETH_P_802_2: LLC follows
    constexpr std::uint16_t arphrd_netlink = 824;
    if (packet.size() < offset) return truncated;
    if (be16(packet, hardware_at) == arphrd_netlink) return not_ip;
    if (be16(packet, protocol_at) == protocol_802_2) return llc(packet, offset);
    return typed(packet, protocol_at, offset);
}

// PPP with or without address and control bytes (RFC 1662 section 3.1); Cisco's framing shares the link type.
LinkPlace ppp(Packet packet, std::size_t at) noexcept {
    if (packet.size() < at + 2) return truncated;
    if (packet[at] == 0xff && packet[at + 1] == 0x03) return at_offset(LinkStart::ppp, at + 2, packet);
    if (packet[at] == 0x0f || packet[at] == 0x8f) return typed(packet, at + 2, at + 4);
    return at_offset(LinkStart::ppp, at, packet);
}

// Frame relay (RFC 2427): a two- to four-byte address, then a control byte and the NLPID.
LinkPlace frame_relay(Packet packet) noexcept {
    std::size_t at = 0;
    while (at < 4 && at < packet.size() && (packet[at] & 1) == 0)
        ++at;  // the last address byte has bit 0 set
    ++at;
    if (at < 2 || at > 4) return not_ip;
    if (packet.size() < at + 2) return truncated;
    if (packet[at] != 0x03) return not_ip;
    ++at;
    if (packet[at] == 0) ++at;  // padding
    if (packet.size() <= at) return truncated;
    switch (packet[at]) {
        case 0xcc:
            return at_offset(LinkStart::ether_type, at + 1, packet, ether_type_ipv4);
        case 0x8e:
            return at_offset(LinkStart::ether_type, at + 1, packet, ether_type_ipv6);
        case 0x80:  // SNAP
            if (packet.size() < at + 6) return truncated;
            if (packet[at + 1] != 0 || packet[at + 2] != 0 || packet[at + 3] != 0) return not_ip;
            return typed(packet, at + 4, at + 6);
        default:
            return not_ip;
    }
}

LinkPlace token_ring(Packet packet) noexcept {
    if (packet.size() < 14) return truncated;
    if ((packet[1] & 0xc0) != 0x40) return not_ip;  // frame control: LLC frames only
    std::size_t at = 14;
    if ((packet[8] & 0x80) != 0) {  // source-routed: the length is in the route's first byte
        if (packet.size() < 15) return truncated;
        at += packet[14] & 0x1f;
    }
    return llc(packet, at);
}

LinkPlace fddi(Packet packet) noexcept {
    if (packet.size() < 13) return truncated;
    return (packet[0] & 0xf0) == 0x50 ? llc(packet, 13) : not_ip;
}

// Linux netfilter log: type-length-value fields in the byte order of the writer; the payload is field 9.
LinkPlace nflog(Packet packet) noexcept {
    constexpr std::uint16_t field_payload = 9;
    if (packet.size() < 4) return truncated;
    if (packet[0] != 2 && packet[0] != 10) return not_ip;  // AF_INET, AF_INET6
    if (packet[1] != 0) return not_ip;                     // version
    std::size_t at = 4;
    while (packet.size() >= at + 4) {
        const bool little = le16(packet, at) >= 4 && le16(packet, at + 2) < 256;
        const std::size_t length = little ? le16(packet, at) : be16(packet, at);
        const std::uint16_t field = little ? le16(packet, at + 2) : be16(packet, at + 2);
        if (length < 4) return not_ip;
        if (field == field_payload) return at_offset(LinkStart::ip, at + 4, packet);
        at += (length + 3) & ~std::size_t{3};
    }
    return truncated;
}

// IEEE 802.11 data frames that are not encrypted, not aggregated and not a later fragment.
LinkPlace wireless(Packet packet, std::size_t at, bool padded_to_four) noexcept {
    if (packet.size() < at + 24)
        return packet.size() > at && (packet[at] & 0x0c) != 0x08 ? not_ip : truncated;
    const std::uint8_t control = packet[at];
    const std::uint8_t flags = packet[at + 1];
    const bool quality = (control & 0x80) != 0;
    const bool no_data = (control & 0x40) != 0;
    if ((control & 0x0f) != 0x08 || no_data) return not_ip;  // version 0, type data
    if ((flags & 0x40) != 0) return not_ip;                  // protected
    if ((packet[at + 22] & 0x0f) != 0) return not_ip;        // fragment number
    std::size_t header = 24;
    if ((flags & 0x03) == 0x03) header += 6;  // fourth address
    if (quality) {
        if (packet.size() < at + header + 2) return truncated;
        if ((packet[at + header] & 0x80) != 0) return not_ip;  // A-MSDU
        header += 2;
        if ((flags & 0x80) != 0) header += 4;  // HT control
    }
    if (padded_to_four) header = (header + 3) & ~std::size_t{3};
    return llc(packet, at + header);
}

// radiotap.org: a length, presence words, then fields; the flags say whether the 802.11 header is padded.
LinkPlace radiotap(Packet packet, std::size_t base) noexcept {
    if (packet.size() < base + 8) return truncated;
    const std::size_t length = le16(packet, base + 2);
    if (length < 8) return not_ip;
    if (packet.size() < base + length) return truncated;
    const std::uint32_t present = le32(packet, base + 4);
    std::size_t fields = 8;
    for (std::uint32_t word = present; (word & 0x80000000u) != 0 && fields + 4 <= length; fields += 4)
        word = le32(packet, base + fields);
    if ((present & 1) != 0) fields = ((fields + 7) & ~std::size_t{7}) + 8;  // TSFT, aligned to its size
    const bool padded = (present & 2) != 0 && fields < length && (packet[base + fields] & 0x20) != 0;
    return wireless(packet, base + length, padded);
}

LinkPlace locate(std::uint32_t link_type, Packet packet, int depth) noexcept;

// CACE's per-packet information: a length and the link type of what follows.
LinkPlace per_packet_info(Packet packet, int depth) noexcept {
    if (packet.size() < 8) return truncated;
    const std::size_t length = le16(packet, 2);
    if (length < 8 || depth >= nested_headers_max) return not_ip;
    if (packet.size() < length) return truncated;
    LinkPlace place = locate(le32(packet, 4), packet.subspan(length), depth + 1);
    place.offset += static_cast<std::uint32_t>(length);
    return place;
}

struct LinkName {
    std::uint32_t link_type;
    const char* name;
};
constexpr std::array link_names{
    LinkName{0, "BSD loopback"},
    LinkName{1, "Ethernet"},
    LinkName{6, "token ring"},

    LinkName{9, "PPP"},
    LinkName{10, "FDDI"},
    LinkName{12, "raw IP"},
    LinkName{14, "raw IP"},
    LinkName{50, "PPP in HDLC"},
    LinkName{51, "PPPoE"},
    LinkName{100, "ATM RFC 1483"},
    LinkName{101, "raw IP"},
    LinkName{104, "Cisco HDLC"},
    LinkName{105, "802.11"},
    LinkName{107, "frame relay"},
    LinkName{108, "BSD loopback"},
    LinkName{109, "OpenBSD enc"},
    LinkName{113, "Linux cooked v1"},
    LinkName{119, "802.11 Prism"},
    LinkName{123, "SunATM"},
    LinkName{127, "802.11 radiotap"},
    LinkName{138, "IP over 1394"},
    LinkName{163, "802.11 AVS"},
    LinkName{166, "PPP (pppd)"},
    LinkName{192, "PPI"},
    LinkName{204, "PPP with direction"},
    LinkName{228, "raw IPv4"},
    LinkName{229, "raw IPv6"},
    LinkName{239, "NFLOG"},
    LinkName{274, "Ethernet mPacket"},
    LinkName{276, "Linux cooked v2"},
    LinkName{282, "Broadcom tag"},
    LinkName{283, "Broadcom tag before"},
    LinkName{284, "Marvell DSA"},
    LinkName{285, "Marvell EDSA"},
};

LinkPlace locate(std::uint32_t link_type, Packet packet, int depth) noexcept {
    switch (link_type) {
        case 1:
            return at_offset(LinkStart::ethernet, 0, packet);
        case 12:
        case 14:
        case 101:
        case 228:
        case 229:
            return at_offset(LinkStart::ip, 0, packet);
        case 0:
        case 108:
            return null_loopback(packet);
        case 6:
            return token_ring(packet);
        case 9:
        case 50:
        case 166:
            return ppp(packet, 0);
        case 10:
            return fddi(packet);
        case 51:
            return at_offset(LinkStart::ether_type, 0, packet, ether_type_pppoe_session);
        case 100:
            return llc(packet, 0);
        case 104:
            return typed(packet, 2, 4);
        case 105:
            return wireless(packet, 0, false);
        case 107:
            return frame_relay(packet);
        case 109:
            return at_offset(LinkStart::ip, 12, packet);
        case 113:
            return cooked(packet, 14, 2, 16);
        case 276:
            return cooked(packet, 0, 8, 20);
        case 119:
            return packet.size() < 8 ? truncated : wireless(packet, le32(packet, 4), false);
        case 163:
            return packet.size() < 8 ? truncated : wireless(packet, be32(packet, 4), false);
        case 123:
            if (packet.empty()) return truncated;
            return (packet[0] & 0x0f) == 2 ? llc(packet, 4) : not_ip;  // 2: LLC-multiplexed
        case 127:
            return radiotap(packet, 0);
        case 138:
            return typed(packet, 16, 18);
        case 192:
            return per_packet_info(packet, depth);
        case 204:
            return ppp(packet, 1);
        case 239:
            return nflog(packet);
        case 274:
            return at_offset(LinkStart::ethernet, 8, packet);  // the preamble before it
        case 282:
            return typed(packet, 16, 18);  // a four-byte tag between the addresses and the EtherType
        case 283:
            return at_offset(LinkStart::ethernet, 4, packet);
        case 284:
            return typed(packet, 16, 18);
        case 285:
            return typed(packet, 20, 22);  // EtherType DADA, reserved, DSA tag before the real one
        default:
            return not_ip;
    }
}

}  // namespace

LinkPlace locate_link(std::uint32_t link_type, Packet packet) noexcept {
    return locate(link_type, packet, 0);
}

bool link_type_supported(std::uint32_t link_type) noexcept {
    return std::any_of(link_names.begin(), link_names.end(),
                       [&](const LinkName& entry) { return entry.link_type == link_type; });
}

std::string link_type_name(std::uint32_t link_type) {
    for (const auto& entry : link_names)
        if (entry.link_type == link_type) return entry.name;
    return "link type " + std::to_string(link_type);
}

}  // namespace egresswatch
