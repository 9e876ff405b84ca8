// agent/records/body.cpp - one readable line of each record, and the fitting of both bodies. See body.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/body.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "agent/records/ecs.h"
#include "agent/records/fit.h"

namespace egresswatch::records {
namespace {

std::string text_of(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_null()) return "none";
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Json& object, const char* name) {
    return text_of(member(object, name));
}

std::string upper(std::string text) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
}

// "203.0.113.9:443", "[2001:db8::9]:443", "203.0.113.9" where there is no port.
std::string endpoint(const Json& flow, const char* address_name, const char* port_name) {
    const std::string address = text_of(flow, address_name);
    const Json& port = member(flow, port_name);
    if (!port.is_number() || port == 0) return address;
    return (address.find(':') != std::string::npos ? "[" + address + "]:" : address + ":") + text_of(port);
}

// A sentence in parts. The last parts go first when it must be shorter; the first one stays.
using Parts = std::vector<std::string>;

std::string first_of(const Json& object, std::initializer_list<const char*> names) {
    for (const char* name : names)
        if (const Json& value = member(object, name); value.is_string() && !value.empty())
            return value.get<std::string>();
    return {};
}

// ", by /usr/bin/rclone (pid 4711, user backup, nightly.service)", or why nobody can be named.
void add_sender(const Json& record, Parts& parts) {
    const Json& process = member(record, "process");
    const Json& word = member(member(record, "sender"), "known");
    const std::string known = word.is_string() ? word.get<std::string>() : std::string();
    if (!process.is_object()) {
        if (known.empty() || known == "unseen") return;
        const Json& origin = member(member(record, "sender"), "came_by");
        const std::string place = first_of(origin, {"container", "pod", "unit", "cgroup", "interface"});
        parts.push_back(", sender not known: " + known + (place.empty() ? "" : ", from " + place));
        return;
    }
    const std::string program = first_of(process, {"executable", "command"});
    std::string text =
        ", by " + (program.empty() ? "a process" : program) + " (pid " + text_of(process, "pid");
    if (const std::string user = first_of(process, {"user"}); !user.empty()) text += ", user " + user;
    if (const std::string place = first_of(process, {"container", "inner_unit", "unit"}); !place.empty())
        text += ", " + place;
    parts.push_back(text + ")");
}

// "HIGH bulk-to-outside: "; of a rule that is on trial it says so.
std::string finding_head(const Json& record) {
    return upper(text_of(record, "level")) + (member(record, "test") == true ? " (test) " : " ") +
           text_of(member(record, "rule"), "id") + ": ";
}

Parts finding_parts(const Json& record) {
    const Json& rule = member(record, "rule");
    const Json& flow = member(record, "flow");
    // A finding of the daemon about itself (agent/daemon/internal_finding.h) or of an allow entry has a
    // message that says it.
    if (flow.is_null() || member(record, "message").is_string()) {
        Parts parts{finding_head(record) + text_of(rule, "title"), ": " + text_of(record, "message")};
        if (flow.is_object()) add_sender(record, parts);
        return parts;
    }
    const Json& decision = member(record, "decision");
    const std::string country = text_of(flow, "country");
    Parts parts;
    parts.push_back(finding_head(record) + text_of(record, "measure") + " " + text_of(record, "value") +
                    " to " + country + " " + endpoint(flow, "remote", "remote_port"));
    parts.push_back(" " + text_of(flow, "transport") + " from " + endpoint(flow, "local", "local_port"));
    if (const Json& name = member(flow, "name"); name.is_string())
        parts.push_back(", name " + text_of(name) + " by " + text_of(flow, "name_source"));
    parts.push_back(", " + (text_of(decision, "verdict") == "allowed"
                                ? "allowed by " + text_of(decision, "allow_id")
                                : std::string("not allowed")));
    const std::string initiator = text_of(flow, "initiator");
    parts.push_back(", " + initiator + " end initiated");
    add_sender(record, parts);
    parts.push_back(" (" + text_of(rule, "title") + ")");
    parts.push_back(", limit " + text_of(record, "threshold") + " in " + text_of(record, "window_s") + " s");
    if (const Json& group = member(record, "group"); group.is_object() && !group.empty()) {
        std::string text = ", by";
        for (const auto& [name, value] : group.items()) text += " " + name + "=" + text_of(value);
        parts.push_back(text + ", " + text_of(record, "flows_in_window") + " updates");
    }
    if (text_of(flow, "tunnel") != "none")
        parts.push_back(", in " + text_of(flow, "tunnel") + " to " + text_of(flow, "outer_remote"));
    if (const Json& suppressed = member(record, "suppressed"); suppressed.is_number() && suppressed != 0)
        parts.push_back(", " + text_of(suppressed) + " suppressed before");
    if (const Json& id = member(flow, "community_id"); id.is_string())
        parts.push_back(", community_id " + text_of(id));
    return parts;
}

Parts flow_parts(const Json& record) {
    const Json& flow = member(record, "flow");
    Parts parts;
    parts.push_back("flow " + text_of(flow, "transport") + " " + endpoint(flow, "local", "local_port") + " " +
                    endpoint(flow, "remote", "remote_port") + " " + text_of(flow, "country"));
    if (const Json& name = member(flow, "name"); name.is_string())
        parts.push_back(" " + text_of(name) + " by " + text_of(flow, "name_source"));
    parts.push_back(" out " + text_of(flow, "bytes_out") + " bytes in " + text_of(flow, "bytes_in") +
                    " bytes");
    parts.push_back(", " + text_of(flow, "initiator") + " end initiated");
    add_sender(record, parts);
    if (const Json& id = member(flow, "community_id"); id.is_string())
        parts.push_back(", community_id " + text_of(id));
    return parts;
}

Parts policy_parts(const Json& record) {
    Parts parts;
    parts.push_back("policy " + text_of(record, "event") + ": " + text_of(record, "name") + " revision " +
                    text_of(record, "revision"));
    parts.push_back(", " + text_of(record, "rules") + " rules, " + text_of(record, "allows") +
                    " allow entries");
    const Json& problems = member(record, "problems");
    if (problems.is_array())
        for (const auto& problem : problems) parts.push_back("; " + text_of(problem));
    parts.push_back(", SHA-256 " + text_of(record, "content_hash"));
    return parts;
}

Parts gap_parts(const Json& record) {
    Parts parts;
    parts.push_back("gap (" + text_of(record, "reason") + "): " + text_of(record, "records") + " records");
    if (member(record, "first_seq").is_number())
        parts.push_back(", numbers " + text_of(record, "first_seq") + " to " + text_of(record, "last_seq"));
    if (member(record, "from").is_string())
        parts.push_back(", from " + text_of(record, "from") + " to " + text_of(record, "to"));
    if (const Json& outputs = member(record, "outputs"); outputs.is_array() && !outputs.empty()) {
        std::string text = ", not delivered to";
        for (const auto& output : outputs) text += " " + text_of(output);
        parts.push_back(text);
    }
    if (text_of(record, "detail") != "") parts.push_back("; " + text_of(record, "detail"));
    return parts;
}

Parts recovery_parts(const Json& record) {
    Parts parts;
    parts.push_back("recovery: the last run ended without a clean stop, " + text_of(record, "cut_bytes") +
                    " bytes of a torn record cut from " + text_of(record, "segment") + " at " +
                    text_of(record, "cut_at"));
    if (member(record, "lost_first_seq").is_number())
        parts.push_back(", numbers " + text_of(record, "lost_first_seq") + " to " +
                        text_of(record, "lost_last_seq") + " are not in the journal");
    return parts;
}

Parts parts_of(const Json& record) {
    const std::string kind = text_of(record, "kind");
    if (kind == "finding") return finding_parts(record);
    if (kind == "flow") return flow_parts(record);
    if (kind == "policy") return policy_parts(record);
    if (kind == "gap") return gap_parts(record);
    if (kind == "recovery") return recovery_parts(record);
    if (kind == "coverage")
        return {"coverage from " + text_of(record, "from") + " to " + text_of(record, "to"),
                ", " + text_of(record, "findings") + " findings"};
    // The note first and whole: an anchor is worth nothing without its signature.
    if (kind == "checkpoint" || kind == "key") return {kind + ": " + text_of(record, "note")};
    if (kind == "heartbeat")
        return {"heartbeat: up for " + text_of(record, "uptime_s") + " s",
                ", " + text_of(record, "findings") + " findings",
                ", journal at " + text_of(record, "journal_seq")};
    if (kind == "summary")
        return {"rate limit: " + text_of(record, "records") + " records not sent here, numbers " +
                    text_of(record, "first_seq") + " to " + text_of(record, "last_seq") + " of the journal",
                "; by level " + text_of(record, "levels"), "; by rule " + text_of(record, "rules")};
    if (kind == "genesis") return {"journal begun by egresswatch " + text_of(record, "version")};
    if (kind == "stop") return {"stopped: " + text_of(record, "reason")};
    return {kind};
}

// No control character reaches a terminal or a line-framed stream.
std::string printable(const std::string& text) {
    std::string out;
    static constexpr char hex[] = "0123456789abcdef";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte != 0x7F) {
            out += c;
            continue;
        }
        out += "\\x";
        out += hex[byte >> 4];
        out += hex[byte & 15];
    }
    return out;
}

}  // namespace

std::string valid_utf8(const std::string& text) {
    if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return text;
    // The JSON library replaces what is not UTF-8 while it writes; reading its answer gives the cleaned text.
    return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

std::string cut_utf8(std::string text, std::size_t bytes_max) {
    if (text.size() <= bytes_max) return text;
    while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0) == 0x80) --bytes_max;
    text.resize(bytes_max);
    return text;
}

std::string text_line(const Json& record) {
    std::string out;
    for (const auto& part : parts_of(record)) out += part;
    return printable(valid_utf8(out));
}

namespace {

Body fit_text(const Json& record, std::size_t bytes_max) {
    static constexpr std::string_view mark = " [cut]";
    Parts parts = parts_of(record);
    for (auto& part : parts) part = printable(valid_utf8(part));
    std::size_t bytes = 0;
    for (const auto& part : parts) bytes += part.size();
    Body body;
    while (bytes + (body.dropped != 0 ? mark.size() : 0) > bytes_max && parts.size() > 1) {
        bytes -= parts.back().size();
        parts.pop_back();
        ++body.dropped;
    }
    for (const auto& part : parts) body.text += part;
    if (bytes + (body.dropped != 0 ? mark.size() : 0) > bytes_max) {
        body.text = cut_utf8(std::move(body.text), bytes_max > mark.size() ? bytes_max - mark.size() : 0);
        body.cut = true;
    }
    if ((body.cut || body.dropped != 0) && body.text.size() + mark.size() <= bytes_max) body.text += mark;
    return body;
}

}  // namespace

Body fit_body(BodyKind kind, const Json& record, std::size_t bytes_max, unsigned time_digits) {
    switch (kind) {
        case BodyKind::ecs:
            return fit_ecs(record, bytes_max, time_digits);
        case BodyKind::text:
            return fit_text(record, bytes_max);
        case BodyKind::cef:
            return fit_cef(record, bytes_max);
        case BodyKind::leef:
            return fit_leef(record, bytes_max);
        case BodyKind::ocsf:
            return fit_ocsf(record, bytes_max);
    }
    return {};
}

}  // namespace egresswatch::records
