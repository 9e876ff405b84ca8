// rules/class_space.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/class_space.h"

#include <algorithm>
#include <set>

#include "classifier/region/special.h"
#include "rules/region_groups.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t prefixes_max = 512;  // of which it is looked up in which lists they lie together

// What the addresses of a prefix can be: of one that is wider than the local network at its beginning, both.
void add_spots_of(const RegionSpec& spec, const Prefix& whole, std::set<ClassSpace::Spot>& spots) {
    const Address& address = whole.base;
    ClassSpace::Spot out;
    for (const PolicyPrefix& prefix : spec.list_prefixes)
        if (prefix.prefix.contains(address)) out.lists.push_back(prefix.list);
    std::ranges::sort(out.lists);
    const auto doubles = std::ranges::unique(out.lists);
    out.lists.erase(doubles.begin(), doubles.end());
    out.home = std::ranges::any_of(spec.home_prefixes, [&](const Prefix& p) { return p.contains(address); });
    const SpecialPrefix* special = find_special(address);
    out.local = !out.home && special != nullptr && special->kind == datapath::KIND_LOCAL;
    spots.insert(out);
    if (out.local && special->prefix.length > whole.length) {
        out.local = false;
        spots.insert(out);
    }
}

}  // namespace

ClassSpace::ClassSpace(const Policy& policy) : spec_(policy.region_spec()) {
    std::set<Spot> spots{Spot{}};
    for (const PolicyPrefix& prefix : spec_.list_prefixes)
        if (spec_.list_prefixes.size() <= prefixes_max)
            add_spots_of(spec_, prefix.prefix, spots);
        else
            spots.insert(Spot{{prefix.list}, false, false});
    if (!spec_.home_prefixes.empty()) spots.insert(Spot{{}, true, false});
    spots_.assign(spots.begin(), spots.end());
    for (char first = 'A'; first <= 'Z'; ++first)
        for (char second = 'A'; second <= 'Z'; ++second)
            if (const Country code{first, second}; is_country_code(code)) countries_.push_back(code);
    countries_.emplace_back();
}

datapath::region_kind ClassSpace::kind_of(const Spot& spot, const Country& country) const {
    if (spot.home) return datapath::KIND_HOME;
    if (country.empty()) return spec_.unknown_is_home ? datapath::KIND_HOME : datapath::KIND_UNKNOWN;
    return spec_.home_countries.contains(country) ? datapath::KIND_HOME : datapath::KIND_OUTSIDE;
}

bool ClassSpace::any_of(const std::function<bool(const ClassInfo&)>& holds) const {
    const auto local_of = [&](const Spot& spot) {
        for (const auto local : {datapath::LOCAL_HOST, datapath::LOCAL_LINK, datapath::LOCAL_PRIVATE,
                                 datapath::LOCAL_MULTICAST, datapath::LOCAL_UNSPECIFIED}) {
            ClassInfo info;
            info.kind = datapath::KIND_LOCAL;
            info.local = local;
            info.lists = spot.lists;
            if (holds(info)) return true;
        }
        return false;
    };
    for (const Spot& spot : spots_) {
        if (spot.local) {
            if (local_of(spot)) return true;
            continue;
        }
        for (const Country& country : countries_) {
            ClassInfo info;
            info.country = country;
            info.lists = spot.lists;
            info.kind = kind_of(spot, country);
            if (holds(info)) return true;
        }
    }
    return local_of(Spot{});
}

}  // namespace egresswatch::rules
