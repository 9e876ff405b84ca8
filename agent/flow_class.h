// agent/flow_class.h - the class of a flow by a region table, for flows that no data path has classified.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "classifier/flow_update.h"
#include "classifier/region/region_table.h"

namespace egresswatch {

// As the data path decides it (datapath/account.h, tunnel_class): of a tunnelled flow the larger kind.
[[nodiscard]] inline std::uint16_t flow_class(const RegionTable& table, const FlowUpdate& flow) {
    const std::uint16_t inner = table.lookup(flow.remote());
    if (flow.key.tunnel == datapath::TUNNEL_NONE) return inner;
    const std::uint16_t outer = table.lookup(flow.outer_remote);
    return table.class_info(outer).kind > table.class_info(inner).kind ? outer : inner;
}

}  // namespace egresswatch
