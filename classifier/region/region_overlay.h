// classifier/region/region_overlay.h - what policy and special addresses say, laid over the geo data.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "classifier/region/region_error.h"
#include "classifier/region/region_spec.h"
#include "classifier/region/wide_integer.h"

namespace egresswatch {

// Sorted, distinct names of lists.
using NameSet = std::vector<std::string>;

struct OverlayState {
    bool host = false;           // an address of this host
    bool home = false;           // in a home CIDR of the policy
    std::int16_t special = -1;   // index into special_prefixes()
    std::uint16_t name_set = 0;  // index into RegionOverlay::name_sets

    auto operator<=>(const OverlayState&) const = default;
};

template <typename Number>
struct OverlayPiece {
    Number first = 0;
    std::uint32_t state = 0;  // index into RegionOverlay::states
};

struct RegionOverlay {
    std::vector<NameSet> name_sets{{}};                // set 0 is empty
    std::vector<OverlayState> states{{}};              // state 0: nothing said
    std::vector<OverlayPiece<std::uint32_t>> pieces4;  // tile the family
    std::vector<OverlayPiece<Uint128>> pieces6;
};

[[nodiscard]] std::expected<RegionOverlay, RegionError> make_overlay(const RegionSpec& spec);

}  // namespace egresswatch
