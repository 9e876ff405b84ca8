// agent/explain.h - one flow beside the policy: its class and why, allow entries, rules and their windows.
// SPDX-License-Identifier: Apache-2.0
//
// Shared by the daemon, whose windows are full of what it has seen, and by `egresswatch explain`, which
// replays.
#pragma once

#include <nlohmann/json.hpp>

#include "classifier/region/geo_data.h"
#include "classifier/region/region_table.h"
#include "rules/evaluator.h"
#include "rules/owned_facts.h"

namespace egresswatch {

// What explain_flow() needs beside the flow.
struct ExplainContext {
    const rules::Evaluator& evaluator;
    const GeoData& geo;
    const RegionTable& table;
    Timestamp now;  // packet time reached
};

[[nodiscard]] nlohmann::ordered_json explain_flow(const ExplainContext& context, FlowUpdate flow,
                                                  const rules::OwnedFacts& known);

}  // namespace egresswatch
