// classifier/region/wide_integer.h - IPv6 addresses as numbers, so that one algorithm serves both families.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "classifier/address.h"

namespace egresswatch {

using Uint128 = unsigned __int128;

// Traits of a family: the number that an address is, and its width.
template <typename Number>
struct Family;

template <>
struct Family<std::uint32_t> {
    static constexpr unsigned bits = 32;
    static std::uint32_t number_of(const Address& address) noexcept { return address.ipv4(); }
    static Address address_of(std::uint32_t number) noexcept { return Address::from_ipv4(number); }
};

template <>
struct Family<Uint128> {
    static constexpr unsigned bits = 128;
    static Uint128 number_of(const Address& address) noexcept {
        Uint128 number = 0;
        for (const auto byte : address.bytes) number = number << 8 | byte;
        return number;
    }
    static Address address_of(Uint128 number) noexcept {
        Address address;
        for (unsigned i = 0; i < 16; i++)
            address.bytes[i] = static_cast<std::uint8_t>(number >> (120 - 8 * i) & 0xff);
        return address;
    }
};

template <typename Number>
constexpr Number number_max = static_cast<Number>(~Number{0});

// The last address of a prefix of that length that starts at `first`.
template <typename Number>
constexpr Number prefix_last(Number first, unsigned length) noexcept {
    if (length == 0) return number_max<Number>;
    return first | (length == Family<Number>::bits ? Number{0} : number_max<Number> >> length);
}

// The largest prefix that contains `at` and nothing outside first..last, as a length.
template <typename Number>
constexpr unsigned longest_inside(Number at, Number first, Number last) noexcept {
    unsigned length = Family<Number>::bits;
    while (length > 0) {
        const Number mask =
            length == 1 ? Number{0} : number_max<Number> << (Family<Number>::bits - (length - 1));
        const Number base = at & mask;
        if (base < first || (base | static_cast<Number>(~mask)) > last) break;
        length--;
    }
    return length;
}

}  // namespace egresswatch
