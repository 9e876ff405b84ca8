// agent/records/key_value.cpp - CEF:0 and LEEF 2.0: a header between bars and pairs of keys and values.
// SPDX-License-Identifier: Apache-2.0
//
// CEF:  ArcSight Common Event Format, implementation standard of 2019, version 0. Escapes: `\` and `|` in the
// header,
//       `\` and `=` in values. Custom strings and numbers carry their meaning in a label.
// LEEF: QRadar Log Event Extended Format 2.0 with `^` as the delimiter: receivers rewrite tabs. It has no
// escape,
//       so a `^` in a value becomes `_`.
// Both: the pairs at the end go first when it must be shorter; docs/siem.md has the order, a test compares.
#include <chrono>

#include "agent/records/ecs.h"
#include "agent/records/fit.h"

namespace egresswatch::records {
namespace {

struct Pair {
    std::string cef;    // key; empty: not in CEF
    std::string label;  // of a custom CEF key
    std::string leef;   // key; empty: not in LEEF
    std::string value;
};

std::string plain(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    return value.is_null() ? std::string{} : value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

class Pairs {
public:
    void add(const char* cef, const char* label, const char* leef, const Json& value) {
        std::string text = valid_utf8(plain(value));
        if (!text.empty()) list.push_back({cef, label, leef, std::move(text)});
    }
    std::vector<Pair> list;
};

Json milliseconds(const Json& record, const char* name) {
    const auto time = parse_time(text_member(record, name));
    if (!time) return nullptr;
    return std::chrono::duration_cast<std::chrono::milliseconds>(time->time_since_epoch()).count();
}

Json port(const Json& flow, const char* name) {
    const Json& value = member(flow, name);
    return value == 0 ? Json(nullptr) : value;
}

void add_address(Pairs& pairs, const Json& address, bool source) {
    // CEF's src and dst are IPv4 addresses.
    if (plain(address).find(':') != std::string::npos)
        pairs.add(source ? "c6a2" : "c6a3", source ? "Source IPv6 Address" : "Destination IPv6 Address",
                  source ? "src" : "dst", address);
    else
        pairs.add(source ? "src" : "dst", "", source ? "src" : "dst", address);
}

void add_flow(Pairs& pairs, const Json& record, const Json& flow) {
    const bool remote_first = text_member(flow, "initiator") == "remote";
    const char* source = remote_first ? "remote" : "local";
    const char* destination = remote_first ? "local" : "remote";
    add_address(pairs, member(flow, source), true);
    add_address(pairs, member(flow, destination), false);
    pairs.add("spt", "", "srcPort", port(flow, remote_first ? "remote_port" : "local_port"));
    pairs.add("dpt", "", "dstPort", port(flow, remote_first ? "local_port" : "remote_port"));
    pairs.add("proto", "", "proto", member(flow, "transport"));
    pairs.add("cs1", "country", "country", member(flow, "country"));
    pairs.add("cs2", "verdict", "verdict", member(member(record, "decision"), "verdict"));
    pairs.add("cn1", "bytesOut", "bytesOut", member(flow, "bytes_out"));
    pairs.add("cs3", "initiator", "initiator", member(flow, "initiator"));
    // CEF: "in" flows from source to destination.
    pairs.add("in", "", "srcBytes", member(flow, remote_first ? "bytes_in" : "bytes_out"));
    pairs.add("out", "", "dstBytes", member(flow, remote_first ? "bytes_out" : "bytes_in"));
    pairs.add("deviceDirection", "", "", remote_first ? 0 : 1);
}

// Who sends, and by which name: CEF has places for them at either end.
void add_names_and_sender(Pairs& pairs, const Json& record, const Json& flow) {
    const bool remote_first = text_member(flow, "initiator") == "remote";
    const Json& process = member(record, "process");
    const Json& executable = member(process, "executable");
    pairs.add(remote_first ? "shost" : "dhost", "", "name", member(flow, "name"));
    pairs.add("app", "", "app", member(flow, "app"));
    pairs.add("flexNumber1", "nameUnread", "nameUnread",
              flow.contains("name_unread") ? Json(1) : Json(nullptr));
    pairs.add(remote_first ? "dproc" : "sproc", "", "process",
              executable.is_string() ? executable : member(process, "command"));
    pairs.add(remote_first ? "dpid" : "spid", "", "pid", member(process, "pid"));
    pairs.add(remote_first ? "duser" : "suser", "", "usrName", member(process, "user"));
    pairs.add("fileHash", "", "sha256", member(process, "sha256"));
    const Json& unit = member(process, "inner_unit");
    pairs.add("sourceServiceName", "", "unit", unit.is_string() ? unit : member(process, "unit"));
    const Json& container = member(process, "container");
    pairs.add(
        "flexString1", "container", "container",
        container.is_string() ? container : member(member(member(record, "sender"), "came_by"), "container"));
    const Json& known = member(member(record, "sender"), "known");
    if (known.is_string() && known != "unseen") pairs.add("flexString2", "sender", "sender", known);
}

// The most important first.
Pairs pairs_of(const Json& record) {
    Pairs pairs;
    const Json& flow = member(record, "flow");
    pairs.add("externalId", "", "eventId", event_id(record));
    pairs.add("rt", "", "devTime", milliseconds(record, "time"));
    pairs.add("dvchost", "", "identHostName", member(record, "host"));
    pairs.add("cat", "", "cat", member(record, "kind"));
    // A tree's head must reach the SIEM whatever else is cut.
    pairs.add("cs4", "note", "note", member(record, "note"));
    if (flow.is_object()) {
        add_flow(pairs, record, flow);
        add_names_and_sender(pairs, record, flow);
    }
    pairs.add("cn2", "value", "value", member(record, "value"));
    pairs.add("cn3", "threshold", "threshold", member(record, "threshold"));
    pairs.add("cs4", "allowId", "allowId", member(member(record, "decision"), "allow_id"));
    pairs.add("start", "", "", milliseconds(record, "window_start"));
    pairs.add("end", "", "", milliseconds(record, "window_end"));
    pairs.add("cnt", "", "updates", member(record, "flows_in_window"));
    pairs.add("act", "", "action", member(record, "event"));
    if (const Json& group = member(record, "group"); group.is_object() && !group.empty())
        pairs.add("cs5", "group", "group", group);
    if (text_member(flow, "tunnel") != "none") pairs.add("cs6", "tunnel", "tunnel", member(flow, "tunnel"));
    pairs.add("", "", "policy", member(member(record, "policy"), "name"));
    pairs.add("", "", "site", member(record, "site"));
    pairs.add("reason", "", "reason",
              text_member(member(record, "decision"), "reason").empty()
                  ? member(record, "reason")
                  : member(member(record, "decision"), "reason"));
    pairs.add("msg", "", "msg", text_line(record));
    return pairs;
}

// Every character of `escaped` behind a backslash; a line feed becomes `line_feed`, other control characters
// a space.
std::string escape(const std::string& text, std::string_view escaped, const char* line_feed) {
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\n') {
            out += line_feed;
            continue;
        }
        if (escaped.find(c) != std::string_view::npos) out += '\\';
        out += byte < 0x20 || byte == 0x7F ? ' ' : c;
    }
    return out;
}

std::string cef_header(const std::string& text) {
    return escape(text, "\\|", " ");
}

std::string leef_field(const std::string& text, std::string_view forbidden) {
    std::string out = escape(text, "", "\\n");
    for (char& c : out)
        if (forbidden.find(c) != std::string_view::npos) c = '_';
    return out;
}

std::string cef_pair(const Pair& pair) {
    std::string out = " " + pair.cef + "=" + escape(pair.value, "\\=", "\\n");
    if (!pair.label.empty()) out += " " + pair.cef + "Label=" + pair.label;
    return out;
}

std::string leef_pair(const Pair& pair) {
    return pair.leef + "=" + leef_field(pair.value, "^") + "^";
}

// 0 to 10, the words of both formats: 0-3 low, 4-6 medium, 7-8 high, 9-10 very high.
int severity(Level level) {
    static constexpr int numbers[] = {1, 3, 5, 8, 10};
    return numbers[static_cast<std::size_t>(level)];
}

constexpr std::size_t header_field_max = 256;  // of rule and title, before escaping

std::string short_field(const std::string& text) {
    return cut_utf8(valid_utf8(text), header_field_max);
}

template <typename Render>
Body fit_pairs(const std::string& head, const std::vector<Pair>& pairs, std::string_view mark, Render render,
               std::size_t bytes_max) {
    std::vector<std::string> parts;
    std::size_t bytes = head.size();
    for (const auto& pair : pairs) {
        parts.push_back(render(pair));
        bytes += parts.back().size();
    }
    Body body;
    const auto mark_text = [&] {
        return body.dropped == 0
                   ? std::string{}
                   : render({std::string(mark), "", std::string(mark), std::to_string(body.dropped)});
    };
    while (!parts.empty() && bytes + mark_text().size() > bytes_max) {
        bytes -= parts.back().size();
        parts.pop_back();
        ++body.dropped;
    }
    body.text = head;
    for (const auto& part : parts) body.text += part;
    body.text += mark_text();
    body.cut = body.text.size() > bytes_max;
    if (body.cut) body.text.clear();
    return body;
}

}  // namespace

Body fit_cef(const Json& record, std::size_t bytes_max) {
    const std::string title = text_member(member(record, "rule"), "title");
    const std::string head = "CEF:0|egresswatch|egresswatch|" + cef_header(text_member(record, "version")) +
                             "|" + cef_header(short_field(rule_or_kind(record))) + "|" +
                             cef_header(short_field(title.empty() ? text_member(record, "kind") : title)) +
                             "|" + std::to_string(severity(level_of(record))) + "|";
    Pairs pairs = pairs_of(record);
    std::erase_if(pairs.list, [](const Pair& pair) { return pair.cef.empty(); });
    bool first = true;  // nothing stands between the last bar and the first key
    const auto render = [&first](const Pair& pair) {
        std::string text = cef_pair(pair);
        return std::exchange(first, false) ? text.substr(1) : text;
    };
    return fit_pairs(head, pairs.list, "egresswatchCut", render, bytes_max);
}

Body fit_leef(const Json& record, std::size_t bytes_max) {
    const auto field = [](const std::string& text) { return leef_field(text, "^|"); };
    const std::string head = "LEEF:2.0|egresswatch|egresswatch|" + field(text_member(record, "version")) +
                             "|" + field(short_field(rule_or_kind(record))) +
                             "|^|sev=" + std::to_string(severity(level_of(record))) + "^";
    Pairs pairs = pairs_of(record);
    std::erase_if(pairs.list, [](const Pair& pair) { return pair.leef.empty(); });
    // One byte more: the last delimiter goes.
    const std::size_t room = bytes_max == body_unlimited ? bytes_max : bytes_max + 1;
    Body body = fit_pairs(head, pairs.list, "cut", leef_pair, room);
    if (!body.text.empty()) body.text.pop_back();  // a delimiter stands between pairs only
    return body;
}

}  // namespace egresswatch::records
