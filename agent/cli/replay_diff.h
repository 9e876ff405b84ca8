// agent/cli/replay_diff.h - `egresswatch replay --old --new`: which findings a change of the policy gains and
// loses. SPDX-License-Identifier: Apache-2.0
//
// In:      a capture file or a journal, two policies.   Out: by rule what is gained and lost, with examples.
// A finding is the same under both where its rule and group are, in their order of time.
// Limits:  findings_max findings of each policy are kept for comparing; the rest is counted and said.
#pragma once

#include <string>

#include "agent/cli/replay_pass.h"
#include "classifier/flow_table.h"

namespace egresswatch::cli {

struct ReplayDiffOptions {
    std::string source;
    std::string old_policy;
    std::string new_policy;
    std::string geo;
    ReplayHost host;
    FlowTableConfig config;
    bool json = false;
    bool fail_on_difference = false;
};

[[nodiscard]] int replay_difference(const ReplayDiffOptions& options);

}  // namespace egresswatch::cli
