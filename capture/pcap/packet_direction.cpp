// capture/pcap/packet_direction.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/packet_direction.h"

#include <algorithm>

#include "classifier/datapath/layout.h"

namespace egresswatch::capture {
namespace {

constexpr std::uint8_t by_address = 2;  // PacketInput::direction
constexpr std::uint32_t linktype_ethernet = 1, linktype_sll = 113, linktype_sll2 = 276;
constexpr std::uint8_t sll_other_host = 3,
                       sll_outgoing = 4;  // the kernel's PACKET_OTHERHOST, PACKET_OUTGOING

std::uint8_t of_packet_type(std::uint8_t type) noexcept {
    if (type == sll_outgoing) return datapath::DIRECTION_OUT;
    return type < sll_other_host ? std::uint8_t{datapath::DIRECTION_IN} : by_address;
}

}  // namespace

std::uint8_t packet_direction(std::uint32_t link_type, std::span<const std::uint8_t> packet,
                              const EthernetAddress& own) noexcept {
    // LINKTYPE_LINUX_SLL: packet type in the first two bytes; SLL2: in the eleventh.
    if (link_type == linktype_sll && packet.size() >= 2 && packet[0] == 0) return of_packet_type(packet[1]);
    if (link_type == linktype_sll2 && packet.size() > 10) return of_packet_type(packet[10]);
    if (link_type != linktype_ethernet || packet.size() < 12 || own == EthernetAddress{}) return by_address;
    const bool to_us = std::ranges::equal(packet.first(6), own);
    const bool from_us = std::ranges::equal(packet.subspan(6, 6), own);
    if (to_us == from_us) {
        // To a group, and not from us: it came. (Group frames have the lowest bit of the first byte set.)
        const bool to_group = (packet[0] & 1) != 0;
        return to_group && !from_us ? std::uint8_t{datapath::DIRECTION_IN} : by_address;
    }
    return from_us ? datapath::DIRECTION_OUT : datapath::DIRECTION_IN;
}

}  // namespace egresswatch::capture
