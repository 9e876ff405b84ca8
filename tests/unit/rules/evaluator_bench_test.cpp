// tests/unit/rules/evaluator_bench_test.cpp - what one update costs; hidden: unit_rules "[bench]" prints it.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <ctime>
#include <iostream>

#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

std::string many_rules(int count) {
    constexpr std::array<const char*, 3> by{"remote", "remote_prefix", "country"};
    constexpr std::array<const char*, 5> when{"region: outside, allowed: false",
                                              "region: unknown, allowed: false",
                                              "region: outside, allowed: false, initiator: remote",
                                              "country: [CN, SG]", "region: outside, l4_proto: udp"};
    std::string out = R"(
lists:
  payment_networks: {cidr: [203.0.113.0/24]}
allow:
  - {id: a, to: {list: payment_networks, port: 443/tcp}, owner: o, reason: r, expires: 2030-01-01}
  - {id: b, to: {country: [CA]}, owner: o, reason: r, expires: 2030-01-01}
rules:
)";
    for (int i = 0; i < count; ++i)
        out += "  - id: r" + std::to_string(i) + "\n    title: t\n    level: low\n    when: {" +
               when[static_cast<std::size_t>(i) % when.size()] +
               "}\n    window: {sum: bytes_out, over: 1h, by: [" +
               by[static_cast<std::size_t>(i) % by.size()] + "], at_least: " + std::to_string(1000 + i) +
               " GiB}\n";
    return out;
}

}  // namespace

TEST_CASE("cost of an update", "[.][bench]") {
    constexpr int updates = 2'000'000;
    for (const int rules_count : {1, 20, 100}) {
        const auto in_force = policy(many_rules(rules_count));
        struct Kind {
            const char* name;
            const char* country;
            unsigned remotes;
        };
        for (const Kind& kind :
             {Kind{"home, no rule can match", "IE", 10'000}, Kind{"outside, 100 remotes", "US", 100},
              Kind{"outside, 50,000 remotes", "US", 50'000}}) {
            Evaluator evaluator(in_force);
            std::vector<Finding> findings;
            const ClassInfo info = class_of(*in_force, "198.51.100.1", kind.country);
            FlowOf flow("198.51.100.1");
            const std::clock_t start =
                std::clock();  // of the process: other work on the machine does not count
            for (unsigned i = 0; i < updates; ++i) {
                const Address remote = Address::from_ipv4(0x0b000000u + i * 2654435761u % kind.remotes);
                std::memcpy(flow.update.key.remote_addr, remote.bytes.data(), 16);
                flow.out(1400).seen(at(i / 100'000));
                evaluator.evaluate(flow.update, info, flow.update.last_seen, findings);
            }
            const double took_ns = static_cast<double>(std::clock() - start) * 1e9 / CLOCKS_PER_SEC;
            std::cout << rules_count << " rules, " << kind.name << ": " << took_ns / updates
                      << " ns an update, " << evaluator.counters().groups << " groups\n";
            CHECK(findings.empty());
        }
    }
}
