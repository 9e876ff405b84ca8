// agent/daemon/internal_finding.h - findings about the monitor itself: no flow stands behind them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "agent/records/record.h"
#include "rules/finding.h"

namespace egresswatch::daemon {

struct InternalFinding {
    std::string rule;  // "egresswatch/...": no rule of a policy can be called so
    std::string title;
    rules::Level level = rules::Level::high;
    std::string measure;
    std::uint64_t value = 0;
    std::uint64_t threshold = 0;
    std::string message;  // what happened, and the cure
    records::Json details = records::Json::object();
    Timestamp time{};
};

[[nodiscard]] records::Json internal_finding_record(const records::Origin& origin,
                                                    const InternalFinding& finding);

}  // namespace egresswatch::daemon
