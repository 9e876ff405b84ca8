// agent/cli/status_table.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/status_table.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

namespace egresswatch::cli {

namespace {

using Json = nlohmann::json;
using Row = std::vector<std::string>;

const Json& member(const Json& object, const char* name) {
    static const Json nothing;
    if (!object.is_object()) return nothing;
    const auto found = object.find(name);
    return found == object.end() ? nothing : *found;
}

std::string text(const Json& value) {
    std::string out;
    if (value.is_string())
        out = value.get<std::string>();
    else if (value.is_null())
        out = "-";
    else
        out = value.dump();
    for (char& c : out)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return out;
}

std::string text(const Json& object, const char* name) {
    return text(member(object, name));
}

std::uint64_t number(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::string bytes(std::uint64_t count) {
    static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    auto value = static_cast<double>(count);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(units)) {
        value /= 1024;
        unit++;
    }
    char out[32];
    std::snprintf(out, sizeof out, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

std::string bytes(const Json& object, const char* name) {
    return bytes(number(object, name));
}

// Columns as wide as they need to be; those that hold figures (all but the first `left`) to the right.
std::string table(const std::vector<Row>& rows, std::size_t left) {
    std::vector<std::size_t> widths;
    for (const Row& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string out;
    for (const Row& row : rows) {
        std::string line = "  ";
        for (std::size_t i = 0; i < row.size(); i++) {
            const std::string padding(widths[i] - row[i].size(), ' ');
            line += i < left ? row[i] + padding : padding + row[i];
            line += "  ";
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    }
    return out;
}

std::string traffic(const Json& direction, const char* name) {
    const Json& counted = member(direction, name);
    return text(counted, "packets") + " / " + bytes(counted, "bytes");
}

std::string drop_remark(const Json& interface) {
    const Json& dropped = member(interface, "dropped");
    const std::uint64_t buffer = number(dropped, "buffer"), device = number(dropped, "device"),
                        memory = number(dropped, "memory");
    if (buffer + device + memory == 0) return "";
    return "  LOST BEFORE COUNTED: " + text(interface, "name") + ": " + std::to_string(buffer) +
           " packets found the buffer full, " + std::to_string(device) + " were dropped by the device, " +
           std::to_string(memory) + " found no memory\n";
}

std::string unsegmented_remark(const Json& interface) {
    const Json& counted = member(interface, "unsegmented");
    if (number(counted, "packets") == 0) return "";
    return "  counted once, longer than the MTU: " + text(interface, "name") + ": " +
           traffic(interface, "unsegmented") + "\n";
}

std::string interfaces(const Json& status) {
    std::vector<Row> rows{{"INTERFACE", "HOOK", "WAY", "SEEN", "OUTSIDE", "UNKNOWN", "HOME", "LOCAL",
                           "NOT IP", "MALFORMED", "RESIDUAL"}};
    std::string blind, remarks;
    for (const Json& interface : member(status, "interfaces")) {
        if (member(interface, "hooked") != true) {
            blind +=
                "  NOT WATCHED: " + text(interface, "name") + ": " + text(interface, "why_not_hooked") + "\n";
            continue;
        }
        for (const char* way : {"out", "in"}) {
            const Json& direction = member(interface, way);
            const bool out = std::string_view(way) == "out";
            Row row{out ? text(interface, "name") : "", out ? text(interface, "hook") : "", way};
            for (const char* name : {"seen", "outside", "unknown", "home", "local", "not_ip"})
                row.push_back(traffic(direction, name));
            row.push_back(std::to_string(number(member(direction, "malformed"), "packets") +
                                         number(member(direction, "truncated"), "packets")));
            const Json& conservation = member(interface, "conservation");
            row.push_back(out && member(conservation, "compared") == true
                              ? text(conservation, "residual_bytes") + " B" +
                                    (member(conservation, "bypass_suspected") == true ? " !" : "")
                              : "");
            rows.push_back(std::move(row));
        }
        remarks += drop_remark(interface) + unsegmented_remark(interface);
    }
    return "Interfaces (packets / bytes on the wire)\n" + table(rows, 3) + remarks + blind;
}

std::string classes(const Json& status) {
    std::vector<Row> rows{{"CLASS", "COUNTRY", "PACKETS OUT", "BYTES OUT", "PACKETS IN", "BYTES IN"}};
    std::vector<Json> sorted(member(status, "classes").begin(), member(status, "classes").end());
    std::ranges::stable_sort(sorted, std::greater<>{},
                             [](const Json& entry) { return number(member(entry, "out"), "ip_bytes"); });
    for (const Json& entry : sorted) {
        const Json& out = member(entry, "out");
        const Json& in = member(entry, "in");
        rows.push_back({text(entry, "class"), text(entry, "country"), text(out, "packets"),
                        bytes(out, "ip_bytes"), text(in, "packets"), bytes(in, "ip_bytes")});
    }
    return "Traffic by country of the remote end (IP bytes)\n" + table(rows, 2);
}

std::string losses(const Json& status) {
    const Json& flows = member(status, "flows");
    std::string out =
        "Flows  " + text(flows, "live") + " of " + text(flows, "slots") + " slots in use\nLosses ";
    bool any = false;
    for (const auto& [name, count] : member(status, "losses").items()) {
        if (count == 0) continue;
        out += " " + name + " " + text(count);
        any = true;
    }
    return out + (any ? "\n" : " none\n");
}

std::string policy(const Json& status) {
    const Json& policy = member(status, "policy");
    std::string out = "Policy " + text(policy, "name") + " revision " + text(policy, "revision") + ", " +
                      text(policy, "content_hash").substr(0, 12) + ", in force since " +
                      text(policy, "since") + ", " + text(policy, "rules") + " rules, " +
                      text(policy, "allows") + " allow entries\n";
    for (const Json& warning : member(policy, "warnings")) out += "  warning: " + text(warning) + "\n";
    const Json& broken = member(policy, "broken");
    if (broken.is_object()) {
        out += "  BROKEN on disk since " + text(broken, "since") + ", the above stays in force:\n";
        for (const Json& problem : member(broken, "problems")) out += "    " + text(problem) + "\n";
    }
    const std::string watch = text(policy, "watch");
    if (watch != "-" && watch != "watching" && watch != "off")
        out += "  changes on disk are not seen: " + watch + "\n";
    const Json& reload = member(policy, "last_reload");
    if (reload.is_object() && member(reload, "ok") == false && !broken.is_object()) {
        out += "  RELOAD REJECTED at " + text(reload, "time") + " (" + text(reload, "trigger") +
               "), the above stays in force:\n";
        for (const Json& problem : member(reload, "problems")) out += "    " + text(problem) + "\n";
    }
    const Json& geo = member(status, "geo");
    out += "Geo    " + text(geo, "file") + ", " + text(geo, "content_hash").substr(0, 12);
    for (const Json& source : member(geo, "sources"))
        out += ", " + text(source, "name") + " " + text(source, "date");
    return out + "\n";
}

// Each entry for which `line` says something; of many the first ones only.
template <typename Line>
std::string some_of(const Json& entries, Line line) {
    constexpr std::size_t lines_max = 20;
    std::string out;
    std::size_t told = 0;
    for (const Json& entry : entries) {
        const std::string said = line(entry);
        if (!said.empty() && ++told <= lines_max) out += "  " + said + "\n";
    }
    if (told > lines_max) out += "  and " + std::to_string(told - lines_max) + " more: --json has them all\n";
    return out;
}

std::string evaluation(const Json& status) {
    const Json& evaluation = member(status, "evaluation");
    std::string out = "Rules  " + text(evaluation, "findings") + " findings, " +
                      text(evaluation, "suppressed") + " suppressed, " +
                      text(evaluation, "window_evictions") + " windows evicted\n";
    out += some_of(member(evaluation, "rules"), [](const Json& rule) {
        if (member(rule, "active") == false)
            return "rule " + text(rule, "id") + " counts nothing: no AS data are loaded";
        if (member(rule, "evicted") == 0 || text(rule, "evicted") == "-") return std::string();
        return "rule " + text(rule, "id") + ": " + text(rule, "evicted") + " groups evicted at " +
               text(rule, "groups_max") + ": their sums are too small; group it coarser or narrow `when`";
    });
    const Json& allows = member(evaluation, "allows");
    if (!allows.is_array() || allows.empty()) return out;
    out += "Allow  " + std::to_string(allows.size()) + " entries\n";
    return out + some_of(allows, [](const Json& entry) {
               const std::string name = text(entry, "id") + " (" + text(entry, "owner") + ")";
               const Json& ceiling = member(entry, "ceiling_bytes");
               const Json& used = member(entry, "used_bytes");
               if (ceiling.is_number() && ceiling > 0 && used.is_number() && used > ceiling)
                   return name + " is over its ceiling, " + bytes(entry, "used_bytes") + " of " +
                          bytes(entry, "ceiling_bytes") + ": it allows nothing";
               if (member(entry, "unused") != true) return std::string();
               const bool ever = member(entry, "last_match").is_string();
               return name + " has covered nothing since " + text(entry, ever ? "last_match" : "since") +
                      ": ask whether it is still needed";
           });
}

std::string journal_and_outputs(const Json& status) {
    const Json& journal = member(status, "journal");
    std::string out = "Journal " + text(journal, "state") + ", record " + text(journal, "last_seq") + ", " +
                      bytes(journal, "bytes") + " in " + text(journal, "segments") + " segments, " +
                      text(journal, "unjournaled") + " unjournaled\n";
    if (!text(journal, "last_error").empty()) out += "  " + text(journal, "last_error") + "\n";
    const Json& evidence = member(status, "evidence");
    out += "Evidence " + text(evidence, "state") + ", " + text(evidence, "size") + " records, signed " +
           text(evidence, "signed_size") + " at " + text(evidence, "signed_at") + " by key " +
           text(evidence, "generation") + ", root " + text(evidence, "signed_root") + "\n";
    if (!text(evidence, "last_error").empty()) out += "  " + text(evidence, "last_error") + "\n";
    std::vector<Row> rows{{"OUTPUT", "DESTINATION", "STATE", "LAST ERROR", "SENT", "LAG"}};
    for (const Json& output : member(status, "outputs"))
        rows.push_back({text(output, "name"), text(output, "transport") + " " + text(output, "destination"),
                        text(output, "state"), text(output, "last_error"), text(output, "sent"),
                        text(output, "lag_records")});
    return out + (rows.size() > 1 ? "Outputs\n" + table(rows, 4) : "Outputs none configured\n");
}

std::string privileges(const Json& status) {
    const Json& privileges = member(status, "privileges");
    std::string out = "Runs as uid " + text(privileges, "uid") + " with";
    for (const Json& capability : member(privileges, "effective")) out += " " + text(capability);
    if (member(privileges, "effective").empty()) out += " no capability";
    return out + "\n";
}

}  // namespace

std::string status_table(const Json& status) {
    return "egresswatchd " + text(status, "version") + " on " + text(status, "host") + ", site " +
           text(status, "site") + ", pid " + text(status, "pid") + ", engine " + text(status, "engine") +
           ", since " + text(status, "started") + "\n" + policy(status) + "\n" + interfaces(status) + "\n" +
           classes(status) + "\n" + losses(status) + evaluation(status) + journal_and_outputs(status) +
           privileges(status);
}

}  // namespace egresswatch::cli
