// agent/daemon/internal_finding.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/internal_finding.h"

namespace egresswatch::daemon {

records::Json internal_finding_record(const records::Origin& origin, const InternalFinding& finding) {
    // Members as records::finding_record() has them; there is no `flow`, and `message` says it all.
    records::Json out = records::record_head(origin, "finding", finding.time);
    out["level"] = rules::level_name(finding.level);
    out["rule"] = {
        {"id", finding.rule}, {"revision", 1}, {"title", finding.title}, {"tags", records::Json::array()}};
    out["measure"] = finding.measure;
    out["value"] = finding.value;
    out["threshold"] = finding.threshold;
    out["message"] = finding.message;
    out["details"] = finding.details;
    return out;
}

}  // namespace egresswatch::daemon
