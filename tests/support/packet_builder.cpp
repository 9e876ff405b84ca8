// tests/support/packet_builder.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/packet_builder.h"

#include <cctype>
#include <stdexcept>

namespace egresswatch::test {

namespace {

void put16(std::vector<std::uint8_t>& bytes, std::size_t at, std::size_t value) {
    bytes[at] = static_cast<std::uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<std::uint8_t>(value);
}

}  // namespace

void PacketBuilder::say(const std::string& layer) {
    scapy_ += (scapy_.empty() ? "" : "/") + layer;
}

void PacketBuilder::append16(std::uint16_t value) {
    bytes_.push_back(static_cast<std::uint8_t>(value >> 8));
    bytes_.push_back(static_cast<std::uint8_t>(value));
}

void PacketBuilder::append_address(std::string_view text, bool ipv4) {
    const auto address = Address::parse(text);
    if (!address || address->is_ipv4() != ipv4) throw std::invalid_argument(std::string(text));
    bytes_.insert(bytes_.end(), address->bytes.begin() + (ipv4 ? 12 : 0), address->bytes.end());
}

PacketBuilder& PacketBuilder::raw(std::string_view hex) {
    std::string digits;
    for (const char c : hex)
        if (std::isxdigit(static_cast<unsigned char>(c))) digits += c;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
        bytes_.push_back(static_cast<std::uint8_t>(std::stoul(digits.substr(i, 2), nullptr, 16)));
    say("Raw(bytes.fromhex('" + digits + "'))");
    return *this;
}

PacketBuilder& PacketBuilder::ethernet(std::uint16_t ether_type) {
    for (int i = 0; i < 12; i++) bytes_.push_back(static_cast<std::uint8_t>(2 + i));
    append16(ether_type);
    say("Ether(type=" + std::to_string(ether_type) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::vlan(std::uint16_t id, std::uint16_t ether_type) {
    append16(id);
    append16(ether_type);
    say("Dot1Q(vlan=" + std::to_string(id) + ",type=" + std::to_string(ether_type) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::mpls(std::uint32_t label, bool bottom) {
    append16(static_cast<std::uint16_t>(label >> 4));
    append16(static_cast<std::uint16_t>((label & 15) << 12 | (bottom ? 0x100u : 0u) | 64u));
    say("MPLS(label=" + std::to_string(label) + ",s=" + (bottom ? "1" : "0") + ")");
    return *this;
}

PacketBuilder& PacketBuilder::pppoe(std::uint16_t ppp_protocol) {
    const auto at = bytes_.size();
    bytes_.insert(bytes_.end(), {0x11, 0, 0, 1, 0, 0});
    append16(ppp_protocol);
    fills_.push_back([at](auto& bytes) { put16(bytes, at + 4, bytes.size() - at - 6); });
    say("PPPoE(sessionid=1)/PPP(proto=" + std::to_string(ppp_protocol) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::ipv4(std::string_view src, std::string_view dst, std::uint8_t proto,
                                   unsigned option_bytes) {
    const auto at = bytes_.size();
    const auto words = static_cast<std::uint8_t>(5 + option_bytes / 4);
    bytes_.insert(bytes_.end(),
                  {static_cast<std::uint8_t>(0x40 | words), 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0});
    append_address(src, true);
    append_address(dst, true);
    bytes_.insert(bytes_.end(), option_bytes, 1);  // no-operation
    fills_.push_back([at](auto& bytes) { put16(bytes, at + 2, bytes.size() - at); });
    say("IP(src='" + std::string(src) + "',dst='" + std::string(dst) + "',proto=" + std::to_string(proto) +
        ")");
    return *this;
}

PacketBuilder& PacketBuilder::ipv4_fragment(std::string_view src, std::string_view dst, std::uint8_t proto,
                                            unsigned offset, bool more) {
    const auto at = bytes_.size();
    ipv4(src, dst, proto);
    put16(bytes_, at + 6, offset / 8 | (more ? 0x2000u : 0u));
    return *this;
}

PacketBuilder& PacketBuilder::ipv6(std::string_view src, std::string_view dst, std::uint8_t next) {
    const auto at = bytes_.size();
    bytes_.insert(bytes_.end(), {0x60, 0, 0, 0, 0, 0, next, 64});
    append_address(src, false);
    append_address(dst, false);
    fills_.push_back([at](auto& bytes) { put16(bytes, at + 4, bytes.size() - at - 40); });
    say("IPv6(src='" + std::string(src) + "',dst='" + std::string(dst) + "',nh=" + std::to_string(next) +
        ")");
    return *this;
}

PacketBuilder& PacketBuilder::extension(std::uint8_t next, unsigned bytes) {
    bytes_.push_back(next);
    bytes_.push_back(static_cast<std::uint8_t>(bytes / 8 - 1));
    bytes_.insert(bytes_.end(), bytes - 2, 0);  // Pad1 options
    say("IPv6ExtHdrDestOpt(nh=" + std::to_string(next) + ",len=" + std::to_string(bytes / 8 - 1) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::ipv6_fragment(std::uint8_t next, unsigned offset, bool more) {
    bytes_.insert(bytes_.end(), {next, 0});
    append16(static_cast<std::uint16_t>((offset & ~7u) | (more ? 1u : 0u)));
    bytes_.insert(bytes_.end(), {0, 0, 0, 7});
    say("IPv6ExtHdrFragment(nh=" + std::to_string(next) + ",offset=" + std::to_string(offset / 8) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::tcp(std::uint16_t sport, std::uint16_t dport, std::uint8_t flags,
                                  unsigned option_bytes) {
    append16(sport);
    append16(dport);
    bytes_.insert(bytes_.end(), 8, 0);
    bytes_.push_back(static_cast<std::uint8_t>((5 + option_bytes / 4) << 4));
    bytes_.push_back(flags);
    bytes_.insert(bytes_.end(), 6, 0);
    bytes_.insert(bytes_.end(), option_bytes, 1);
    say("TCP(sport=" + std::to_string(sport) + ",dport=" + std::to_string(dport) +
        ",flags=" + std::to_string(flags) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::udp(std::uint16_t sport, std::uint16_t dport) {
    append16(sport);
    append16(dport);
    const auto at = bytes_.size();
    bytes_.insert(bytes_.end(), 4, 0);
    fills_.push_back([at](auto& bytes) { put16(bytes, at, bytes.size() - at + 4); });
    say("UDP(sport=" + std::to_string(sport) + ",dport=" + std::to_string(dport) + ")");
    return *this;
}

PacketBuilder& PacketBuilder::payload(std::size_t count) {
    bytes_.insert(bytes_.end(), count, 'x');
    say("Raw('x'*" + std::to_string(count) + ")");
    return *this;
}

std::vector<std::uint8_t> PacketBuilder::bytes() const {
    auto filled = bytes_;
    for (const auto& fill : fills_) fill(filled);
    return filled;
}

}  // namespace egresswatch::test
