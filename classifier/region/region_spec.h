// classifier/region/region_spec.h - what a policy asks of the region table; filled by rules/, used by the
// compiler. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"

namespace egresswatch {

// ISO 3166-1 alpha-2, upper case; empty where unknown or not applicable (local addresses).
using Country = std::string;

// One prefix that the policy names, and the list it belongs to. A list is anything whose membership the
// policy asks for: a named CIDR list, the CIDRs of one allow entry. `list` indexes RegionSpec::list_names.
struct PolicyPrefix {
    Prefix prefix;
    std::uint16_t list = 0;
};

struct RegionSpec {
    std::set<Country> home_countries;
    std::vector<Prefix> home_prefixes;  // CIDRs of the home region: home, whatever the geo database says
    bool unknown_is_home = false;  // `unknown_country: home`; default: kind unknown, never silently allowed
    std::vector<Prefix> host_addresses;  // this host's own: local
    std::vector<std::string> list_names;
    std::vector<PolicyPrefix>
        list_prefixes;  // an address may be in several lists; they do not change its country
};

// What a class id means. Class 0 is always: unknown country, no lists.
struct ClassInfo {
    datapath::region_kind kind = datapath::KIND_UNKNOWN;
    datapath::local_kind local = datapath::LOCAL_NONE;
    Country country;
    std::vector<std::uint16_t> lists;  // sorted indices into RegionSpec::list_names
    bool disputed = false;             // the loaded geo sources disagree about the country

    auto operator<=>(const ClassInfo&) const = default;
};

// "local", "home", "unknown", "outside": the words of the policy, the journal and the command line.
[[nodiscard]] const char* kind_name(datapath::region_kind kind) noexcept;

}  // namespace egresswatch
