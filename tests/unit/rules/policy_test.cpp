// tests/unit/rules/policy_test.cpp - policies from the disk, their hash, their lists, their limits.
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "classifier/inspect/protocol.h"
#include "rules/limits.h"
#include "rules/policy_text.h"
#include "rules/schema.h"
#include "rules/values.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;
namespace fs = std::filesystem;

namespace {

class TempDir {
public:
    TempDir() {
        std::string name = (fs::temp_directory_path() / "egresswatch-policy-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~TempDir() { fs::remove_all(path_); }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    [[nodiscard]] const fs::path& path() const { return path_; }
    void write(const std::string& name, const std::string& text) const {
        std::ofstream(path_ / name) << text;
    }

private:
    fs::path path_;
};

bool has_code(const std::vector<Diagnostic>& diagnostics, std::string_view code) {
    return std::ranges::any_of(diagnostics, [&](const Diagnostic& d) { return d.code == code; });
}

constexpr const char* rule =
    "rules:\n  - id: a\n    title: t\n    level: low\n    when: {list: banks}\n"
    "    window: {sum: bytes_out, over: 1h, by: [], at_least: 1 MiB}\n";

}  // namespace

TEST_CASE("a directory is read by name, and its files see each other's lists", "[rules][policy]") {
    const TempDir dir;
    dir.write("20-rules.yaml", std::string("policy: egresswatch/v1\n") + rule);
    dir.write("10-base.yaml", header() + "lists:\n  banks: {cidr: 203.0.113.0/24}\n");
    dir.write(".hidden.yaml", "not: [a policy");
    dir.write("notes.txt", "nothing");
    const auto loaded = load_policy(dir.path());
    REQUIRE(loaded);
    CHECK(loaded->policy->files.size() == 2);
    CHECK(loaded->policy->files[0].ends_with("10-base.yaml"));
    CHECK(loaded->policy->rules.size() == 1);
    CHECK(loaded->policy->content_hash().size() == 64);
    CHECK(load_policy(dir.path())->policy->content_hash() == loaded->policy->content_hash());
    dir.write("20-rules.yaml", std::string("policy: egresswatch/v1\n") + rule + "# a comment\n");
    CHECK(load_policy(dir.path())->policy->content_hash() != loaded->policy->content_hash());
    dir.write("30-more.yml", "policy: egresswatch/v1\n");
    CHECK(has_code(load_policy(dir.path())->warnings, "rules/not-read"));
}

TEST_CASE("where a policy lies does not change its hash, what its files are called does", "[rules][policy]") {
    const auto hash = [](std::string name) {
        const std::vector<SourceFile> files{{std::move(name), header()}};
        return compile_policy(files)->policy->content_hash();
    };
    CHECK(hash("/a/p.yaml") == hash("/b/p.yaml"));
    CHECK(hash("/a/p.yaml") != hash("/a/q.yaml"));
}

TEST_CASE("what cannot be read is said", "[rules][policy]") {
    const TempDir dir;
    CHECK(has_code(load_policy(dir.path() / "absent").error(), "rules/cannot-read"));
    CHECK(has_code(load_policy(dir.path()).error(), "rules/no-policy"));
    dir.write("big.yaml", std::string(limits::file_bytes_max + 1, '#'));
    CHECK(has_code(load_policy(dir.path()).error(), "rules/file-too-big"));
    fs::create_directory(dir.path() / "dir.yaml");
    CHECK(has_code(load_policy(dir.path()).error(), "rules/cannot-read"));
}

TEST_CASE("the policy of the design passes, and says what this version cannot match", "[rules][policy]") {
    std::ifstream stream(fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/unit/rules/whole-policy.yaml");
    std::ostringstream text;
    text << stream.rdbuf();
    const auto loaded = compile_text(text.str());
    REQUIRE(loaded);
    const Policy& whole = *loaded->policy;
    CHECK(whole.name == "clover-eu");
    CHECK(whole.sites.size() == 3);
    CHECK(whole.find_site("hamar")->country == "NO");
    CHECK(whole.region_spec().home_countries.contains("CH"));
    CHECK(!whole.region_spec().unknown_is_home);
    CHECK(whole.allows.size() == 2);
    CHECK(whole.allows[0].ceiling->bytes_out == 5ull << 30);
    CHECK(whole.rules.size() == 4);
    CHECK(has_code(data_warnings(whole, false), "rules/needs-as-data"));
    CHECK(data_warnings(whole, true).empty());
    CHECK(
        has_code(expiry_warnings(whole, Timestamp(std::chrono::sys_days(std::chrono::year{2026} / 11 / 20))),
                 "rules/expires-soon"));
    CHECK(expiry_warnings(whole, Timestamp(std::chrono::sys_days(std::chrono::year{2028} / 1 / 1))).size() ==
          3);
    CHECK(expiry_warnings(whole, Timestamp(std::chrono::sys_days(std::chrono::year{2026} / 3 / 1))).empty());
}

TEST_CASE("the shipped example passes without a warning", "[rules][policy]") {
    const auto loaded = load_policy(fs::path(EGRESSWATCH_SOURCE_DIR) / "docs/examples/policy.d");
    std::string said;
    for (const Diagnostic& d : loaded ? loaded->warnings : loaded.error()) said += format_diagnostic(d);
    INFO(said);
    REQUIRE(loaded);
    CHECK(loaded->warnings.empty());
    CHECK(loaded->policy->rules.size() >= 4);
}

TEST_CASE("named lists of CIDRs become lists of the region table, CIDRs in place do not", "[rules][policy]") {
    const auto in_force = policy(R"(
lists:
  banks: {cidr: [203.0.113.0/24]}
  countries: {country: US}
allow:
  - {id: one, to: {list: [banks, countries]}, owner: o, reason: r, expires: 2027-01-01}
  - {id: two, to: {cidr: [198.51.100.0/24, "2001:db8::/32"]}, owner: o, reason: r, expires: 2027-01-01}
)");
    const RegionSpec& spec = in_force->region_spec();
    REQUIRE(spec.list_names == std::vector<std::string>{"banks"});
    CHECK(spec.list_prefixes.size() == 1);
    CHECK(in_force->prefix_index().find(*Address::parse("198.51.100.7")) != 0);
    CHECK(in_force->prefix_index().find(*Address::parse("2001:db8:1::7")) != 0);
    CHECK(in_force->prefix_index().find(*Address::parse("198.51.101.7")) == 0);
    ClassInfo info;
    info.lists = {0, 1};
    CHECK(in_force->named_lists(info, 0) == std::vector<std::string>{"banks"});
    info.lists = {7};
    CHECK(in_force->named_lists(info, 0).empty());
}

TEST_CASE("prefixes of the home region are home", "[rules][policy]") {
    const auto loaded = compile_text(
        "policy: egresswatch/v1\nname: n\nrevision: 1\nowner: o\nunknown_country: home\n"
        "regions: {own: {cidr: 198.51.100.0/24, countries: IE}}\nhome: own\n");
    REQUIRE(loaded);
    const RegionSpec& spec = loaded->policy->region_spec();
    REQUIRE(spec.home_prefixes.size() == 1);
    CHECK(spec.home_prefixes[0].to_string() == "198.51.100.0/24");
    CHECK(spec.unknown_is_home);
}

TEST_CASE("an alias bomb, deep nesting and endless lists are refused and not tried",
          "[rules][policy][limits]") {
    std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 12; ++i) {
        const std::string before = "*a" + std::to_string(i - 1);
        bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
        for (int j = 0; j < 10; ++j) bomb += before + (j < 9 ? ", " : "]\n");
    }
    CHECK(has_code(compile_text(bomb).error(), "rules/too-many-values"));
    CHECK(has_code(compile_text("a: &a [*a]\n").error(), "rules/alias-cycle"));
    CHECK(has_code(compile_text(std::string(100'000, '[')).error(), "rules/too-deep"));
    CHECK(has_code(compile_text(std::string(100'000, '{')).error(), "rules/too-deep"));
    std::string dashes;
    for (int i = 0; i < 20'000; ++i) dashes += "- ";
    CHECK(has_code(compile_text(dashes + "x\n").error(), "rules/too-deep"));
    std::string many = "x: [";
    for (std::size_t i = 0; i <= limits::yaml_nodes_max; ++i) many += "a,";
    CHECK(has_code(compile_text(many + "]\n").error(), "rules/too-many-values"));
}

TEST_CASE("the policy in effect is printed in its language, and compiles to the same", "[rules][policy]") {
    const fs::path source(EGRESSWATCH_SOURCE_DIR);
    for (const char* path : {"tests/unit/rules/whole-policy.yaml", "docs/examples/policy.d", "rules/packs",
                             "tests/support/policy.d"}) {
        INFO(path);
        const auto first = load_policy(source / path);
        REQUIRE(first);
        const std::string text = effective_policy(*first->policy);
        const auto second = compile_text(text);
        if (!second) FAIL(format_diagnostic(second.error().front()));
        const auto without_hash = [](std::string dump) {
            const std::size_t at = dump.find("# sha256");
            return dump.erase(at, dump.find('\n', at) - at);
        };
        CHECK(without_hash(effective_policy(*second->policy)) == without_hash(text));
        REQUIRE(second->policy->rules.size() == first->policy->rules.size());
        for (std::size_t i = 0; i < first->policy->rules.size(); ++i)
            CHECK(second->policy->rules[i].definition == first->policy->rules[i].definition);
        CHECK(second->policy->allows.size() == first->policy->allows.size());
        CHECK(second->policy->sites.size() == first->policy->sites.size());
        CHECK(second->policy->region_spec().list_names == first->policy->region_spec().list_names);
    }
}

TEST_CASE("no value is lost in the policy in effect", "[rules][policy]") {
    const auto in_force = policy(
        "lists: {tools: {executable: [/usr/bin/a, /usr/bin/b]}}\n"
        "allow:\n  - {id: a, to: {domain: [x.example.org, \"*.y.example.org\"]}, from: {list: tools}, "
        "direction: out,"
        " owner: o, reason: r, ticket: T, legal_basis: l, expires: 2030-01-01}\n"
        "rules:\n  - {id: r, title: t, level: low, status: test, when: {sni: [e.example.org, "
        "\"*.b.example.org\", "
        "\"re:aa.*\", unknown], executable: [\"re:/usr/.*\", /bin/x]}, window: {sum: flows, over: 1h, by: "
        "[remote], "
        "at_least: 1}}\n");
    const std::string text = effective_policy(*in_force);
    INFO(text);
    for (const char* part :
         {"sni: [e.example.org, \"*.b.example.org\", \"re:aa.*\", unknown]",
          "executable: [/bin/x, \"re:/usr/.*\"]", "to: {domain: [x.example.org, \"*.y.example.org\"]}",
          "executable: [/usr/bin/a, /usr/bin/b], initiator: local", "ticket: T", "legal_basis: l",
          "status: test"})
        CHECK(text.find(part) != std::string::npos);
}

TEST_CASE("more entries of a kind than the limit are refused", "[rules][policy]") {
    std::string text = header() + "lists:\n";
    for (std::size_t i = 0; i <= limits::entries_max; ++i)
        text += "  l" + std::to_string(i) + ": {country: [US]}\n";
    const auto loaded = compile_text(text);
    REQUIRE(!loaded);
    CHECK(loaded.error().front().code == "rules/too-many-entries");
}

TEST_CASE("a byte order mark and carriage returns change nothing", "[rules][policy]") {
    std::string text = "\xef\xbb\xbf" + header();
    for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 2))
        text.insert(at, "\r");
    const auto loaded = compile_text(text);
    REQUIRE(loaded);
    CHECK(loaded->policy->name == "case");
    const auto bad = compile_text(text + "unknwon: 1\r\n");
    CHECK(bad.error().front().span.line == 8);
    CHECK(bad.error().front().source_line == "unknwon: 1");
}

TEST_CASE("the manual's tables are the schema's", "[rules][schema]") {
    std::ifstream stream(fs::path(EGRESSWATCH_SOURCE_DIR) / "docs/man/egresswatch-rules.5");
    std::ostringstream text;
    text << stream.rdbuf();
    const std::string tables = manual_tables();
    const char* write_to = std::getenv("EGRESSWATCH_WRITE_TABLES");  // for whoever changes the schema
    if (write_to != nullptr) std::ofstream(write_to) << tables;
    if (write_to != nullptr) std::ofstream(std::string(write_to) + ".fields") << manual_fields();
    CHECK(text.str().find(tables) != std::string::npos);
    CHECK(text.str().find(manual_fields()) != std::string::npos);
}

TEST_CASE("the manual names every protocol that `app` can be", "[rules][schema]") {
    std::ifstream stream(fs::path(EGRESSWATCH_SOURCE_DIR) / "docs/man/egresswatch-rules.5");
    std::ostringstream page;
    page << stream.rdbuf();
    std::vector<std::string_view> names;
    for (std::size_t i = 1; i < inspect::protocol_count; ++i)
        names.push_back(inspect::protocol_name(static_cast<inspect::Protocol>(i)));
    CHECK(page.str().find(".Cm app\nis " + one_of(names) + ".\n") != std::string::npos);
}

TEST_CASE("every key of every table is documented, once", "[rules][schema]") {
    for (const Mapping* mapping : all_mappings()) {
        std::set<std::string_view> seen;
        for (const Key& key : mapping->keys) {
            INFO(mapping->name << " " << key.name);
            CHECK(seen.insert(key.name).second);
            CHECK(key.doc.ends_with('.'));
            CHECK((key.inner != nullptr) == (key.form == Form::mapping || key.form == Form::mapping_list ||
                                             key.form == Form::named_mappings));
            CHECK(key.words.empty() == (key.form != Form::word && key.form != Form::word_list));
        }
    }
    for (const Renamed& renamed : renamed_keys()) {
        const auto mapping =
            std::ranges::find(all_mappings(), renamed.mapping, [](const Mapping* m) { return m->name; });
        REQUIRE(mapping != all_mappings().end());
        INFO(renamed.wrong);
        CHECK((*mapping)->find(renamed.wrong) == nullptr);
        CHECK((*mapping)->find(renamed.right) != nullptr);
    }
}
