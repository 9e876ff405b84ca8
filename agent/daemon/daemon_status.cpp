// agent/daemon/daemon_status.cpp - what `egresswatch status` shows; docs/man/egresswatch-status.1 lists the
// members. SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "agent/daemon/daemon.h"
#include "agent/daemon/privileges.h"

namespace egresswatch::daemon {

namespace {

using records::Json;

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

Json policy_status(const PolicyState& state, const Config& config,
                   const std::optional<ReloadOutcome>& last_reload) {
    Json out;
    out["name"] = state.policy->name;
    out["revision"] = state.policy->revision;
    out["content_hash"] = state.policy->content_hash();
    out["directory"] = config.policy_dir.string();
    out["since"] = records::format_time(state.since);
    out["rules"] = state.policy->rules.size();
    out["allows"] = state.policy->allows.size();
    out["warnings"] = state.warnings;
    out["last_reload"] = nullptr;
    if (last_reload)
        out["last_reload"] = {{"time", records::format_time(last_reload->at)},
                              {"ok", last_reload->ok},
                              {"trigger", last_reload->trigger},
                              {"problems", last_reload->problems},
                              {"install_ms", last_reload->install_ms}};
    return out;
}

Json broken_status(const std::optional<BrokenPolicy>& broken) {
    if (!broken) return nullptr;
    return {{"since", records::format_time(broken->since)},
            {"content_hash", broken->content_hash},
            {"refusals", broken->refusals},
            {"problems", broken->problems}};
}

Json geo_status(const PolicyState& state) {
    Json out;
    out["file"] = state.geo_path.string();
    out["content_hash"] = state.geo->content_hash();
    out["sources"] = Json::array();
    for (const GeoSource& source : state.geo->sources())
        out["sources"].push_back({{"name", source.name}, {"date", source.date}, {"records", source.records}});
    out["region_table"] = {{"generation", state.table->generation()},
                           {"bytes", state.table->block().size()},
                           {"classes", state.table->class_count()}};
    out["host_addresses"] = Json::array();
    for (const Address& address : state.host_addresses) out["host_addresses"].push_back(address.to_string());
    return out;
}

Json journal_status(const journal::Status& status) {
    return {{"state", status.state},
            {"first_seq", status.first_seq},
            {"last_seq", status.last_seq},
            {"durable_seq", status.durable_seq},
            {"segments", status.segments},
            {"bytes", status.bytes},
            {"appended", status.appended},
            {"unjournaled", status.unjournaled},
            {"lines_cut", status.lines_cut},
            {"segments_deleted", status.segments_deleted},
            {"records_thinned", status.records_thinned},
            {"hash_failures", status.hash_failures},
            {"last_error", status.last_error}};
}

Json evidence_status(const evidence::NotaryStatus& status, const journal::TreeHead& head) {
    return {{"state", status.state},
            {"origin", status.origin},
            {"size", head.size},
            {"root", evidence::to_base64(head.root)},
            {"signed_size", status.size},
            {"signed_root", status.root},
            {"signed_at", status.signed_at},
            {"checkpoints", status.checkpoints},
            {"generation", status.generation},
            {"key_since", status.key_since},
            {"genesis_key", status.genesis_key},
            {"failures", status.failures},
            {"last_error", status.last_error}};
}

Json evaluation_status(const Evaluation& evaluation) {
    const auto& counters = evaluation.counters();
    const auto evaluator = evaluation.evaluator().counters();
    Json rules = Json::array();
    for (const auto& rule : evaluation.evaluator().rule_status())
        rules.push_back({{"id", rule.id},
                         {"kind", rule.kind},
                         {"test", rule.test},
                         {"active", rule.active},
                         {"findings", rule.findings},
                         {"suppressed", rule.suppressed},
                         {"evicted", rule.evicted},
                         {"groups", rule.groups},
                         {"groups_max", rule.groups_max}});
    Json allows = Json::array();
    for (const auto& entry : evaluation.evaluator().allow_status())
        allows.push_back(
            {{"id", entry.id},
             {"owner", entry.owner},
             {"matched", entry.matched},
             {"last_match", entry.last_match ? Json(records::format_time(*entry.last_match)) : Json(nullptr)},
             {"since", records::format_time(entry.since)},
             {"unused", entry.unused},
             {"ceiling_bytes", entry.ceiling_bytes},
             {"used_bytes", entry.used_bytes}});
    return {{"packet_time", records::format_time(evaluation.packet_time())},
            {"updates", counters.updates},
            {"findings", counters.findings},
            {"suppressed", evaluator.suppressed},
            {"window_evictions", evaluator.window_evictions},
            {"suppression_evictions", evaluator.suppression_evictions},
            {"late", evaluator.late},
            {"ahead", evaluator.ahead},
            {"flow_records", counters.flow_records},
            {"flow_records_skipped", counters.flow_records_skipped},
            {"long_lived_untracked", counters.long_lived_untracked},
            {"rules", std::move(rules)},
            {"allows", std::move(allows)}};
}

Json names_status(const inspect::InspectionCounters& counters, const inspect::Resolvers& resolvers) {
    Json servers = Json::array();
    if (resolvers.any) servers.push_back("any");
    for (const Prefix& prefix : resolvers.prefixes) servers.push_back(prefix.to_string());
    return {{"resolvers", std::move(servers)},
            {"samples", counters.samples},
            {"flows", counters.flows},
            {"flows_named", counters.flows_named},
            {"flows_full", counters.flows_full},
            {"flows_expired", counters.flows_expired},
            {"inspectors_evicted", counters.inspectors_evicted},
            {"dns_messages", counters.dns_messages},
            {"dns_unreadable", counters.dns_unreadable},
            {"dns_oversize", counters.dns_oversize},
            {"dns_cut", counters.dns_cut},
            {"dns_unasked", counters.dns_unasked},
            {"dns_unlisted", counters.dns_unlisted},
            {"dns_streams_evicted", counters.streams_evicted},
            {"dns_answers", counters.names.learned},
            {"dns_denials", counters.names.denied},
            {"dns_bindings", counters.names.bindings},
            {"dns_evicted", counters.names.evicted}};
}

Json privileges_json() {
    const PrivilegeStatus status = privilege_status();
    return {{"uid", status.uid},
            {"effective", status.effective},
            {"bounding", status.bounding},
            {"no_new_privs", status.no_new_privs}};
}

}  // namespace

Json Daemon::status() {
    Json out;
    out["version"] = origin_.version;
    out["site"] = origin_.site;
    out["host"] = origin_.host;
    out["pid"] = ::getpid();
    out["started"] = records::format_time(started_);
    out["time"] = records::format_time(wall_clock());
    out["engine"] = engine_->name();
    out["adopted"] = predecessor_.adopted;

    // Interfaces, classes and losses as a coverage record has them, since the counters began.
    records::Coverage coverage;
    coverage.to = wall_clock();
    coverage.after = engine_->totals();
    const CoverageContext context = coverage_context();
    coverage.classes = context.classes;
    Json counters = records::coverage_record(origin_, coverage);
    for (Json& interface : counters["interfaces"])
        for (const auto& result : coverage_->conservation())
            if (interface.value("ifindex", 0u) == result.ifindex)
                interface["conservation"] = conservation_json(result);
    out["interfaces"] = std::move(counters["interfaces"]);
    out["classes"] = std::move(counters["classes"]);
    out["losses"] = std::move(counters["losses"]);
    out["flows"] = {{"live", coverage.after.flows_live}, {"slots", coverage.after.flow_slots}};

    const capture::EngineDetails details = engine_->details();
    out["engine_details"] = Json::object();
    for (const auto& [name, word] : details.words) out["engine_details"][name] = word;
    for (const auto& [name, value] : details.counters) out["engine_details"][name] = value;

    out["policy"] = policy_status(*state_, config_, last_reload_);
    out["policy"]["broken"] = broken_status(broken_policy_);
    out["policy"]["reloads"] = {
        {"accepted", reloads_.accepted}, {"rejected", reloads_.rejected}, {"unchanged", reloads_.unchanged}};
    const std::string& not_watched = policy_watch_ ? policy_watch_->problem() : policy_watch_problem_;
    out["policy"]["watch"] = not_watched.empty() ? "watching" : not_watched;
    out["geo"] = geo_status(*state_);
    out["evaluation"] = evaluation_status(*evaluation_);
    out["names"] = names_status(evaluation_->inspection(), evaluation_->resolvers());
    const WindowKeeper::Status& windows = windows_->status();
    out["windows"] = {{"saved", windows.saved ? Json(records::format_time(*windows.saved)) : Json(nullptr)},
                      {"bytes", windows.bytes},
                      {"last_error", windows.error}};
    out["journal"] = journal_status(journal_->status());
    out["evidence"] = evidence_status(notary_->status(), journal_->tree_head());
    out["outputs"] = Json::array();
    for (const auto& output : outputs_) out["outputs"].push_back(outputs::to_json(output->status()));
    out["privileges"] = privileges_json();
    out["control"] = {{"socket", config_.control_socket}, {"clients_refused", control_->clients_refused()}};
    return out;
}

}  // namespace egresswatch::daemon
