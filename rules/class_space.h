// rules/class_space.h - every class that an address can have under a policy, whatever the geo data say.
// Internal. SPDX-License-Identifier: Apache-2.0
//
// Prefixes of the policy that lie in the same lists are one case; each is combined with every country.
#pragma once

#include <functional>
#include <vector>

#include "rules/policy.h"

namespace egresswatch::rules {

class ClassSpace {
public:
    explicit ClassSpace(const Policy& policy);

    // Whether `holds` answers true for some class; it is asked for no more once it has.
    [[nodiscard]] bool any_of(const std::function<bool(const ClassInfo&)>& holds) const;

    // The lists that contain an address, and what its prefix decides about it whatever its country.
    struct Spot {
        std::vector<std::uint16_t> lists;
        bool home = false;
        bool local = false;
        auto operator<=>(const Spot&) const = default;
    };

private:
    [[nodiscard]] datapath::region_kind kind_of(const Spot& spot, const Country& country) const;

    const RegionSpec& spec_;
    std::vector<Spot> spots_;
    std::vector<Country> countries_;  // the last one is unknown
};

}  // namespace egresswatch::rules
