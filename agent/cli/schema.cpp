// agent/cli/schema.cpp - `egresswatch schema` and `egresswatch fields`: the language's own tables, for
// editors and for people. SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/cli/commands.h"
#include "agent/cli/json_schema.h"
#include "rules/field_table.h"
#include "rules/rule_test_schema.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string joined(std::span<const std::string_view> words) {
    std::string out;
    for (const std::string_view word : words) out += (out.empty() ? "" : ", ") + std::string(word);
    return out;
}

Json strings(std::span<const std::string_view> words) {
    Json out = Json::array();
    for (const std::string_view word : words) out.push_back(word);
    return out;
}

std::string uses_of(const rules::FieldInfo& field) {
    std::string out;
    const auto add = [&](rules::FieldUse use, const char* word) {
        if ((field.uses & use) != 0) out += (out.empty() ? "" : ", ") + std::string(word);
    };
    add(rules::USE_SELECT, "when");
    add(rules::USE_GROUP, "by");
    add(rules::USE_DISTINCT, "distinct");
    return out;
}

Json fields_json() {
    Json out = Json::array();
    for (const rules::FieldInfo& field : rules::all_fields()) {
        Json row{{"name", field.name},
                 {"form", rules::form_name(field.form)},
                 {"uses", uses_of(field)},
                 {"operators", strings(rules::operators_of(field))},
                 {"takes_unknown", field.takes_unknown},
                 {"since", field.since},
                 {"doc", field.doc}};
        row["words"] = strings(field.words);
        out.push_back(std::move(row));
    }
    return out;
}

// Text behind a hanging indent, broken at spaces.
std::string wrapped(std::string_view text, std::size_t indent) {
    constexpr std::size_t width = 100;
    std::string out, line;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, end);
        if (!line.empty() && indent + line.size() + 1 + word.size() > width) {
            out += std::string(indent, ' ') + line + "\n";
            line.clear();
        }
        line += (line.empty() ? "" : " ") + std::string(word);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out + std::string(indent, ' ') + line + "\n";
}

std::string fields_text() {
    std::string out;
    for (const rules::FieldInfo& field : rules::all_fields()) {
        out += std::string(field.name) + " (" + std::string(rules::form_name(field.form)) + "; " +
               uses_of(field);
        const std::string operators = joined(rules::operators_of(field));
        if (!operators.empty()) out += "; " + operators;
        out += "; since " + std::string(field.since) + ")";
        out += "\n" + wrapped(field.doc, 4);
        if (!field.words.empty()) out += wrapped("One of: " + joined(field.words) + ".", 4);
    }
    return out;
}

}  // namespace

void add_schema(CLI::App& app, int&) {
    auto* command =
        app.add_subcommand("schema", "Print a JSON Schema (2020-12) of a kind of file, for editors");
    auto what = std::make_shared<std::string>("policy");
    command->add_option("KIND", *what, "policy, or test: unit tests of rules")
        ->check(CLI::IsMember({"policy", "test"}))
        ->capture_default_str();
    command->callback([what] {
        if (*what == "test") {
            print(json_schema(rules::schema::rule_tests, "urn:egresswatch:schema:test:v1",
                              "egresswatch rule tests", {"tests", "cases"})
                      .dump(1) +
                  "\n");
            return;
        }
        // Every other key of the header stands in one file of the set only.
        print(json_schema(rules::schema::policy, "urn:egresswatch:schema:policy:v1",
                          "egresswatch policy file", {"policy"})
                  .dump(1) +
              "\n");
    });
}

void add_fields(CLI::App& app, int&) {
    auto* command = app.add_subcommand("fields", "The fields that allow entries and rules can name");
    auto json = std::make_shared<bool>(false);
    command->add_flag("--json", *json, "One JSON array instead of text");
    command->callback([json] { print(*json ? fields_json().dump(1) + "\n" : fields_text()); });
}

}  // namespace egresswatch::cli
