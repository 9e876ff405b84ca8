// agent/records/ecs.cpp - a journal record as an Elastic Common Schema 8 document; docs/siem.md is the field
// table. SPDX-License-Identifier: Apache-2.0
//
// source/destination: ECS wants the initiator as source. The remote end is the destination of a connection
// that we opened and the source of one that it opened; `egresswatch.bytes_out` is always what left this host.
#include "agent/records/ecs.h"

#include <algorithm>

#include "agent/records/fit.h"

namespace egresswatch::records {
namespace {

constexpr std::string_view ecs_version = "8.11.0";

std::string text(const Json& object, const char* name) {
    return text_member(object, name);
}

int severity(Level level) {  // the numbers that Elastic's detection rules use for the same words
    switch (level) {
        case Level::info:
            return 0;
        case Level::low:
            return 21;
        case Level::medium:
            return 47;
        case Level::high:
            return 73;
        case Level::critical:
            return 99;
    }
    return 0;
}

struct KindWords {
    const char* kind;
    const char* category;
    const char* type;
    const char* action;
};

KindWords words_of(const std::string& kind, const Json& record) {
    if (kind == "finding") return {"alert", "network", "connection", "egress-finding"};
    if (kind == "flow") return {"event", "network", "connection", "egress-flow"};
    if (kind == "coverage") return {"metric", "network", "info", "coverage"};
    if (kind == "policy")
        return {"event", "configuration", text(record, "event") == "rejected" ? "info" : "change", "policy"};
    if (kind == "genesis") return {"event", "process", "start", "journal-begin"};
    if (kind == "stop") return {"event", "process", "end", "stop"};
    if (kind == "heartbeat") return {"metric", "process", "info", "heartbeat"};
    if (kind == "key") return {"event", "process", "change", "key"};
    return {"event", "process", "info", kind.c_str()};  // gap, recovery, checkpoint, summary
}

Json event_field(const Json& record, const std::string& kind) {
    const KindWords words = words_of(kind, record);
    Json event;
    event["kind"] = words.kind;
    event["category"] =
        kind == "finding" ? Json{words.category, "intrusion_detection"} : Json::array({words.category});
    event["type"] = Json::array({words.type});
    event["action"] = words.action;
    event["id"] = event_id(record);
    put(event, "sequence", member(record, "seq"));
    event["severity"] = severity(level_of(record));
    event["module"] = "egresswatch";
    event["dataset"] = "egresswatch." + kind;
    put(event, "created", member(record, "written"));
    if (kind == "finding") {
        event["code"] = text(member(record, "rule"), "id");
        put(event, "start", member(record, "window_start"));
        put(event, "end", member(record, "window_end"));
        put(event, "reason", member(member(record, "decision"), "reason"));
    } else if (kind == "flow") {
        put(event, "start", member(member(record, "flow"), "first_seen"));
        put(event, "end", member(member(record, "flow"), "last_seen"));
    } else if (kind == "coverage") {
        put(event, "start", member(record, "from"));
        put(event, "end", member(record, "to"));
    } else if (kind == "policy") {
        event["outcome"] = text(record, "event") == "rejected" ? "failure" : "success";
    }
    return event;
}

Json endpoint(const Json& flow, bool local_end) {
    Json out;
    out["ip"] = member(flow, local_end ? "local" : "remote");
    const Json& port = member(flow, local_end ? "local_port" : "remote_port");
    if (port.is_number() && port != 0) out["port"] = port;
    put(out, "bytes", member(flow, local_end ? "bytes_out" : "bytes_in"));
    put(out, "packets", member(flow, local_end ? "packets_out" : "packets_in"));
    if (!local_end) put(out, "domain", member(flow, "name"));
    const std::string country = text(flow, "country");
    if (!local_end && country.size() == 2)
        out["geo"]["country_iso_code"] = country;  // "unknown" is no country
    return out;
}

std::uint64_t sum(const Json& flow, const char* a, const char* b) {
    const Json& x = member(flow, a);
    const Json& y = member(flow, b);
    return (x.is_number() ? x.get<std::uint64_t>() : 0) + (y.is_number() ? y.get<std::uint64_t>() : 0);
}

void add_flow(Json& document, const Json& flow) {
    const bool remote_initiated = text(flow, "initiator") == "remote";
    document["source"] = endpoint(flow, !remote_initiated);
    document["destination"] = endpoint(flow, remote_initiated);
    Json network;
    network["bytes"] = sum(flow, "bytes_out", "bytes_in");
    network["packets"] = sum(flow, "packets_out", "packets_in");
    network["transport"] = member(flow, "transport");
    network["direction"] = remote_initiated ? "ingress" : "egress";
    network["type"] = text(flow, "remote").find(':') == std::string::npos ? "ipv4" : "ipv6";
    if (const Json& proto = member(flow, "l4_proto"); proto.is_number())
        network["iana_number"] = proto.dump();
    put(network, "community_id", member(flow, "community_id"));
    put(network, "protocol", member(flow, "app"));
    document["network"] = std::move(network);
    if (const Json& tls = member(flow, "tls"); tls.is_object()) {
        Json& out = document["tls"] = Json::object();
        put(out, "version", member(tls, "version"));
        put(out, "next_protocol", member(tls, "alpn"));
        const Json& server_name = member(tls, "server_name");
        const Json& named = text(flow, "name_source") == "sni" ? member(flow, "name") : server_name;
        if (named.is_string()) out["client"]["server_name"] = named;
    }
    if (const Json& http = member(flow, "http"); http.is_object()) {
        if (const Json& method = member(http, "method"); method.is_string())
            document["http"]["request"]["method"] = method;
        if (const Json& agent = member(http, "user_agent"); agent.is_string())
            document["user_agent"]["original"] = agent;
    }
}

// What ECS has no field for.
void add_names(Json& own, const Json& flow) {
    put(own, "name_source", member(flow, "name_source"));
    put(own, "name_contradiction", member(flow, "name_contradiction"));
    put(own, "name_unread", member(flow, "name_unread"));
    put(own, "dns_names", member(flow, "dns_names"));
    put(own, "dns_names_unlisted", member(flow, "dns_names_unlisted"));
    if (const Json& tls = member(flow, "tls"); tls.is_object()) {
        put(own, "ja4", member(tls, "ja4"));
        put(own, "hidden_name", member(tls, "hidden"));
        put(own, "certificate", member(tls, "certificate"));
    }
    put(own, "ssh", member(flow, "ssh"));
}

// Where the engine could look: whether the sender is known, or why not.
Json sender_word(const Json& record) {
    const Json& known = member(member(record, "sender"), "known");
    return known == "unseen" ? Json(nullptr) : known;
}

// The members of `process` that ECS has no place for.
Json own_process(const Json& record) {
    const Json& process = member(record, "process");
    Json own;
    for (const char* name : {"unit", "inner_unit", "cgroup", "login_uid", "session_id", "hash_problem"})
        put(own, name, member(process, name));
    put(own, "how", member(member(record, "sender"), "how"));
    if (const Json& gone = member(process, "executable_deleted"); gone.is_boolean() && gone.get<bool>())
        own["executable_deleted"] = true;
    return own;
}

// Of the sender's process, or of whoever lives where routed traffic comes from.
void add_container(Json& document, const Json& known) {
    if (!text(known, "container").empty()) {
        document["container"]["id"] = text(known, "container");
        if (!text(known, "runtime").empty()) document["container"]["runtime"] = text(known, "runtime");
    }
    if (!text(known, "pod").empty())
        document["orchestrator"] = {{"type", "kubernetes"},
                                    {"resource", {{"type", "pod"}, {"id", text(known, "pod")}}}};
}

void add_process(Json& document, const Json& record) {
    const Json& process = member(record, "process");
    if (const Json& origin = member(member(record, "sender"), "came_by"); origin.is_object())
        add_container(document, origin);
    if (!process.is_object()) return;
    Json out;
    put(out, "pid", member(process, "pid"));
    put(out, "name", member(process, "command"));
    put(out, "executable", member(process, "executable"));
    if (!text(process, "sha256").empty()) out["hash"]["sha256"] = text(process, "sha256");
    put(out, "command_line", member(process, "command_line"));
    if (const Json& parent = member(process, "parent"); parent.is_object()) {
        put(out["parent"], "pid", member(parent, "pid"));
        put(out["parent"], "name", member(parent, "command"));
    }
    document["process"] = std::move(out);
    if (const Json& uid = member(process, "uid"); uid.is_number()) document["user"]["id"] = uid.dump();
    if (!text(process, "user").empty()) document["user"]["name"] = text(process, "user");
    add_container(document, process);
}

void add_threat(Json& document, const Json& record) {
    const Techniques techniques = attack_techniques(record);
    if (techniques.ids.empty()) return;
    document["threat"]["framework"] = "MITRE ATT&CK";
    document["threat"]["technique"]["id"] = techniques.ids;
    if (!techniques.sub_ids.empty())
        document["threat"]["technique"]["subtechnique"]["id"] = techniques.sub_ids;
}

Json own_finding(const Json& record) {
    const Json& flow = member(record, "flow");
    const Json& decision = member(record, "decision");
    Json own;
    put(own, "level", member(record, "level"));
    put(own, "verdict", member(decision, "verdict"));
    put(own, "allow_id", member(decision, "allow_id"));
    put(own, "country", member(flow, "country"));
    put(own, "class", member(flow, "class"));
    put(own, "measure", member(record, "measure"));
    for (const char* name : {"value", "threshold", "window_s", "suppressed", "flows_in_window"})
        put(own, name, member(record, name));
    put(own, "group", member(record, "group"));
    put(own, "bytes_out", member(flow, "bytes_out"));
    put(own, "bytes_in", member(flow, "bytes_in"));
    put(own, "initiator", member(flow, "initiator"));
    if (text(flow, "tunnel") != "none") {
        put(own, "tunnel", member(flow, "tunnel"));
        put(own, "outer_remote", member(flow, "outer_remote"));
    }
    add_names(own, flow);
    if (const Json& lists = member(record, "lists"); lists.is_array() && !lists.empty()) own["lists"] = lists;
    put(own, "details", member(record, "details"));
    put(own, "sender", sender_word(record));
    if (member(record, "process").is_object()) own["process"] = own_process(record);
    if (const Json& kind = member(member(record, "rule"), "kind"); kind.is_string()) own["rule_kind"] = kind;
    if (record.contains("test")) own["test"] = true;
    if (record.contains("unjournaled")) own["unjournaled"] = true;
    return own;
}

// What has no place of its own in ECS stands under the record's own names.
Json own_other(const Json& record, const std::string& kind) {
    static const char* const common[] = {"seq",  "written", "time",  "kind", "host",   "host_id",
                                         "site", "version", "level", "flow", "sender", "process"};
    Json own;
    put(own, "level", member(record, "level"));
    Json rest = Json::object();
    // The note of a checkpoint says origin and root again, and has to fit into the shortest datagram.
    const bool has_note = kind == "checkpoint" || kind == "key";
    for (const auto& [name, value] : record.items())
        if (has_note && (name == "origin" || name == "root"))
            continue;
        else if (std::find(std::begin(common), std::end(common), name) == std::end(common))
            put(rest, name.c_str(), value);
    if (const Json& flow = member(record, "flow"); flow.is_object())
        for (const char* name :
             {"country", "class", "initiator", "bytes_out", "bytes_in", "tunnel", "outer_remote"})
            put(rest, name, member(flow, name));
    if (const Json& flow = member(record, "flow"); flow.is_object()) add_names(rest, flow);
    if (kind == "flow") put(rest, "sender", sender_word(record));
    if (member(record, "process").is_object()) rest["process"] = own_process(record);
    own[kind] = std::move(rest);
    return own;
}

}  // namespace

Json ecs_document(const Json& record) {
    const std::string kind = text(record, "kind");
    Json document;
    document["@timestamp"] = member(record, "time");
    document["ecs"]["version"] = ecs_version;
    document["event"] = event_field(record, kind);
    if (kind == "finding") {
        const Json& rule = member(record, "rule");
        put(document["rule"], "id", member(rule, "id"));
        put(document["rule"], "name", member(rule, "title"));
        if (const Json& revision = member(rule, "revision"); revision.is_number())
            document["rule"]["version"] = revision.dump();
        put(document["rule"], "ruleset", member(member(record, "policy"), "name"));
    }
    if (const Json& flow = member(record, "flow"); flow.is_object()) add_flow(document, flow);
    add_process(document, record);
    document["egresswatch"] = kind == "finding" ? own_finding(record) : own_other(record, kind);
    put(document["host"], "name", member(record, "host"));
    put(document["host"], "id", member(record, "host_id"));
    Json observer;
    observer["vendor"] = "egresswatch";
    observer["type"] = "sensor";
    put(observer, "version", member(record, "version"));
    put(observer, "hostname", member(record, "host"));
    if (!text(record, "site").empty()) observer["geo"]["name"] = text(record, "site");
    document["observer"] = std::move(observer);
    if (kind == "finding") {
        const Json& tags = member(member(record, "rule"), "tags");
        add_threat(document, record);
        if (tags.is_array() && !tags.empty()) document["tags"] = tags;
    }
    document["message"] = text_line(record);
    return document;
}

const std::vector<std::string>& ecs_droppable() {
    static const std::vector<std::string> order{
        "/message",
        "/tags",
        "/egresswatch/coverage/interfaces",
        "/egresswatch/coverage/classes",
        "/egresswatch/coverage/losses",
        "/egresswatch/policy/problems",
        "/observer",
        "/host/id",
        "/process/parent",
        "/egresswatch/process",
        "/event/module",
        "/event/dataset",
        "/event/created",
        "/user_agent",
        "/http",
        "/egresswatch/ssh",
        "/egresswatch/dns_names_unlisted",
        "/egresswatch/dns_names",
        "/egresswatch/certificate",
        "/egresswatch/hidden_name",
        "/tls",
        "/network/type",
        "/network/iana_number",
        "/source/packets",
        "/destination/packets",
        "/network/packets",
        "/event/reason",
        "/event/start",
        "/event/end",
        "/event/action",
        "/event/code",
        "/rule/ruleset",
        "/rule/version",
        "/process/command_line",
        "/orchestrator",
        "/egresswatch/lists",
        "/egresswatch/details",
        "/egresswatch/rule_kind",
        "/egresswatch/class",
        "/egresswatch/flows_in_window",
        "/egresswatch/suppressed",
        "/egresswatch/group",
        "/threat",
        "/rule/name",
        "/egresswatch/ja4",
        "/network/protocol",
        "/egresswatch/tunnel",
        "/egresswatch/outer_remote",
        "/egresswatch/window_s",
        "/egresswatch/threshold",
        "/egresswatch/bytes_in",
        "/network/direction",
        "/source/bytes",
        "/destination/bytes",
        "/event/category",
        "/event/type",
        "/ecs",
        "/egresswatch/coverage",
        "/egresswatch/policy",
        "/egresswatch/flow",
        "/egresswatch/gap",
        "/egresswatch/recovery",
        "/egresswatch/heartbeat",
        "/egresswatch/summary",
        "/network/bytes",
        "/network/transport",
        "/container",
        "/user",
        "/process",
        "/egresswatch/sender",
        "/host",
        "/egresswatch/name_source",
        "/egresswatch/name_contradiction",
        "/egresswatch/name_unread",
        "/egresswatch/measure",
        "/egresswatch/initiator",
        "/egresswatch/allow_id",
        "/network",
        "/source",
    };
    return order;
}

Body fit_ecs(const Json& record, std::size_t bytes_max, unsigned time_digits) {
    Json document = ecs_document(record);
    if (time_digits < 9) {  // of the nine that a record has
        for (const char* pointer : {"/@timestamp", "/event/created", "/event/start", "/event/end"}) {
            const Json::json_pointer at(pointer);
            if (document.contains(at) && document[at].is_string())
                document[at] = shorter_time(document[at].get<std::string>(), time_digits);
        }
    }
    return fit_document(std::move(document), ecs_droppable(), "/egresswatch/cut",
                        "{\"egresswatch\":{\"cut\":\"*\"}}", bytes_max);
}

}  // namespace egresswatch::records
