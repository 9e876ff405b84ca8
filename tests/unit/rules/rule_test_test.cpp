// tests/unit/rules/rule_test_test.cpp - the runner of rule tests: what passes, what fails, and in which
// words. SPDX-License-Identifier: Apache-2.0
#include "rules/rule_test.h"

#include <fstream>
#include <sstream>

#include "rules/rule_test_schema.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

const char* const bulk_policy = R"(
rules:
  - id: bulk
    title: Bulk transfer out of the region
    level: high
    when: {region: outside, allowed: false}
    window: {sum: bytes_out, over: 10m, by: [remote], at_least: 50 MiB}
    suppress: {for: 1h, by: [remote]}
  - id: unknown
    title: Unknown country
    level: low
    when: {country: unknown}
    window: {sum: bytes_out, over: 1h, by: [remote_prefix], at_least: 1 MiB}
allow:
  - id: mirror
    to: {cidr: [198.51.100.0/25], port: 443/tcp}
    owner: o
    reason: r
    expires: 2030-01-01
)";

Compiled<RuleTestFile> read(const std::string& cases) {
    return read_rule_tests({"t.test.yaml", "tests: egresswatch-tests/v1\ncases:\n" + cases});
}

std::vector<std::string> run(const std::string& flows, const std::string& expect,
                             const std::string& more = {}) {
    const auto file = read("  - name: case\n    flows: " + flows + "\n    expect: " + expect + "\n" + more);
    if (!file) {
        std::string said;
        for (const auto& diagnostic : file.error()) said += format_diagnostic(diagnostic);
        FAIL(said);
    }
    return run_rule_case(file->cases.front(), policy(bulk_policy)).differences;
}

std::string first_code(const std::string& cases) {
    const auto file = read(cases);
    REQUIRE(!file);
    CHECK(!file.error().front().help.empty());
    return file.error().front().code + " " + std::to_string(file.error().front().span.line) + ":" +
           std::to_string(file.error().front().span.column);
}

}  // namespace

TEST_CASE("a case passes where exactly the expected findings come", "[rules][rule_test]") {
    CHECK(
        run("[{at: 5s, remote: 203.0.113.9, country: US, bytes_out: 60 MiB}]",
            "[{at: 5s, rule: bulk, level: high, remote: 203.0.113.9, value: 60 MiB, country: US, flows: 1}]")
            .empty());
    CHECK(run("[{at: 5s, remote: 203.0.113.9, country: DE, bytes_out: 60 MiB}]", "[]").empty());
    CHECK(run("[{at: 5s, remote: 198.51.100.9, country: US, bytes_out: 60 MiB}]", "[]").empty());
    CHECK(run("[{at: 5s, remote: 192.168.1.1, country: unknown, bytes_out: 60 MiB}]", "[]").empty());
}

TEST_CASE("a finding that does not come, and one that nobody expects, are told", "[rules][rule_test]") {
    CHECK(run("[{at: 5s, remote: 203.0.113.9, country: US, bytes_out: 10 MiB}]", "[{at: 5s, rule: bulk}]") ==
          std::vector<std::string>{"- at 5s  bulk    expected, and did not come"});
    CHECK(run("[{at: 5s, remote: 203.0.113.9, country: US, bytes_out: 60 MiB}]", "[]") ==
          std::vector<std::string>{"+ at 5s  bulk  level: high  remote: 203.0.113.9  value: 62914560    "
                                   "came, and was not expected"});
}

TEST_CASE("a finding that differs is set beside what was expected", "[rules][rule_test]") {
    const auto said = run("[{at: 5s, remote: 203.0.113.9, country: US, bytes_out: 60 MiB}]",
                          "[{at: 6s, rule: bulk, level: low, remote: 203.0.113.9}]");
    REQUIRE(said.size() == 2);
    CHECK(said[0] == "- at 6s  bulk  level: low  remote: 203.0.113.9    expected, and did not come");
    CHECK(said[1].ends_with("came instead: at is 5s, not 6s, level is high, not low"));
}

TEST_CASE("volume that lasts is spread evenly, and fills the window when it would", "[rules][rule_test]") {
    CHECK(run("[{at: 0s, remote: 203.0.113.9, country: US, bytes_out: 100 MiB, lasts: 100s, step: 1s}]",
              "[{at: 50s, rule: bulk, value: 50 MiB}]")
              .empty());
    // 100 MiB over an hour never are 50 MiB in ten minutes.
    CHECK(run("[{at: 0s, remote: 203.0.113.9, country: US, bytes_out: 100 MiB, lasts: 1h}]", "[]").empty());
}

TEST_CASE("repetitions go through prefixes, lists and ranges", "[rules][rule_test]") {
    // 60 addresses of a prefix, one MiB each: no address alone, and the unknown prefix as a whole.
    CHECK(run("[{at: 0s, remote: 203.0.113.0/24, country: unknown, bytes_out: 512 KiB, times: 2, every: 1m}]",
              "[{at: 1m, rule: unknown, remote: 203.0.113.1, remote_prefix: 203.0.113.0/24, flows: 2}]")
              .empty());
    CHECK(
        run("[{at: 0s, remote: [203.0.113.9, 203.0.113.10], country: [US, DE], bytes_out: 60 MiB, times: 2}]",
            "[{at: 0s, rule: bulk, remote: 203.0.113.9}]")
            .empty());
    CHECK(run("[{at: 0s, remote: 198.51.100.9, country: US, port: 443-444/tcp, bytes_out: 60 MiB, times: 2}]",
              "[{at: 0s, rule: bulk}]")
              .empty());
}

TEST_CASE("site, interface, AS number and disputed countries of a case are what rules see",
          "[rules][rule_test]") {
    const auto around = policy(R"(
sites: {dublin: {country: IE}, hamar: {country: NO}}
rules:
  - {id: at-hamar, title: t, level: low, when: {site: hamar, region: outside}, window: {sum: bytes_out, over: 1h, by: [port], at_least: 1 MiB}}
  - {id: on-wan, title: t, level: low, when: {interface: wan0}, window: {sum: bytes_out, over: 1h, by: [asn], at_least: 1 MiB}}
  - {id: of-system, title: t, level: low, when: {asn: 64501}, window: {sum: bytes_out, over: 1h, by: [asn], at_least: 1 MiB}}
  - {id: hides, title: t, level: low, when: {hidden: ech}, window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}}
  - {id: disputed, title: t, level: low, when: {disputed: true}, window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}}
allow:
  - {id: little, to: {cidr: 192.0.2.0/24}, ceiling: {bytes_out: 1 MiB, per: 1d}, owner: o, reason: r, expires: 2030-01-01}
)");
    const auto run_at = [&](const std::string& flow, const std::string& expect, const std::string& site) {
        const auto file =
            read("  - name: case\n" + site + "    flows: [" + flow + "]\n    expect: " + expect + "\n");
        REQUIRE(file);
        return run_rule_case(file->cases.front(), around).differences;
    };
    const std::string plain = "at: 0s, remote: 203.0.113.9, country: US, bytes_out: 2 MiB";
    CHECK(run_at("{" + plain + "}", "[]", "").empty());
    CHECK(run_at("{" + plain + "}", "[]", "    site: dublin\n").empty());
    CHECK(run_at("{" + plain + "}", "[{at: 0s, rule: at-hamar, port: 443}]", "    site: hamar\n").empty());
    CHECK(run_at("{" + plain + "}", "[]", "    site: oslo\n") ==
          std::vector<std::string>{"the policy has no site \"oslo\""});
    CHECK(run_at("{" + plain + ", asn: 64501}", "[{at: 0s, rule: of-system, asn: 64501}]", "").empty());
    CHECK(run_at("{" + plain + ", asn: 64501, interface: wan0}",
                 "[{at: 0s, rule: of-system}, {at: 0s, rule: on-wan, asn: 64501}]", "")
              .empty());
    CHECK(run_at("{at: 0s, remote: 203.0.113.8/30, country: US, bytes_out: 2 MiB, asn: [64501, 64502], "
                 "times: 2, interface: wan0}",
                 "[]", "")
              .size() == 3);
    CHECK(run_at("{" + plain + ", sni: a.example.org, hidden: ech}", "[{at: 0s, rule: hides}]", "").empty());
    CHECK(run_at("{" + plain + ", disputed: true}", "[{at: 0s, rule: disputed, remote: 203.0.113.9}]", "")
              .empty());
    CHECK(run_at("{at: 0s, remote: 192.0.2.1, country: US, bytes_out: 2 MiB}",
                 "[{at: 0s, rule: egresswatch/allow-ceiling, allow: little}]", "")
              .empty());
    CHECK(run_at("{at: 0s, remote: 192.0.2.1, country: US, bytes_out: 2 MiB}",
                 "[{at: 0s, rule: egresswatch/allow-ceiling, allow: other}]", "")
              .size() == 2);
}

TEST_CASE("only the rules that a case looks at count", "[rules][rule_test]") {
    CHECK(
        run("[{at: 0s, remote: 203.0.113.9, country: US, bytes_out: 60 MiB}]", "[]", "    rules: [unknown]\n")
            .empty());
    CHECK(run("[]", "[]", "    rules: [bulkk]\n") ==
          std::vector<std::string>{"the policy has no rule \"bulkk\""});
}

TEST_CASE("mistakes in a test file have a place and a cure", "[rules][rule_test]") {
    CHECK(first_code("  - name: n\n    flows: []\n    expct: []\n") == "rules/unknown-key 5:5");
    CHECK(first_code("  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: XX, bytes_out: 1 B}]\n "
                     "   expect: []\n") == "rules/unknown-country 4:52");
    CHECK(first_code("  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: US, bytes_out: 5}]\n"
                     "    expect: []\n") == "rules/bad-size 4:67");
    CHECK(first_code("  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: US, tunnel: gre, "
                     "bytes_out: 1 B}]\n"
                     "    expect: []\n") == "rules/missing-key 4:56");
    CHECK(first_code(
              "  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: US, lasts: 90d, step: 1s}]\n"
              "    expect: []\n") == "rules/too-many-updates 4:13");
    CHECK(first_code("  - name: n\n    rules: [a]\n    flows: []\n    expect: [{at: 0s, rule: b}]\n") ==
          "rules/rule-not-looked-at 6:29");
    CHECK(first_code("  - name: n\n    flows: []\n    expect:\n") == "rules/no-value 5:5");
    CHECK(first_code(
              "  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: US}]\n    expect: []\n") ==
          "rules/empty-flow 4:13");
    CHECK(first_code("  - name: n\n    flows: [{at: 0s, remote: 203.0.113.9, country: US, bytes_out: 1 B, "
                     "outer_remote: 192.0.2.1}]\n    expect: []\n") == "rules/goes-unused 4:72");
    CHECK(first_code("  []\n") == "rules/no-cases 1:1");
}

TEST_CASE("the manual's tables of a test file are those that the reader checks against",
          "[rules][rule_test]") {
    std::ifstream stream(EGRESSWATCH_SOURCE_DIR "/docs/man/egresswatch-test.1");
    std::ostringstream page;
    page << stream.rdbuf();
    const char* write_to = std::getenv("EGRESSWATCH_WRITE_TABLES");  // for whoever changes the schema
    if (write_to != nullptr) std::ofstream(write_to) << rule_test_manual_tables();
    CHECK(page.str().find(rule_test_manual_tables()) != std::string::npos);
}
