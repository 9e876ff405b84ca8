// agent/journal/line.cpp - see line.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/line.h"

#include <algorithm>

#include "agent/journal/journal.h"

namespace egresswatch::journal {
namespace {

using records::Json;

// What even the shortest line keeps.
constexpr std::string_view core_members[] = {"time", "kind", "host", "level"};
constexpr std::size_t core_text_max = 512;  // of a member kept in the shortest line

std::string render(const Json& record, std::uint64_t seq, Timestamp written, std::string_view nonce) {
    const std::string now = records::format_time(written);
    std::string out = "{\"seq\":" + std::to_string(seq) + ",\"written\":\"" + now + "\",\"nonce\":\"";
    out.append(nonce).append("\"");
    if (!record.contains("time")) out += ",\"time\":\"" + now + "\"";
    const std::string members = record.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (members.size() > 2) out += ",";
    out.append(members, 1);
    return out;
}

}  // namespace

Line make_line(const Json& record, std::uint64_t seq, Timestamp written, std::string_view nonce) {
    if (!record.is_object() || record.contains("seq") || record.contains("written") ||
        record.contains("nonce"))
        return {};
    Line line{render(record, seq, written, nonce), false};
    if (line.text.size() > line_bytes_max) {
        line.cut = true;
        Json shorter = record;
        Json gone = Json::array();
        for (const auto member : droppable_members) {
            if (shorter.erase(std::string(member)) == 0) continue;
            gone.push_back(member);
            shorter["cut"] = gone;
            line.text = render(shorter, seq, written, nonce);
            if (line.text.size() <= line_bytes_max) break;
        }
    }
    if (line.text.size() > line_bytes_max) {
        Json core;
        for (const auto member : core_members) {
            const auto found = record.find(member);
            if (found != record.end() &&
                found->dump(-1, ' ', true, Json::error_handler_t::replace).size() <= core_text_max)
                core[std::string(member)] = *found;
        }
        core["cut"] = {"*"};
        line.text = render(core, seq, written, nonce);
    }
    line.text += '\n';
    return line;
}

}  // namespace egresswatch::journal
