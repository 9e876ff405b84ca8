// agent/cli/replay_output.h - the lines that `egresswatch replay` prints: flows and totals.
//
// In:      updates of ended flows; an engine's totals.   Out: one JSON object a line, keys in a fixed order.
// Threads: pure functions.  Fails: never.
// Not here: findings (agent/records).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "capture/engine.h"
#include "capture/userspace/file_engine.h"
#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"

namespace egresswatch::cli {

// Appends one line. Field by field as egresswatch-replay(1) lists them.
void append_flow_line(std::string& out, const FlowUpdate& flow, const ClassInfo& info);

using ClassInfoOf = std::function<const ClassInfo&(std::uint16_t)>;

// What --totals prints, without the line feed.
[[nodiscard]] std::string totals_line(const capture::TotalsSnapshot& totals,
                                      const capture::FileProgress& progress, const ClassInfoOf& class_of);
// What is printed for people when neither --flows nor --totals nor --json is asked for.
[[nodiscard]] std::string totals_table(const capture::TotalsSnapshot& totals,
                                       const capture::FileProgress& progress, const ClassInfoOf& class_of,
                                       std::uint64_t flows, std::uint64_t findings);

}  // namespace egresswatch::cli
