// tests/unit/rules/plan_test.cpp - what the plan leaves out can never match: random policies and flows, with
// the plan and by asking every condition. SPDX-License-Identifier: Apache-2.0
#include <random>

#include "rules/plan.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

using Random = std::mt19937;

std::string one_of(Random& random, std::initializer_list<const char*> values) {
    return *(values.begin() + random() % values.size());
}

std::string some_name(Random& random) {
    return one_of(random, {"a", "b", "www.a", "x.y.b"}) + one_of(random, {".example.org", ".example.net"});
}

// Conditions of every kind that the plan keeps by key, and of some that it cannot.
std::string selection(Random& random, int depth) {
    std::string out;
    const auto add = [&](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
    if (random() % 3 == 0)
        add("domain: [" + some_name(random) + ", \"*." + some_name(random) + "\"" +
            one_of(random, {"", "", ", unknown"}) + "]");
    if (random() % 4 == 0) add("sni: " + one_of(random, {"a.example.org", "'*.example.net'", "'re:b.*'"}));
    if (random() % 4 == 0) add("executable: [/usr/bin/a" + one_of(random, {"", ", /usr/bin/b"}) + "]");
    if (random() % 5 == 0) add("unit: " + one_of(random, {"a.service", "b.service", "unknown"}));
    if (random() % 5 == 0) add("uid: [" + one_of(random, {"1", "2", "1, 2"}) + "]");
    if (random() % 5 == 0) add("asn: [" + one_of(random, {"64500", "64501", "64500, 64502"}) + "]");
    if (random() % 5 == 0)
        add("remote: [" + one_of(random, {"192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24"}) + "]");
    if (random() % 4 == 0) add("list: [" + one_of(random, {"mixed", "names", "far", "names, numbers"}) + "]");
    if (random() % 4 == 0) add("port: [443/tcp, 80]");
    if (depth > 0 && random() % 3 == 0)
        add("any: [{" + selection(random, depth - 1) + "}, {" + selection(random, depth - 1) + "}]");
    if (depth > 0 && random() % 4 == 0) add("all: [{" + selection(random, depth - 1) + "}]");
    if (depth > 0 && random() % 4 == 0) add("not: {" + selection(random, depth - 1) + "}");
    return out.empty() ? "class: outside" : out;
}

std::string random_policy(Random& random) {
    std::string out = R"(
lists:
  mixed: {cidr: [192.0.2.0/25], domain: [a.example.org], asn: [64500]}
  names: {domain: ["*.example.net", b.example.org]}
  numbers: {asn: [64501]}
  far: {country: [US]}
allow:
)";
    for (int i = 0; i < 20; ++i)
        out += "  - {id: a" + std::to_string(i) + ", to: {country: [US, CA]}, when: {" +
               selection(random, 1) + "}, owner: o, reason: r, expires: 2090-01-01}\n";
    out += "rules:\n";
    for (int i = 0; i < 20; ++i)
        out += "  - {id: r" + std::to_string(i) + ", title: t, level: low, when: {" + selection(random, 1) +
               "}, window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 GiB}}\n";
    return out;
}

// Facts with memory of their own.
struct RandomFacts {
    std::string sni, host, first, second, executable, unit;
    std::vector<std::string_view> dns;
    FlowFacts facts;

    explicit RandomFacts(Random& random) {
        const auto maybe = [&](std::string text) { return random() % 2 == 0 ? text : std::string(); };
        sni = maybe(some_name(random));
        host = sni.empty() ? maybe(some_name(random)) : "";
        first = maybe(some_name(random));
        second = maybe(some_name(random));
        executable = maybe(one_of(random, {"/usr/bin/a", "/usr/bin/b", "/usr/bin/c"}));
        unit = maybe(one_of(random, {"a.service", "b.service"}));
        for (const std::string& name : {std::cref(first), std::cref(second)})
            if (!name.empty()) dns.emplace_back(name);
        facts.dns = dns;
        facts.sni = sni;
        facts.http_host = host;
        facts.executable = executable;
        facts.unit = unit;
        if (random() % 2 == 0) facts.uid = random() % 3;
        facts.contradiction = random() % 4 == 0;
    }
};

}  // namespace

TEST_CASE("what the plan leaves out can never match", "[rules][plan]") {
    Random random(20261126);
    std::size_t matched = 0, left_out = 0;
    for (int round = 0; round < 60; ++round) {
        const auto in_force = policy(random_policy(random));
        Plan plan(*in_force, "");
        std::vector<Plan::Candidate> scratch;
        for (int i = 0; i < 60; ++i) {
            const std::string remote =
                one_of(random, {"192.0.2.1", "192.0.2.200", "198.51.100.7", "203.0.113.9"});
            const std::string country = one_of(random, {"US", "IE", "CA", ""});
            const ClassInfo info = class_of(*in_force, remote, country);
            FlowOf flow(remote, random() % 2 == 0 ? 443 : 22);
            flow.out(100).seen(at(0));
            const RandomFacts known(random);
            Surroundings around;
            around.asn_of = [asn = 64'499 + random() % 4](const Address&) {
                return asn == 64'499 ? 0 : static_cast<std::uint32_t>(asn);
            };
            const PrefixIndex& index = in_force->prefix_index();
            const Subject subject(flow.update, info, known.facts, at(0), index,
                                  index.empty() ? 0 : index.find(flow.update.remote()), around,
                                  flow_bits(flow.update));
            // Each class of a round is another one: its place among the answers is its number.
            const auto& of_class = plan.of_class(static_cast<std::uint16_t>(i), info);
            const auto compare = [&](std::span<const Plan::Candidate> candidates, const Condition& condition,
                                     std::uint32_t number, Purpose purpose) {
                const bool is_candidate = std::ranges::any_of(
                    candidates, [&](const Plan::Candidate& c) { return c.index == number; });
                const bool matches = match(condition, subject, purpose) == Truth::yes;
                matched += matches ? 1 : 0;
                left_out += is_candidate ? 0 : 1;
                if (matches && !is_candidate) FAIL("left out: number " << number << " of round " << round);
            };
            const auto rules = plan.rules(of_class, of_class.rules.any, subject, scratch);
            for (std::uint32_t r = 0; r < in_force->rules.size(); ++r)
                compare(rules, in_force->rules[r].when, r, Purpose::rule);
            const auto allows = plan.allows(of_class, subject, scratch);
            for (std::uint32_t a = 0; a < in_force->allows.size(); ++a)
                compare(allows, in_force->allows[a].match, a, Purpose::allow);
        }
    }
    // Both happened often enough for the comparison to mean something.
    CHECK(matched > 5'000);
    CHECK(left_out > 50'000);
}
