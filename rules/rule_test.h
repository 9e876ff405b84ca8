// rules/rule_test.h - unit tests of rules: flows in at given times, findings out, and silence asserted.
// SPDX-License-Identifier: Apache-2.0
//
// In:      a file of cases (schema: rule_test_schema.h), a compiled policy.   Out: what differs.
// Clock:   packet time from the case's `start`; nothing here waits.
// Limits:  flows_max updates of one case.
// Fails:   diagnostics with place and cure, as for a policy.
// Not here: finding files, printing, JUnit (agent/cli/test.cpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rules/finding.h"
#include "rules/owned_facts.h"
#include "rules/policy.h"

namespace egresswatch::rules {

// One conversation, or several alike: where a list stands, each repetition takes the next value.
struct TestFlow {
    std::chrono::seconds at{};
    std::vector<Prefix> remotes;     // repetitions go through the addresses of a prefix
    std::vector<Country> countries;  // empty text: unknown
    bool disputed = false;
    std::vector<std::uint32_t> asns;  // empty: unknown
    std::string interface;            // likewise
    std::vector<PortRange> ports;     // repetitions go through a range
    std::optional<std::uint16_t> local_port;
    std::uint8_t l4_proto = 6;
    Address local;
    datapath::initiator initiator = datapath::INITIATOR_LOCAL;
    std::uint8_t tunnel = 0;
    Address outer_remote;
    Country outer_country;
    OwnedFacts facts;
    std::vector<std::string> asks;  // of a name server, as it begins
    FlowCounters counters;
    std::chrono::seconds lasts{};
    std::chrono::seconds step{10};
    std::uint64_t times = 1;
    std::chrono::seconds every{};
    SourceSpan place;
};

struct ExpectedFinding {
    std::chrono::seconds at{};
    std::string rule;
    std::vector<GroupField> fields;  // what else has to be so, as rule_test_fields() writes it
    SourceSpan place;
};

struct RuleCase {
    std::string name;
    SourceSpan place;
    Timestamp start{};
    std::string site;
    std::vector<std::string> rules;  // whose findings count; empty: all
    std::vector<TestFlow> flows;
    std::vector<ExpectedFinding> expected;
    std::chrono::seconds until{};
};

struct RuleTestFile {
    std::string name;
    std::vector<std::string> policy;  // paths as written; empty: the directory of the file
    std::vector<RuleCase> cases;
};

struct CaseResult {
    // One line each, empty where the case passed.
    std::vector<std::string> differences;
    std::size_t findings = 0;
    [[nodiscard]] bool passed() const noexcept { return differences.empty(); }
};

inline constexpr std::size_t test_updates_max = 1'000'000;  // of one case

[[nodiscard]] Compiled<RuleTestFile> read_rule_tests(const SourceFile& file);
[[nodiscard]] CaseResult run_rule_case(const RuleCase& test, const std::shared_ptr<const Policy>& policy);

}  // namespace egresswatch::rules
