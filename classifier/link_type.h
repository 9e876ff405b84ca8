// classifier/link_type.h - from a capture file's link type to the place where the header walk starts.
// SPDX-License-Identifier: Apache-2.0
//
// In:   a LINKTYPE_ number (tcpdump.org/linktypes.html) and a packet.   Out: where its first header is.
// Cost: a switch, no allocation; called once a packet of user-space engines. The kernel has no link types.
// Not here: Ethernet and everything behind it (datapath/walk.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace egresswatch {

enum class LinkStart : std::uint8_t {
    ethernet,    // an Ethernet header stands at `offset`
    ether_type,  // what `ether_type` names stands at `offset`
    ip,          // an IP header of either version stands at `offset`
    ppp,         // a PPP protocol field stands at `offset`
    not_ip,      // no IP behind this header
    truncated    // the captured bytes end before we know
};

struct LinkPlace {
    LinkStart start = LinkStart::not_ip;
    std::uint16_t ether_type = 0;  // host order
    std::uint32_t offset = 0;      // at most bytes.size()
};

[[nodiscard]] LinkPlace locate_link(std::uint32_t link_type, std::span<const std::uint8_t> packet) noexcept;

// False: every packet of this link type counts as not IP, and the reader is told so by link_type_name().
[[nodiscard]] bool link_type_supported(std::uint32_t link_type) noexcept;
[[nodiscard]] std::string link_type_name(std::uint32_t link_type);  // "Ethernet", "link type 147"

}  // namespace egresswatch
