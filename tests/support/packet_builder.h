// tests/support/packet_builder.h - frames by hand, header by header, outer to inner.
// SPDX-License-Identifier: Apache-2.0
//
// Each call appends one header; bytes() fills in lengths of every IP, UDP and PPPoE header from what follows
// them. to_scapy() prints the same packet as a scapy expression: paste it into a failing case to look at it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/address.h"

namespace egresswatch::test {

class PacketBuilder {
public:
    PacketBuilder& raw(std::string_view hex);  // "45 00 ..": bytes as they are
    PacketBuilder& ethernet(std::uint16_t ether_type);
    PacketBuilder& vlan(std::uint16_t id, std::uint16_t ether_type);
    PacketBuilder& mpls(std::uint32_t label, bool bottom);
    PacketBuilder& pppoe(std::uint16_t ppp_protocol);
    PacketBuilder& ipv4(std::string_view src, std::string_view dst, std::uint8_t proto,
                        unsigned option_bytes = 0);
    PacketBuilder& ipv4_fragment(std::string_view src, std::string_view dst, std::uint8_t proto,
                                 unsigned offset, bool more);
    PacketBuilder& ipv6(std::string_view src, std::string_view dst, std::uint8_t next);
    PacketBuilder& extension(std::uint8_t next,
                             unsigned bytes);  // hop-by-hop, routing or destination options
    PacketBuilder& ipv6_fragment(std::uint8_t next, unsigned offset, bool more);
    PacketBuilder& tcp(std::uint16_t sport, std::uint16_t dport, std::uint8_t flags,
                       unsigned option_bytes = 0);
    PacketBuilder& udp(std::uint16_t sport, std::uint16_t dport);
    PacketBuilder& payload(std::size_t bytes);

    [[nodiscard]] std::vector<std::uint8_t> bytes() const;
    [[nodiscard]] const std::string& to_scapy() const { return scapy_; }

private:
    using Fill = std::function<void(std::vector<std::uint8_t>&)>;
    void say(const std::string& layer);
    void append16(std::uint16_t value);
    void append_address(std::string_view text, bool ipv4);

    std::vector<std::uint8_t> bytes_;
    std::vector<Fill> fills_;  // length fields, once all is there
    std::string scapy_;
};

}  // namespace egresswatch::test
