// tests/unit/rules/overrides_test.cpp - what one file changes in the entries of another.
// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

const std::string pack =
    "policy: egresswatch/v1\n"
    "lists:\n  banks: {cidr: 203.0.113.0/24}\n"
    "allow:\n  - {id: card, to: {list: banks, port: 443/tcp}, owner: o, reason: r, expires: 2030-01-01}\n"
    "rules:\n"
    "  - id: bulk\n    title: Bulk\n    level: low\n    tags: [attack.t1041]\n"
    "    when: {region: outside, country: [US]}\n"
    "    window: {sum: bytes_out, over: 1h, by: [remote], at_least: 50 MiB}\n"
    "  - id: other\n    title: Other\n    level: low\n    when: {region: outside}\n"
    "    window: {sum: bytes_out, over: 2h, by: [remote], at_least: 50 MiB}\n";

Compiled<LoadedPolicy> with(const std::string& overrides) {
    const std::vector<SourceFile> files{
        {"10-base.yaml", header()},
        {"20-pack.yaml", pack},
        {"90-local.yaml", "policy: egresswatch/v1\noverrides:\n" + overrides}};
    return compile_policy(files);
}

const Rule& bulk_of(const Compiled<LoadedPolicy>& loaded) {
    std::string said;
    for (const Diagnostic& d : loaded ? loaded->warnings : loaded.error()) said += format_diagnostic(d);
    INFO(said);
    REQUIRE(loaded);
    return loaded->policy->rules.front();
}

}  // namespace

TEST_CASE("replace changes keys and leaves the others", "[rules][overrides]") {
    const auto loaded = with("  - {rule: bulk, replace: {level: high, revision: 7}}\n");
    const Rule& bulk = bulk_of(loaded);
    CHECK(bulk.level == Level::high);
    CHECK(bulk.revision == 7);
    CHECK(bulk.at_least == 50u << 20);
    CHECK(loaded->policy->rules.size() == 2);
}

TEST_CASE("append adds values to lists, below mappings too, and entries to lists of entries",
          "[rules][overrides]") {
    const auto loaded = with(
        "  - rule: bulk\n"
        "    append:\n"
        "      tags: attack.t1567\n"
        "      when: {country: [CN, SG], port: 443/tcp}\n"
        "      exceptions: [{match: {remote: 198.51.100.7}, owner: o, expires: 2030-01-01}]\n"
        "  - rule: bulk\n"
        "    append:\n"
        "      exceptions: [{match: {remote: 198.51.100.8}, owner: o, expires: 2030-01-01}]\n"
        "  - {list: banks, append: {cidr: [198.51.100.0/24], country: CA}}\n"
        "  - {allow: card, append: {to: {port: 8443/tcp}}}\n");
    const Rule& bulk = bulk_of(loaded);
    CHECK(bulk.tags == std::vector<std::string>{"attack.t1041", "attack.t1567"});
    CHECK(bulk.when.find(Field::country)->countries == std::vector<Country>{"US", "CN", "SG"});
    CHECK(bulk.when.find(Field::port) != nullptr);
    CHECK(bulk.exceptions.size() == 2);
    CHECK(loaded->policy->region_spec().list_prefixes.size() == 2);
    CHECK(loaded->policy->allows.front().match.find(Field::port)->ports.size() == 2);
}

TEST_CASE("disable leaves an entry out", "[rules][overrides]") {
    const auto loaded = with(
        "  - {rule: other, disable: true}\n  - {allow: card, disable: true}\n"
        "  - {list: banks, disable: true}\n");
    CHECK(bulk_of(loaded).id == "bulk");
    CHECK(loaded->policy->rules.size() == 1);
    CHECK(loaded->policy->allows.empty());
    CHECK(loaded->policy->region_spec().list_names.empty());
}

TEST_CASE("overrides apply in the order of the files", "[rules][overrides]") {
    const auto loaded =
        with("  - {rule: bulk, replace: {level: high}}\n  - {rule: bulk, replace: {level: critical}}\n");
    CHECK(bulk_of(loaded).level == Level::critical);
}

TEST_CASE("a mistake in an override is told where it stands", "[rules][overrides]") {
    const auto loaded = with("  - {rule: bulk, replace: {level: urgent}}\n");
    REQUIRE(!loaded);
    CHECK(loaded.error().front().span.file == "90-local.yaml");
    CHECK(loaded.error().front().span.line == 3);
    CHECK(loaded.error().front().source_line.find("urgent") != std::string::npos);
}
