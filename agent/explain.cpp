// agent/explain.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/explain.h"

#include "agent/flow_class.h"
#include "agent/records/record.h"

namespace egresswatch {

namespace {

using Json = nlohmann::ordered_json;

// Which prefix of which source says where an address is.
Json end_json(const ExplainContext& context, const Address& address) {
    const auto& policy = *context.evaluator.policy();
    const GeoAnswer answer = locate(context.geo, policy.region_spec(), address);
    const ClassInfo& info = context.table.class_info(context.table.lookup(address));
    const std::vector<std::string> lists = policy.named_lists(info, policy.prefix_index().find(address));
    return {{"address", address.to_string()},
            {"class", kind_name(info.kind)},
            {"country", records::country_field(info)},
            {"prefix", answer.prefix ? Json(answer.prefix->to_string()) : Json(nullptr)},
            {"source", answer.source},
            {"recorded", answer.recorded.empty() ? Json(nullptr) : Json(answer.recorded)},
            {"disputed", info.disputed},
            {"lists", lists}};
}

Json group_json(const std::vector<rules::GroupField>& group) {
    Json out = Json::object();
    for (const rules::GroupField& field : group) out[field.name] = field.value;
    return out;
}

}  // namespace

Json explain_flow(const ExplainContext& context, FlowUpdate flow, const rules::OwnedFacts& known) {
    const rules::FactsView view(known, flow.initiator == datapath::INITIATOR_REMOTE);
    flow.key.class_id = flow_class(context.table, flow);
    const ClassInfo& info = context.table.class_info(flow.key.class_id);
    const rules::Explanation explanation = context.evaluator.explain(flow, info, context.now, view.facts);
    const auto& policy = *context.evaluator.policy();
    Json out;
    out["policy"] = {
        {"name", policy.name}, {"revision", policy.revision}, {"content_hash", policy.content_hash()}};
    out["packet_time"] = records::format_time(context.now);
    out["flow"] = records::flow_fields(flow, info);
    out["remote"] = end_json(context, flow.remote());
    out["outer_remote"] =
        flow.key.tunnel == datapath::TUNNEL_NONE ? Json(nullptr) : end_json(context, flow.outer_remote);
    const rules::Decision& decision = explanation.decision;
    out["decision"] = {{"allowed", decision.allowed},
                       {"allow_id", decision.allow_id.empty() ? Json(nullptr) : Json(decision.allow_id)},
                       {"reason", decision.reason}};
    out["allow"] = Json::array();
    for (const rules::AllowExplanation& entry : explanation.allows)
        out["allow"].push_back(
            {{"id", entry.id}, {"covers", entry.covers}, {"close", entry.close}, {"why_not", entry.why_not}});
    out["rules"] = Json::array();
    for (const rules::RuleExplanation& rule : explanation.rules)
        out["rules"].push_back({{"id", rule.id},
                                {"kind", rule.kind},
                                {"counts", rule.counts},
                                {"why_not", rule.why_not},
                                {"group", group_json(rule.group)},
                                {"measure", rule.measure},
                                {"value", rule.value},
                                {"threshold", rule.threshold},
                                {"window_s", rule.window.count()},
                                {"suppressed", rule.suppressed},
                                {"second", rule.second}});
    return out;
}

}  // namespace egresswatch
