// agent/records/fit.cpp - see fit.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/fit.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

namespace egresswatch::records {

const Json& member(const Json& object, const char* name) {
    static const Json null;
    if (!object.is_object()) return null;
    const auto found = object.find(name);
    return found == object.end() ? null : *found;
}

std::string text_member(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_string() ? value.get<std::string>() : std::string{};
}

void put(Json& object, const char* name, const Json& value) {
    if (!value.is_null() && !(value.is_string() && value.get_ref<const std::string&>().empty()))
        object[name] = value;
}

std::string event_id(const Json& record) {
    const auto written = parse_time(text_member(record, "written"));
    char stamp[24] = "0";
    if (written)
        std::snprintf(stamp, sizeof stamp, "%llx",
                      static_cast<unsigned long long>(written->time_since_epoch().count()));
    const Json& seq = member(record, "seq");
    return text_member(record, "host") + "-" + (seq.is_number() ? seq.dump() : std::string("unjournaled")) +
           "-" + stamp;
}

std::string rule_or_kind(const Json& record) {
    const std::string rule = text_member(member(record, "rule"), "id");
    return rule.empty() ? "egresswatch/" + text_member(record, "kind") : rule;
}

Techniques attack_techniques(const Json& record) {
    Techniques out;
    const Json& tags = member(member(record, "rule"), "tags");
    if (!tags.is_array()) return out;
    for (const auto& tag : tags) {
        if (!tag.is_string()) continue;
        std::string name = tag.get<std::string>();
        if (!name.starts_with("attack.t") || name.size() < 9 ||
            std::isdigit(static_cast<unsigned char>(name[8])) == 0)
            continue;
        name = "T" + name.substr(8);
        const std::string technique = name.substr(0, name.find('.'));
        if (std::find(out.ids.begin(), out.ids.end(), technique) == out.ids.end())
            out.ids.push_back(technique);
        if (technique != name) out.sub_ids.push_back(name);
    }
    return out;
}

// What goes is measured alone: rendering the rest each time made a message of 1,000 bytes cost milliseconds.
Body fit_document(Json document, const std::vector<std::string>& droppable, const char* mark,
                  std::string_view bare, std::size_t bytes_max) {
    const auto text_of = [](const Json& value) {
        return value.dump(-1, ' ', true, Json::error_handler_t::replace);
    };
    const Json::json_pointer mark_at(mark);
    Body body{text_of(document), 0, false};
    std::size_t size = body.text.size();  // of the document as it is; the text may be older
    for (const auto& pointer : droppable) {
        if (size <= bytes_max) break;
        const Json::json_pointer at(pointer);
        if (!document.contains(at)) continue;
        Json& parent = document[at.parent_pointer()];
        size -=
            text_of(at.back()).size() + 1 + text_of(parent[at.back()]).size() + (parent.size() > 1 ? 1 : 0);
        parent.erase(at.back());
        const bool first = body.dropped == 0;
        size -= std::to_string(body.dropped).size();
        document[mark_at] = ++body.dropped;
        size = first ? text_of(document).size() : size + std::to_string(body.dropped).size();
    }
    if (body.dropped != 0) body.text = text_of(document);
    if (body.text.size() <= bytes_max) return body;
    body.cut = true;
    body.text = bare;
    if (body.text.size() > bytes_max) body.text.clear();
    return body;
}

}  // namespace egresswatch::records
