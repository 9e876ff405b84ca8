// agent/daemon/recall.h - findings that the journal holds and the saved windows may not know of.
// SPDX-License-Identifier: Apache-2.0
//
// Windows and suppressions are saved now and then. A daemon that is killed in between has written findings
// that the saved state does not know; its successor would report the same flows, which the kernel has gone on
// counting, again. In:      the journal's last segments: findings that were made under the policy in force
// now. Limits:  segments_searched_max, findings_recalled_max, the newest ones; what is in front of them may
// repeat. Not so:  rules that group by names which records do not show (`names` hashed or off) may repeat.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "classifier/flow_update.h"
#include "classifier/region/region_table.h"
#include "rules/evaluator.h"

namespace egresswatch::daemon {

inline constexpr std::size_t findings_recalled_max = 10'000;  // 20 MB while it runs, half a second

struct Recalled {
    std::size_t findings = 0;  // that the saved state did not know
    std::size_t left_out = 0;  // more than findings_recalled_max
};

// Records written before `since` are not looked at.
[[nodiscard]] Recalled recall_findings(const std::filesystem::path& journal, Timestamp since,
                                       const std::string& policy_hash, const RegionTable& table,
                                       rules::Evaluator& evaluator);

}  // namespace egresswatch::daemon
