// agent/records/finding.cpp - findings and flows as journal records: the two kinds that know the rules'
// structs. SPDX-License-Identifier: Apache-2.0
#include "rules/finding.h"

#include "agent/records/record.h"

namespace egresswatch::records {
namespace {

Json decision_field(const rules::Decision& decision) {
    Json out;
    out["verdict"] = decision.allowed ? "allowed" : "not_allowed";
    out["allow_id"] = decision.allow_id.empty() ? Json(nullptr) : Json(decision.allow_id);
    out["reason"] = decision.reason;
    return out;
}

}  // namespace

Json finding_record(const Origin& origin, const rules::Finding& finding) {
    Json out = record_head(origin, "finding", finding.time);
    out["level"] = rules::level_name(finding.level);
    if (finding.test) out["test"] = true;
    Json rule;
    rule["id"] = finding.rule_id;
    rule["revision"] = finding.rule_revision;
    rule["title"] = finding.title;
    rule["tags"] = finding.tags;
    rule["kind"] = finding.kind;
    out["rule"] = std::move(rule);
    out["policy"] = {{"name", finding.policy_name}, {"revision", finding.policy_revision}};
    Json group = Json::object();
    for (const auto& field : finding.group) group[field.name] = field.value;
    out["group"] = std::move(group);
    out["measure"] = finding.measure;
    out["value"] = finding.value;
    out["threshold"] = finding.threshold;
    if (!finding.message.empty()) out["message"] = finding.message;
    if (!finding.details.empty())
        for (const auto& detail : finding.details) out["details"][detail.name] = detail.value;
    if (!finding.has_flow) return out;
    out["window_s"] = finding.window.count();
    out["window_start"] = format_time(finding.window_start);
    out["window_end"] = format_time(finding.window_end);
    out["flows_in_window"] = finding.flows_in_window;
    out["suppressed"] = finding.suppressed;
    out["lists"] = finding.list_names;
    out["decision"] = decision_field(finding.decision);
    out["flow"] = flow_fields(finding.flow, finding.info);
    return out;
}

Json flow_record(const Origin& origin, const FlowUpdate& flow, const ClassInfo& info,
                 const rules::Decision* decision) {
    Json out = record_head(origin, "flow", flow.last_seen);
    out["ended"] = flow.reason == UpdateReason::ended;
    if (decision != nullptr) out["decision"] = decision_field(*decision);
    out["flow"] = flow_fields(flow, info);
    return out;
}

}  // namespace egresswatch::records
