// capture/pcap/packet_direction.h - whether a captured packet leaves this host or comes, where it says so.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace egresswatch::capture {

using EthernetAddress = std::array<std::uint8_t, 6>;

// enum direction, or DIRECTION_BY_ADDRESS (2) where nothing tells. `own`: the interface's address; all zero
// where it has none. A mirrored frame is neither from nor to the port that it is mirrored to.
[[nodiscard]] std::uint8_t packet_direction(std::uint32_t link_type, std::span<const std::uint8_t> packet,
                                            const EthernetAddress& own) noexcept;

}  // namespace egresswatch::capture
