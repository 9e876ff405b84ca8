// classifier/region/special.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/special.h"

#include <algorithm>
#include <array>
#include <vector>

#include "classifier/region/wide_integer.h"

namespace egresswatch {

namespace {

using datapath::KIND_LOCAL;
using datapath::KIND_UNKNOWN;
using datapath::LOCAL_HOST;
using datapath::LOCAL_LINK;
using datapath::LOCAL_MULTICAST;
using datapath::LOCAL_NONE;
using datapath::LOCAL_PRIVATE;
using datapath::LOCAL_UNSPECIFIED;

struct Row {
    const char* prefix;
    datapath::region_kind kind;
    datapath::local_kind local;
    const char* why;
};

constexpr std::array rows = {
    Row{"0.0.0.0/8", KIND_LOCAL, LOCAL_UNSPECIFIED, "RFC 791 this network"},
    Row{"10.0.0.0/8", KIND_LOCAL, LOCAL_PRIVATE, "RFC 1918 private use"},
    Row{"100.64.0.0/10", KIND_LOCAL, LOCAL_PRIVATE, "RFC 6598 shared address space"},
    Row{"127.0.0.0/8", KIND_LOCAL, LOCAL_HOST, "RFC 1122 loopback"},
    Row{"169.254.0.0/16", KIND_LOCAL, LOCAL_LINK, "RFC 3927 link local"},
    Row{"172.16.0.0/12", KIND_LOCAL, LOCAL_PRIVATE, "RFC 1918 private use"},
    Row{"192.0.0.0/24", KIND_UNKNOWN, LOCAL_NONE, "RFC 6890 IETF protocol assignments"},
    Row{"192.0.2.0/24", KIND_UNKNOWN, LOCAL_NONE, "RFC 5737 documentation"},
    Row{"192.88.99.0/24", KIND_UNKNOWN, LOCAL_NONE, "RFC 7526 deprecated 6to4 relay anycast"},
    Row{"192.168.0.0/16", KIND_LOCAL, LOCAL_PRIVATE, "RFC 1918 private use"},
    Row{"198.18.0.0/15", KIND_UNKNOWN, LOCAL_NONE, "RFC 2544 benchmarking"},
    Row{"198.51.100.0/24", KIND_UNKNOWN, LOCAL_NONE, "RFC 5737 documentation"},
    Row{"203.0.113.0/24", KIND_UNKNOWN, LOCAL_NONE, "RFC 5737 documentation"},
    Row{"224.0.0.0/4", KIND_LOCAL, LOCAL_MULTICAST, "RFC 5771 multicast"},
    Row{"240.0.0.0/4", KIND_UNKNOWN, LOCAL_NONE, "RFC 1112 reserved"},
    Row{"255.255.255.255/32", KIND_LOCAL, LOCAL_MULTICAST, "RFC 919 limited broadcast"},
    Row{"::/128", KIND_LOCAL, LOCAL_UNSPECIFIED, "RFC 4291 unspecified"},
    Row{"::1/128", KIND_LOCAL, LOCAL_HOST, "RFC 4291 loopback"},
    Row{"64:ff9b:1::/48", KIND_UNKNOWN, LOCAL_NONE, "RFC 8215 local-use translation"},
    Row{"100::/64", KIND_UNKNOWN, LOCAL_NONE, "RFC 6666 discard only"},
    Row{"100:0:0:1::/64", KIND_UNKNOWN, LOCAL_NONE, "RFC 9780 dummy prefix"},
    Row{"2001::/23", KIND_UNKNOWN, LOCAL_NONE, "RFC 2928 IETF protocol assignments"},
    Row{"2001::/32", KIND_UNKNOWN, LOCAL_NONE, "RFC 4380 Teredo"},
    Row{"2001:2::/48", KIND_UNKNOWN, LOCAL_NONE, "RFC 5180 benchmarking"},
    Row{"2001:10::/28", KIND_UNKNOWN, LOCAL_NONE, "RFC 4843 ORCHID"},
    Row{"2001:20::/28", KIND_UNKNOWN, LOCAL_NONE, "RFC 7343 ORCHIDv2"},
    Row{"2001:db8::/32", KIND_UNKNOWN, LOCAL_NONE, "RFC 3849 documentation"},
    Row{"3fff::/20", KIND_UNKNOWN, LOCAL_NONE, "RFC 9637 documentation"},
    Row{"5f00::/16", KIND_UNKNOWN, LOCAL_NONE, "RFC 9602 segment routing identifiers"},
    Row{"fc00::/7", KIND_LOCAL, LOCAL_PRIVATE, "RFC 4193 unique local"},
    Row{"fe80::/10", KIND_LOCAL, LOCAL_LINK, "RFC 4291 link local"},
    Row{"ff00::/8", KIND_LOCAL, LOCAL_MULTICAST, "RFC 4291 multicast"},
};

std::vector<SpecialPrefix> parse_rows() {
    std::vector<SpecialPrefix> prefixes;
    for (const auto& row : rows)
        prefixes.push_back({Prefix::parse(row.prefix).value(), row.kind, row.local, row.why});
    std::ranges::sort(prefixes, {}, &SpecialPrefix::prefix);
    return prefixes;
}

// The special prefixes of a family as numbers: a dozen comparisons find one.
template <typename Number>
struct Stretch {
    Number first;
    Number last;
    const SpecialPrefix* special;
};

template <typename Number>
std::vector<Stretch<Number>> stretches_of() {
    std::vector<Stretch<Number>> stretches;
    for (const auto& special : special_prefixes()) {
        if (special.prefix.is_ipv4() != (Family<Number>::bits == 32)) continue;
        const Number first = Family<Number>::number_of(special.prefix.base);
        stretches.push_back({first, prefix_last(first, special.prefix.length), &special});
    }
    return stretches;
}

// The last that contains the address is the longest: they are sorted.
template <typename Number>
const SpecialPrefix* innermost(const std::vector<Stretch<Number>>& stretches, const Address& address) {
    const Number number = Family<Number>::number_of(address);
    const SpecialPrefix* found = nullptr;
    for (const auto& stretch : stretches)
        if (stretch.first <= number && number <= stretch.last) found = stretch.special;
    return found;
}

}  // namespace

std::span<const SpecialPrefix> special_prefixes() {
    static const std::vector<SpecialPrefix> prefixes = parse_rows();
    return prefixes;
}

const SpecialPrefix* find_special(const Address& address) {
    static const auto stretches4 = stretches_of<std::uint32_t>();
    static const auto stretches6 = stretches_of<Uint128>();
    return address.is_ipv4() ? innermost(stretches4, address) : innermost(stretches6, address);
}

EmbeddedAddress embedded_ipv4(const Address& address) noexcept {
    const auto word = [&](std::size_t at) {
        const auto* bytes = address.bytes.data() + at;
        return static_cast<std::uint32_t>(bytes[0]) << 24 | static_cast<std::uint32_t>(bytes[1]) << 16 |
               static_cast<std::uint32_t>(bytes[2]) << 8 | bytes[3];
    };
    if (word(0) == 0x0064ff9b && word(4) == 0 && word(8) == 0) return {Address::from_ipv4(word(12)), 96};
    if (word(0) >> 16 == 0x2002) return {Address::from_ipv4(word(2)), 16};
    return {address, 0};
}

std::string why_never_matched(const Prefix& prefix) {
    const auto [inner, bits_before] = embedded_ipv4(prefix.base);
    if (bits_before == 0 || prefix.length < bits_before) return {};
    std::string why =
        "prefix " + prefix.to_string() +
        " can never match: NAT64 and 6to4 addresses are classified by the IPv4 address in them; ";
    const unsigned length = std::min(prefix.length - bits_before, 32u);
    if (length == 0) return why + "write the IPv4 prefixes that are meant";
    return why + "write " + Prefix::containing(inner, static_cast<std::uint8_t>(length)).to_string();
}

}  // namespace egresswatch
