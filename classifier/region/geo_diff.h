// classifier/region/geo_diff.h - how much of the address space two geo databases see differently.
// SPDX-License-Identifier: Apache-2.0
//
// Special addresses (special.h) are left out: no geo data decide about them. Shares are of IPv4 addresses
// outside those, and of IPv6 addresses in 2000::/3 (RFC 4291 section 2.4: all that is given out).
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "classifier/region/geo_data.h"

namespace egresswatch {

struct GeoMove {
    Country from;  // empty: unknown
    Country to;
    double addresses = 0;  // exact up to 2^53, then to 16 digits
};

struct GeoFamilyDiff {
    double addresses = 0;      // compared
    double country_moved = 0;  // addresses whose country differs
    double class_moved = 0;    // addresses that are home in one and not home in the other, or unknown in one
    std::vector<GeoMove> moves;  // largest first
};

struct GeoDiff {
    GeoFamilyDiff ipv4;
    GeoFamilyDiff ipv6;
};

[[nodiscard]] GeoDiff diff_geo(const GeoData& before, const GeoData& after, const std::set<Country>& home);

}  // namespace egresswatch
