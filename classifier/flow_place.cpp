// classifier/flow_place.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/flow_place.h"

#include "classifier/table_platform.h"

namespace egresswatch {

FlowPlace place_of(const datapath::flow_key& key, std::uint64_t seed, std::uint32_t slots) noexcept {
    const std::uint64_t hash = datapath::flow_hash(&key, seed);
    const std::uint32_t mask = (slots - 1) & ~std::uint32_t{datapath::FLOW_PROBES - 1};
    return {datapath::flow_tag(hash),
            {static_cast<std::uint32_t>(hash) & mask, static_cast<std::uint32_t>(hash >> 20) & mask}};
}

}  // namespace egresswatch
