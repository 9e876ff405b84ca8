// classifier/plain_packet.h - the five-tuple and the lengths of a plain packet, read without a guess.
// Internal to classifier/. SPDX-License-Identifier: Apache-2.0
//
// In:    the first bytes of an Ethernet frame.   Out: what walk_fast() answers, as far as a known tuple needs
// it.
// Which version of IP, whether TCP or UDP, whether a tag: a CPU that guesses each of these for every packet
// of a mixture is wrong about once a packet, which costs more than all of this. So everything is read, and
// masks choose. What follows from the tuple alone (is a port a tunnel's?) is not asked: who knows the tuple
// has asked before. Where this answers and the tuple is none of a tunnel's, walk_fast() gives the same
// answer; a property test and the fuzz target of the walk hold it to that.
#pragma once

#include <cstdint>
#include <cstring>

#include "classifier/datapath/walk.h"

namespace egresswatch {

// The two halves of an address as in a flow_key, handled at once.
using Halves [[gnu::vector_size(16)]] = std::uint64_t;

DATAPATH_INLINE Halves load_halves(const std::uint8_t* from) noexcept {
    Halves out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

struct PlainPacket {
    Halves source;
    Halves destination;
    std::uint64_t sent;  // source port | destination port << 16 | protocol << 32, as in the header
    std::uint32_t ip_offset;
    std::uint32_t ip_bytes;
    std::uint32_t l4_offset;
    std::uint8_t tcp_flags;  // 0 where the packet is not TCP
};

// What differs between the two versions of IP: where things are, and what they have to be.
struct alignas(64) PlainLayout {
    // An address in the form of a flow_key: sixteen bytes of the header, of which these bits stay, and these
    // come in.
    Halves kept, added;
    std::uint32_t source_at, destination_at;
    std::uint32_t identity_mask, identity;  // EtherType as in the frame, and above it the header's first byte
    std::uint32_t length_at, length_added, length_min;
    std::uint32_t fragment_mask;  // of bytes 6 and 7: any of these bits, and it is a fragment
    std::uint32_t protocol_at;
    std::uint32_t header_bytes;
};
constexpr PlainLayout plain_layouts[2] = {{{0, 0xffffffff00000000},
                                           {0, 0xffff0000},
                                           0,
                                           4,
                                           0xffffff,
                                           0x450008,
                                           2,
                                           0,
                                           datapath::IPV4_BYTES_MIN,
                                           0xff3f,
                                           9,
                                           datapath::IPV4_BYTES_MIN},
                                          {{~std::uint64_t{0}, ~std::uint64_t{0}},
                                           {0, 0},
                                           8,
                                           24,
                                           0xf0ffff,
                                           0x60dd86,
                                           4,
                                           datapath::IPV6_BYTES,
                                           datapath::IPV6_BYTES + 1,
                                           0,
                                           6,
                                           datapath::IPV6_BYTES}};

// False: not plain, or too short to be read at one go.
DATAPATH_INLINE bool read_plain(const std::uint8_t* data, std::uint32_t captured, std::uint32_t wire_bytes,
                                PlainPacket& out) noexcept {
    using namespace datapath;
    constexpr std::uint32_t bytes_min = ETHERNET_BYTES + IPV4_BYTES_MIN + TCP_BYTES_MIN;
    if (UNLIKELY(captured < bytes_min) || UNLIKELY(wire_bytes < bytes_min)) return false;
    const std::uint32_t l3 = ETHERNET_BYTES + VLAN_BYTES * (load16(data + 12) == host16(ETHER_VLAN));
    const std::uint8_t* ip = data + l3;
    const std::uint32_t ether_type = load16(ip - 2);
    const PlainLayout& layout = plain_layouts[ether_type == host16(ETHER_IPV6)];
    const std::uint32_t l4 = l3 + layout.header_bytes;
    const std::uint32_t claimed = host16(load16(ip + layout.length_at)) + layout.length_added;
    if (UNLIKELY(((ether_type | static_cast<std::uint32_t>(ip[0]) << 16) & layout.identity_mask) !=
                 layout.identity) ||
        UNLIKELY((load16(ip + 6) & layout.fragment_mask) != 0) || UNLIKELY(claimed < layout.length_min) ||
        UNLIKELY(l4 + TCP_BYTES_MIN > captured))
        return false;
    // All of these lie within the header, or within what follows it: l4 + TCP_BYTES_MIN bytes are there.
    out.source = (load_halves(ip + layout.source_at) & layout.kept) | layout.added;
    out.destination = (load_halves(ip + layout.destination_at) & layout.kept) | layout.added;
    const std::uint8_t* transport = data + l4;
    const std::uint32_t protocol = ip[layout.protocol_at];
    const std::uint32_t tcp = protocol == PROTO_TCP ? 0xffu : 0u;
    out.sent = load32(transport) | static_cast<std::uint64_t>(protocol) << 32;
    out.ip_offset = l3;
    out.ip_bytes = claimed < wire_bytes - l3 ? claimed : wire_bytes - l3;
    out.l4_offset = l4;
    out.tcp_flags = static_cast<std::uint8_t>(transport[13] & tcp);
    return true;
}

// Behind the transport header, of a packet that read_plain() answered for: that many bytes are there whatever
// the protocol, and a mask chooses.
[[nodiscard]] inline std::uint32_t payload_offset_of(const std::uint8_t* data, const PlainPacket& packet) {
    using namespace datapath;
    const std::uint32_t tcp = packet.sent >> 32 == PROTO_TCP ? 0xffffffffu : 0u;
    const std::uint32_t tcp_bytes = data[packet.l4_offset + 12] >> 2 & 0x3cu;
    return packet.l4_offset + ((tcp_bytes & tcp) | (UDP_BYTES & ~tcp));
}

}  // namespace egresswatch
