// classifier/address.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/address.h"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace egresswatch {

namespace {

constexpr std::array<std::uint8_t, 12> mapped_head = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// Bits of the 16-byte form that a prefix length of the family fixes.
unsigned fixed_bits(const Address& base, unsigned length) {
    return base.is_ipv4() ? 96 + length : length;
}

std::uint8_t mask_of_byte(unsigned bits, std::size_t index) {
    const unsigned before = static_cast<unsigned>(index) * 8;
    if (bits <= before) return 0;
    if (bits >= before + 8) return 0xff;
    return static_cast<std::uint8_t>(0xff00u >> (bits - before));
}

// Clears what is behind the first `bits` of eight bytes.
void cut_word(std::uint8_t* at, unsigned bits) {
    if (bits >= 64) return;
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    word &= bits == 0 ? 0 : htobe64(~std::uint64_t{0} << (64 - bits));
    std::memcpy(at, &word, sizeof word);
}

}  // namespace

Address Address::from_ipv4(std::uint32_t host_order) noexcept {
    Address address;
    std::ranges::copy(mapped_head, address.bytes.begin());
    for (unsigned i = 0; i < 4; i++)
        address.bytes[12 + i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
    return address;
}

Address Address::from_bytes(const std::uint8_t* sixteen) noexcept {
    Address address;
    std::memcpy(address.bytes.data(), sixteen, address.bytes.size());
    return address;
}

std::optional<Address> Address::parse(std::string_view text) noexcept {
    char buffer[INET6_ADDRSTRLEN + 1];
    if (text.size() >= sizeof buffer) return std::nullopt;
    std::memcpy(buffer, text.data(), text.size());
    buffer[text.size()] = '\0';
    if (std::strlen(buffer) != text.size()) return std::nullopt;
    in_addr v4{};
    if (inet_pton(AF_INET, buffer, &v4) == 1) return from_ipv4(ntohl(v4.s_addr));
    Address address;
    if (inet_pton(AF_INET6, buffer, address.bytes.data()) == 1) return address;
    return std::nullopt;
}

bool Address::is_ipv4() const noexcept {
    return std::equal(mapped_head.begin(), mapped_head.end(), bytes.begin());
}

std::uint32_t Address::ipv4() const noexcept {
    return static_cast<std::uint32_t>(bytes[12]) << 24 | static_cast<std::uint32_t>(bytes[13]) << 16 |
           static_cast<std::uint32_t>(bytes[14]) << 8 | bytes[15];
}

std::string Address::to_string() const {
    char buffer[INET6_ADDRSTRLEN];
    const bool v4 = is_ipv4();
    return inet_ntop(v4 ? AF_INET : AF_INET6, bytes.data() + (v4 ? 12 : 0), buffer, sizeof buffer);
}

std::expected<Prefix, Prefix::ParseError> Prefix::parse(std::string_view text) noexcept {
    const auto slash = text.find('/');
    const auto address = Address::parse(text.substr(0, slash));
    if (!address) return std::unexpected(ParseError::not_an_address);
    const unsigned family_bits = address->is_ipv4() ? 32 : 128;
    unsigned length = family_bits;
    if (slash != std::string_view::npos) {
        const auto digits = text.substr(slash + 1);
        if (digits.empty()) return std::unexpected(ParseError::length_missing);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
        if (error != std::errc{} || end != digits.data() + digits.size() || length > family_bits)
            return std::unexpected(ParseError::length_out_of_range);
    }
    const Prefix prefix = containing(*address, static_cast<std::uint8_t>(length));
    if (prefix.base != *address) return std::unexpected(ParseError::host_bits_set);
    return prefix;
}

Prefix Prefix::containing(const Address& address, std::uint8_t length) noexcept {
    const unsigned cut = std::min<unsigned>(length, address.is_ipv4() ? 32 : 128);
    Prefix prefix{address, static_cast<std::uint8_t>(cut)};
    const unsigned bits = fixed_bits(address, cut);
    cut_word(prefix.base.bytes.data(), bits);
    cut_word(prefix.base.bytes.data() + 8, bits < 64 ? 0 : bits - 64);
    return prefix;
}

bool Prefix::contains(const Address& address) const noexcept {
    return address.is_ipv4() == is_ipv4() && containing(address, length).base == base;
}

Address Prefix::last() const noexcept {
    Address address = base;
    const unsigned bits = fixed_bits(base, length);
    for (std::size_t i = 0; i < 16; i++)
        address.bytes[i] |= static_cast<std::uint8_t>(~mask_of_byte(bits, i));
    return address;
}

std::string Prefix::to_string() const {
    return base.to_string() + "/" + std::to_string(length);
}

}  // namespace egresswatch
