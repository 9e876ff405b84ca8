// agent/cli/replay_output.h - what `egresswatch replay` prints beside findings as records: flows, totals, the
// summary.
//
// In:      updates of ended flows; an engine's totals.   Out: JSON, one object a line, keys in a fixed order;
// CSV as
//          RFC 4180 has it, but for line ends; tables for people.
// Threads: pure functions.  Fails: never.
// Not here: findings as JSON and text (agent/records).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "capture/engine.h"
#include "capture/userspace/file_engine.h"
#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"
#include "rules/finding.h"

namespace egresswatch::inspect {
struct FlowNames;
}

namespace egresswatch::cli {

// Appends one line. Field by field as egresswatch-replay(1) lists them.
// `names`: null where nothing is known.
void append_flow_line(std::string& out, const FlowUpdate& flow, const ClassInfo& info,
                      const inspect::FlowNames* names);

void append_flow_csv(std::string& out, const FlowUpdate& flow, const ClassInfo& info,
                     const inspect::FlowNames* names);
[[nodiscard]] std::string flow_csv_head();
void append_finding_csv(std::string& out, const rules::Finding& finding, const inspect::FlowNames* names);
[[nodiscard]] std::string finding_csv_head();

using ClassInfoOf = std::function<const ClassInfo&(std::uint16_t)>;

// Counted while the file is read.
struct ReplayCounts {
    std::vector<std::uint64_t> flows_by_class;  // ended flows
    std::map<std::string, std::uint64_t>
        findings_by_country;  // by the remote end of the flow that filled the window
    std::uint64_t flows = 0;
    std::uint64_t findings = 0;

    void add_flow(std::uint16_t class_id) {
        if (class_id >= flows_by_class.size()) flows_by_class.resize(std::size_t{class_id} + 1);
        ++flows_by_class[class_id];
        ++flows;
    }
    void add_finding(const ClassInfo& info);
};

// What --totals prints, without the line feed.
[[nodiscard]] std::string totals_line(const capture::TotalsSnapshot& totals,
                                      const capture::FileProgress& progress, const ClassInfoOf& class_of);
// The summary, for people.
[[nodiscard]] std::string totals_table(const capture::TotalsSnapshot& totals,
                                       const capture::FileProgress& progress, const ClassInfoOf& class_of,
                                       const ReplayCounts& counts);
// The same as one JSON object, without the line feed, and as a table of countries in CSV.
[[nodiscard]] std::string summary_line(const capture::TotalsSnapshot& totals, const ClassInfoOf& class_of,
                                       const ReplayCounts& counts);
[[nodiscard]] std::string summary_csv(const capture::TotalsSnapshot& totals, const ClassInfoOf& class_of,
                                      const ReplayCounts& counts);

}  // namespace egresswatch::cli
