// agent/records/ocsf.cpp - a record as an OCSF 1.1.0 event: findings are Detection Findings (class 2004),
// what has no class of its own is a Base Event. SPDX-License-Identifier: Apache-2.0
//
// Schema: github.com/ocsf/ocsf-schema, version 1.1.0. Times are milliseconds, what the schema has no
// attribute for stands in `unmapped`.
#include <algorithm>
#include <chrono>

#include "agent/records/fit.h"

namespace egresswatch::records {
namespace {

constexpr const char* schema = "1.1.0";

Json milliseconds(const Json& record, const char* name) {
    const auto time = parse_time(text_member(record, name));
    if (!time) return nullptr;
    return std::chrono::duration_cast<std::chrono::milliseconds>(time->time_since_epoch()).count();
}

int severity_id(Level level) {  // 1 informational ... 5 critical
    return static_cast<int>(level) + 1;
}
static_assert(static_cast<int>(Level::info) == 0 && static_cast<int>(Level::critical) == 4,
              "severity_id() counts from info");

Json metadata(const Json& record) {
    Json out;
    out["version"] = schema;
    out["product"] = {{"name", "egresswatch"}, {"vendor_name", "egresswatch"}};
    put(out["product"], "version", member(record, "version"));
    out["profiles"] = Json::array({"host"});
    out["uid"] = event_id(record);
    put(out, "sequence", member(record, "seq"));
    put(out, "logged_time", milliseconds(record, "written"));
    return out;
}

Json endpoint(const Json& flow, bool local_end) {
    Json out;
    put(out, "ip", member(flow, local_end ? "local" : "remote"));
    const Json& port = member(flow, local_end ? "local_port" : "remote_port");
    if (port.is_number() && port != 0) out["port"] = port;
    const std::string country = text_member(flow, "country");
    if (!local_end && country.size() == 2) out["location"]["country"] = country;
    if (!local_end) put(out, "hostname", member(flow, "name"));
    return out;
}

// The object `process`; null where nobody can be named.
Json process_object(const Json& record) {
    const Json& process = member(record, "process");
    if (!process.is_object()) return nullptr;
    Json out;
    put(out, "pid", member(process, "pid"));
    put(out, "name", member(process, "command"));
    put(out, "cmd_line", member(process, "command_line"));
    if (const std::string path = text_member(process, "executable"); !path.empty()) {
        Json& file = out["file"];
        file = {{"path", path}, {"name", path.substr(path.rfind('/') + 1)}, {"type_id", 1}};  // 1: regular
        if (const Json& hash = member(process, "sha256"); hash.is_string())
            file["hashes"] = Json::array({{{"algorithm_id", 3}, {"value", hash}}});  // 3: SHA-256
    }
    put(out["user"], "name", member(process, "user"));
    if (const Json& uid = member(process, "uid"); uid.is_number()) out["user"]["uid"] = uid.dump();
    if (out["user"].is_null()) out.erase("user");
    if (const Json& parent = member(process, "parent"); parent.is_object()) {
        put(out["parent_process"], "pid", member(parent, "pid"));
        put(out["parent_process"], "name", member(parent, "command"));
    }
    if (const Json& container = member(process, "container"); container.is_string())
        out["container"]["uid"] = container;
    return out;
}

Json evidence(const Json& record, const Json& flow) {
    const bool remote_first = text_member(flow, "initiator") == "remote";
    Json out;
    out["src_endpoint"] = endpoint(flow, !remote_first);
    out["dst_endpoint"] = endpoint(flow, remote_first);
    Json& connection = out["connection_info"];
    connection["direction_id"] = remote_first ? 1 : 2;  // inbound, outbound: who connected
    put(connection, "protocol_name", member(flow, "transport"));
    put(connection, "protocol_num", member(flow, "l4_proto"));
    put(connection, "uid", member(flow, "community_id"));
    put(out, "process", process_object(record));
    return out;
}

Json finding_info(const Json& record) {
    const Json& rule = member(record, "rule");
    Json out;
    out["uid"] = event_id(record);
    const std::string title = text_member(rule, "title");
    out["title"] = title.empty() ? rule_or_kind(record) : title;
    put(out, "created_time", milliseconds(record, "time"));
    put(out, "first_seen_time", milliseconds(record, "window_start"));
    put(out, "last_seen_time", milliseconds(record, "window_end"));
    out["analytic"] = {{"type_id", 1}, {"uid", rule_or_kind(record)}};  // 1: rule
    if (const Json& revision = member(rule, "revision"); revision.is_number())
        out["analytic"]["version"] = revision.dump();
    const Techniques techniques = attack_techniques(record);
    for (const auto& id : techniques.ids)
        out["attacks"].push_back({{"version", "14.1"}, {"technique", {{"uid", id}}}});
    return out;
}

Json unmapped_finding(const Json& record) {
    const Json& flow = member(record, "flow");
    const Json& decision = member(record, "decision");
    Json out;
    put(out, "rule", rule_or_kind(record));
    put(out, "verdict", member(decision, "verdict"));
    put(out, "country", member(flow, "country"));
    put(out, "bytes_out", member(flow, "bytes_out"));
    put(out, "bytes_in", member(flow, "bytes_in"));
    put(out, "initiator", member(flow, "initiator"));
    put(out, "name_source", member(flow, "name_source"));
    put(out, "name_unread", member(flow, "name_unread"));
    put(out, "app", member(flow, "app"));
    const Json& process = member(record, "process");
    const Json& inner_unit = member(process, "inner_unit");
    put(out, "unit", inner_unit.is_string() ? inner_unit : member(process, "unit"));
    put(out, "sender", member(member(record, "sender"), "known"));
    for (const char* name : {"measure", "value", "threshold", "window_s", "flows_in_window", "suppressed"})
        put(out, name, member(record, name));
    put(out, "allow_id", member(decision, "allow_id"));
    put(out, "reason", member(decision, "reason"));
    put(out, "group", member(record, "group"));
    put(out, "site", member(record, "site"));
    put(out, "policy", member(member(record, "policy"), "name"));
    put(out, "details", member(record, "details"));
    if (record.contains("unjournaled")) out["unjournaled"] = true;
    return out;
}

Json unmapped_other(const Json& record) {
    static const char* const mapped[] = {"seq", "written", "time", "host", "host_id", "version"};
    Json out;
    for (const auto& [name, value] : record.items())
        if (std::find(std::begin(mapped), std::end(mapped), name) == std::end(mapped))
            put(out, name.c_str(), value);
    return out;
}

}  // namespace

const std::vector<std::string>& ocsf_droppable() {
    static const std::vector<std::string> order{
        "/message",
        "/unmapped/interfaces",
        "/unmapped/classes",
        "/unmapped/losses",
        "/unmapped/problems",
        "/evidences/0/process/parent_process",
        "/evidences/0/process/cmd_line",
        "/unmapped/details",
        "/unmapped/policy",
        "/unmapped/reason",
        "/unmapped/group",
        "/unmapped/suppressed",
        "/unmapped/flows_in_window",
        "/finding_info/attacks",
        "/finding_info/first_seen_time",
        "/finding_info/last_seen_time",
        "/metadata/logged_time",
        "/unmapped/window_s",
        "/unmapped/threshold",
        "/unmapped/bytes_in",
        "/unmapped/site",
        "/device/uid",
        "/unmapped/measure",
        "/unmapped/allow_id",
        "/severity",
        "/class_name",
        "/category_name",
        "/type_name",
        "/activity_name",
        "/unmapped/name_source",
        "/unmapped/name_unread",
        "/unmapped/app",
        "/evidences/0/connection_info/uid",
        "/evidences/0/connection_info/protocol_num",
        "/unmapped/value",
        "/unmapped/sender",
        "/unmapped/unit",
        "/unmapped/initiator",
        "/evidences/0/process",
        "/evidences/0/src_endpoint",
    };
    return order;
}

Json ocsf_document(const Json& record) {
    static constexpr const char* severities[] = {"Informational", "Low", "Medium", "High", "Critical"};
    const bool finding = text_member(record, "kind") == "finding";
    const Level level = level_of(record);
    Json out;
    out["class_uid"] = finding ? 2004 : 0;
    out["class_name"] = finding ? "Detection Finding" : "Base Event";
    out["category_uid"] = finding ? 2 : 0;
    out["category_name"] = finding ? "Findings" : "Uncategorized";
    out["activity_id"] = finding ? 1 : 99;
    out["activity_name"] = finding ? Json("Create") : member(record, "kind");
    out["type_uid"] = finding ? 200'401 : 99;  // class_uid * 100 + activity_id
    out["type_name"] = finding ? "Detection Finding: Create" : "Base Event: Other";
    out["severity_id"] = severity_id(level);
    out["severity"] = severities[static_cast<std::size_t>(level)];
    out["time"] = milliseconds(record, "time");
    out["metadata"] = metadata(record);
    if (finding) out["finding_info"] = finding_info(record);
    out["device"] = {{"type_id", 1}};  // server
    put(out["device"], "hostname", member(record, "host"));
    put(out["device"], "uid", member(record, "host_id"));
    if (const Json& flow = member(record, "flow"); finding && flow.is_object())
        out["evidences"] = Json::array({evidence(record, flow)});
    out["unmapped"] = finding ? unmapped_finding(record) : unmapped_other(record);
    out["message"] = text_line(record);
    return out;
}

Body fit_ocsf(const Json& record, std::size_t bytes_max) {
    return fit_document(ocsf_document(record), ocsf_droppable(), "/unmapped/cut",
                        "{\"unmapped\":{\"cut\":\"*\"}}", bytes_max);
}

}  // namespace egresswatch::records
