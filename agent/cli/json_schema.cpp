// agent/cli/json_schema.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/json_schema.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "rules/fields.h"
#include "rules/limits.h"
#include "rules/placeholder.h"
#include "rules/region_groups.h"
#include "rules/values.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;
using rules::Form;
using rules::Key;
using rules::Mapping;

// Editors read YAML 1.2: 443 and true are no strings there, and to us every scalar is text until its key says
// what it should be.
const Json text_types = {"string", "number", "boolean"};

Json pattern(const char* expression) {
    return {{"type", "string"}, {"pattern", expression}};
}

constexpr const char* size_end = "[0-9]+(\\.[0-9]{1,9})? *(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)";

Json either(std::initializer_list<Json> choices) {
    return {{"anyOf", Json(choices)}};
}

Json country_codes() {
    Json codes = Json::array();
    for (char first = 'A'; first <= 'Z'; ++first)
        for (char second = 'A'; second <= 'Z'; ++second)
            if (const std::string code{first, second}; rules::is_country_code(code)) codes.push_back(code);
    return {{"enum", codes}};
}

// ">= X", "<= X" or "X..Y".
Json range_of(const std::string& end) {
    const std::string expression = "^([<>]= *" + end + "|" + end + " *\\.\\. *" + end + ")$";
    return pattern(expression.c_str());
}

Json words(std::span<const std::string_view> permitted) {
    Json out = Json::array();
    for (const std::string_view word : permitted) out.push_back(word);
    return {{"enum", out}};
}

Json names() {
    return {{"type", "string"},
            {"pattern", "^[a-z0-9][a-z0-9._-]*$"},
            {"maxLength", rules::limits::id_length_max}};
}

// One value, as values.h reads it.
Json scalar(const Key& key) {
    switch (key.form) {
        case Form::text:
        case Form::text_list:
            return {{"type", text_types},
                    {"minLength", 1},
                    {"maxLength", rules::limits::text_length_max},
                    {"not", {{"const", rules::placeholder}}}};
        case Form::id:
        case Form::id_list:
            // A name of digits only is a number to a YAML reader.
            return either({names(), {{"type", "integer"}, {"minimum", 0}}});
        case Form::integer:
            return {{"type", "integer"}, {"minimum", 1}};
        case Form::count:
            return {{"type", "integer"}, {"minimum", 0}};
        case Form::decimal:
            return {{"type", "number"}};
        case Form::country:
        case Form::country_list:
            return country_codes();
        case Form::date:
            return pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}$");
        case Form::expiry:
            return pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$");
        case Form::size:
            return either({pattern("^[0-9]+(\\.[0-9]{1,9})? *(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB|k|M)?$"),
                           {{"type", "number"}, {"exclusiveMinimum", 0}}});
        case Form::duration:
            return pattern("^(?=[0-9])([0-9]+ *w)?([0-9]+ *d)?([0-9]+ *h)?([0-9]+ *m)?([0-9]+ *s)?$");
        case Form::level:
            return words(std::array<std::string_view, 4>{"low", "medium", "high", "critical"});
        case Form::version:
            return pattern("^>= *[0-9]{1,4}\\.[0-9]{1,4}$");
        case Form::word:
        case Form::word_list:
            return words(key.words);
        case Form::boolean:
            return {{"type", "boolean"}};
        case Form::cidr_list:
            return pattern("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$");
        case Form::asn_list:
            return either({pattern("^(AS)?[0-9]{1,10}$"),
                           {{"type", "integer"}, {"minimum", 1}, {"maximum", 4294967295}}});
        case Form::domain_list:
            return pattern("^(\\*\\.)?[A-Za-z0-9_-]{1,63}(\\.[A-Za-z0-9_-]{1,63})+$");
        case Form::path_list:
            return pattern("^/.+$");
        case Form::port_list:
            return either({pattern("^[0-9]{1,5}(-[0-9]{1,5})?(/[a-z0-9]+)?$"),
                           {{"type", "integer"}, {"minimum", 1}, {"maximum", 65535}}});
        case Form::protocol_list:
            return either({pattern("^([a-z][a-z0-9]*|[0-9]{1,3})$"),
                           {{"type", "integer"}, {"minimum", 0}, {"maximum", 255}}});
        case Form::number_list:
            return either({{{"type", "integer"}, {"minimum", 0}}, pattern("^[0-9]{1,10}$")});
        case Form::hash_list:
            return pattern("^[0-9A-Fa-f]{64}$");
        case Form::time_of_day_list:
            return pattern("^[0-9]{2}:[0-9]{2} *- *[0-9]{2}:[0-9]{2}$");
        case Form::size_range:
            return range_of(size_end);
        case Form::rate_range:
            return range_of(std::string(size_end) + " */s");
        case Form::count_range:
            return range_of("[0-9]+(\\.[0-9]+)? *[kM]?");
        case Form::duration_range:
            return range_of("([0-9]+ *[wdhms])+");
        case Form::instant_range:
            return range_of("[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?");
        case Form::zone:
            return pattern("^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$");
        case Form::tag_list:
            return pattern("^(attack\\.t[0-9]{4}(\\.[0-9]{3})?|(?!attack\\.)[A-Za-z0-9._:/-]{1,64})$");
        case Form::fragment:  // which keys, the entry that it changes says
            return {{"type", "object"}, {"minProperties", 1}};
        case Form::mapping:
        case Form::mapping_list:
        case Form::named_mappings:
            break;
    }
    return true;
}

// Several words of a mapping's name are one word of a definition's: "allow entry" is "allow-entry".
std::string definition_name(const Mapping& mapping) {
    std::string out(mapping.name);
    std::ranges::replace(out, ' ', '-');
    return out;
}

Json value_of(const Key& key) {
    const auto reference = [&] { return Json{{"$ref", "#/$defs/" + definition_name(*key.inner)}}; };
    Json out;
    switch (key.form) {
        case Form::mapping:
            out = reference();
            break;
        case Form::mapping_list:
            out = {{"type", key.need == rules::Need::required ? Json("array") : Json{"array", "null"}},
                   {"items", reference()}};
            break;
        case Form::named_mappings:
            out = {{"type", key.need == rules::Need::required ? Json("object") : Json{"object", "null"}},
                   {"propertyNames", names()},
                   {"additionalProperties", reference()}};
            break;
        default:
            out = scalar(key);
            if (key.takes_unknown || key.takes_pattern) {
                Json choices = Json::array({out});
                if (key.takes_unknown) choices.push_back({{"const", "unknown"}});
                if (key.takes_pattern) choices.push_back(pattern("^re:.+$"));
                out = {{"anyOf", std::move(choices)}};
            }
            if (rules::takes_list(key.form)) {
                Json list{{"type", "array"}, {"items", out}};
                if (!rules::may_be_empty(key)) list["minItems"] = 1;
                out = either({out, list});
            }
    }
    out["description"] = std::string(key.doc);
    return out;
}

Json definition(const Mapping& mapping, const std::vector<std::string>& required) {
    Json out{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    for (const Key& key : mapping.keys) out["properties"][std::string(key.name)] = value_of(key);
    if (!required.empty()) out["required"] = required;
    return out;
}

std::vector<std::string> required_keys(const Mapping& mapping) {
    std::vector<std::string> out;
    for (const Key& key : mapping.keys)
        if (key.need == rules::Need::required) out.emplace_back(key.name);
    return out;
}

void add_definitions(const Mapping& mapping, std::set<const Mapping*>& seen, Json& definitions) {
    for (const Key& key : mapping.keys) {
        if (key.inner == nullptr || !seen.insert(key.inner).second) continue;
        definitions[definition_name(*key.inner)] = definition(*key.inner, required_keys(*key.inner));
        add_definitions(*key.inner, seen, definitions);
    }
}

}  // namespace

Json json_schema(const Mapping& root, const std::string& id, const std::string& title,
                 const std::vector<std::string>& required) {
    Json out{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"$id", id}, {"title", title}};
    out.update(definition(root, required));
    std::set<const Mapping*> seen;
    Json definitions = Json::object();
    add_definitions(root, seen, definitions);
    out["$defs"] = std::move(definitions);
    return out;
}

}  // namespace egresswatch::cli
