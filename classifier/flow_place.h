// classifier/flow_place.h - where a section of a flow table has the slots of a flow (datapath/flow.h), for
// those who look it up by key. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "classifier/datapath/layout.h"

namespace egresswatch {

struct FlowPlace {
    std::uint32_t tag = 0;
    std::array<std::uint32_t, 2> buckets{};  // first slot of each; FLOW_PROBES slots long
};

// `slots`: of the section, a power of two. `seed`: of the table.
[[nodiscard]] FlowPlace place_of(const datapath::flow_key& key, std::uint64_t seed,
                                 std::uint32_t slots) noexcept;

}  // namespace egresswatch
