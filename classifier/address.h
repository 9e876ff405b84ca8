// classifier/address.h - IP addresses and prefixes as values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace egresswatch {

// An IPv4 or IPv6 address, 16 bytes in network order; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2),
// which is also the form of datapath::flow_key.
struct Address {
    std::array<std::uint8_t, 16> bytes{};

    [[nodiscard]] static Address from_ipv4(std::uint32_t host_order) noexcept;
    [[nodiscard]] static Address from_bytes(const std::uint8_t* sixteen) noexcept;
    // Strict textual forms only (inet_pton): no leading zeros, no zone.
    [[nodiscard]] static std::optional<Address> parse(std::string_view text) noexcept;

    [[nodiscard]] bool is_ipv4() const noexcept;
    [[nodiscard]] std::uint32_t ipv4() const noexcept;  // host order; only where is_ipv4()
    [[nodiscard]] std::string to_string() const;        // RFC 5952; mapped addresses as dotted quads

    auto operator<=>(const Address&) const = default;
};

// A CIDR block. `length` counts bits of the family: 0..32 for IPv4, 0..128 for IPv6. Bits behind it are zero.
struct Prefix {
    Address base;
    std::uint8_t length = 0;

    enum class ParseError { not_an_address, length_missing, length_out_of_range, host_bits_set };
    // "10.0.0.0/8", "2001:db8::/32"; a bare address is a host prefix.
    [[nodiscard]] static std::expected<Prefix, ParseError> parse(std::string_view text) noexcept;
    // The prefix of that length that contains the address; a length beyond the family's is cut to it.
    [[nodiscard]] static Prefix containing(const Address& address, std::uint8_t length) noexcept;

    [[nodiscard]] bool is_ipv4() const noexcept { return base.is_ipv4(); }
    [[nodiscard]] bool contains(const Address& address) const noexcept;
    [[nodiscard]] Address last() const noexcept;  // the highest address inside
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const Prefix&) const = default;
};

}  // namespace egresswatch
