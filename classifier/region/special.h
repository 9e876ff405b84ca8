// classifier/region/special.h - addresses with a meaning of their own, whatever a geo database says.
// SPDX-License-Identifier: Apache-2.0
//
// The IANA special-purpose registries (RFC 6890 and what came after it). Not in the list: anycast services
// that are globally reachable and have ordinary operators (192.31.196.0/24, 2620:4f:8000::/48, ...): the geo
// data decide. IPv4-mapped, NAT64 and 6to4 addresses: the IPv4 address inside decides (datapath/region.h).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"

namespace egresswatch {

struct SpecialPrefix {
    Prefix prefix;
    datapath::region_kind kind;  // KIND_LOCAL, or KIND_UNKNOWN for what no packet should be sent to
    datapath::local_kind local;
    std::string_view why;  // "RFC 1918 private use"
};

// Sorted by prefix, the longer ones after the shorter ones that contain them.
[[nodiscard]] std::span<const SpecialPrefix> special_prefixes();
// The longest that contains the address; nullptr where none does.
[[nodiscard]] const SpecialPrefix* find_special(const Address& address);

// The IPv4 address that an IPv4-mapped, NAT64 (64:ff9b::/96) or 6to4 address stands for; the address itself
// otherwise. `bits_before` is the position of the IPv4 address in the original: 96, 16; 0 where unchanged.
struct EmbeddedAddress {
    Address address;
    unsigned bits_before = 0;
};
[[nodiscard]] EmbeddedAddress embedded_ipv4(const Address& address) noexcept;

// Why no address can ever match this prefix of a policy, and what to write; empty where addresses can.
[[nodiscard]] std::string why_never_matched(const Prefix& prefix);

}  // namespace egresswatch
