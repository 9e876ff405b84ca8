// classifier/region/locate.cpp - one address, answered by search: geo data, special addresses and policy.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include "classifier/region/geo_data.h"
#include "classifier/region/special.h"

namespace egresswatch {

namespace {

const Prefix* longest_with(const std::vector<Prefix>& prefixes, const Address& address) {
    const Prefix* longest = nullptr;
    for (const auto& prefix : prefixes)
        if (prefix.contains(address) && (!longest || prefix.length > longest->length)) longest = &prefix;
    return longest;
}

std::vector<std::uint16_t> lists_with(const RegionSpec& spec, const Address& address) {
    std::vector<std::uint16_t> lists;
    for (const auto& member : spec.list_prefixes)
        if (member.prefix.contains(address)) lists.push_back(member.list);
    std::ranges::sort(lists);
    lists.erase(std::ranges::unique(lists).begin(), lists.end());
    return lists;
}

datapath::region_kind kind_of_country(const RegionSpec& spec, const Country& country) {
    if (country.empty()) return spec.unknown_is_home ? datapath::KIND_HOME : datapath::KIND_UNKNOWN;
    return spec.home_countries.contains(country) ? datapath::KIND_HOME : datapath::KIND_OUTSIDE;
}

}  // namespace

GeoAnswer locate(const GeoData& geo, const RegionSpec& spec, const Address& address) {
    const auto [inner, bits_before] = embedded_ipv4(address);
    GeoAnswer answer{address, std::nullopt, {}, "none", {}};
    answer.info.lists = lists_with(spec, inner);
    const auto* host = longest_with(spec.host_addresses, inner);
    const auto* home = longest_with(spec.home_prefixes, inner);
    const auto* special = find_special(inner);
    const auto record = geo.find(inner);
    if (host) {
        answer.info.kind = datapath::KIND_LOCAL;
        answer.info.local = datapath::LOCAL_HOST;
        answer.source = "host";
        answer.prefix = *host;
    } else if (!home && special) {
        answer.info.kind = special->kind;
        answer.info.local = special->local;
        answer.source = "rfc6890";
        answer.prefix = special->prefix;
    } else {
        // A special address has no country, even where the policy calls it home.
        if (!special) {
            answer.info.country = record.country;
            answer.info.disputed = record.disputed;
            answer.recorded = record.recorded;
            answer.prefix = record.prefix;
            if (record.prefix) answer.source = geo.sources()[record.source].name;
        }
        answer.info.kind = kind_of_country(spec, answer.info.country);
        if (home) {
            answer.info.kind = datapath::KIND_HOME;
            answer.source = "policy";
            answer.prefix = *home;
        }
    }
    if (bits_before != 0 && answer.prefix)
        answer.prefix =
            Prefix::containing(address, static_cast<std::uint8_t>(bits_before + answer.prefix->length));
    return answer;
}

}  // namespace egresswatch
