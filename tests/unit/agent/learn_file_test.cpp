// tests/unit/agent/learn_file_test.cpp - what is proposed from an observation, and that nobody can load it as
// it is. SPDX-License-Identifier: Apache-2.0
#include "agent/cli/learn_file.h"

#include <algorithm>

#include "rules/policy.h"
#include "tests/support/catch.h"

using namespace egresswatch;

namespace {

Observation::Flow flow(const char* remote, std::uint16_t port, std::uint64_t bytes,
                       const char* country = "US") {
    Observation::Flow out;
    out.remote = *Address::parse(remote);
    out.country = country;
    out.l4_proto = 6;
    out.remote_port = port;
    out.local_port = 50000;
    out.bytes_out = bytes;
    out.bytes_in = 100;
    out.first = Timestamp(std::chrono::seconds(1'800'000'000));
    out.last = out.first + std::chrono::hours(24);
    return out;
}

rules::Compiled<rules::LoadedPolicy> compile(const std::string& learned) {
    const std::vector<rules::SourceFile> files{{"10.yaml",
                                                "policy: egresswatch/v1\nname: n\nrevision: 1\nowner: "
                                                "o\nregions: {europe: {countries: [IE]}}\nhome: europe\n"},
                                               {"learned.yaml", learned}};
    return rules::compile_policy(files);
}

std::string filled(std::string text) {
    for (std::size_t at; (at = text.find("expires: FILL-IN")) != std::string::npos;)
        text.replace(at, 16, "expires: 2030-01-01");
    for (std::size_t at; (at = text.find(": FILL-IN")) != std::string::npos;)
        text.replace(at, 9, ": somebody");
    return text;
}

}  // namespace

TEST_CASE("flows are grouped by network, country, direction and process", "[agent][learn]") {
    Observation observation;
    for (int i = 1; i <= 9; ++i)
        observation.add(flow(("203.0.113." + std::to_string(i)).c_str(), 443, 1 << 20));
    observation.add(flow("203.0.113.9", 8443, 1 << 20));
    observation.add(flow("198.51.100.7", 22, 4000, "SG"));
    auto pulled = flow("198.51.100.7", 40000, 9000, "SG");
    pulled.remote_connects = true;
    pulled.local_port = 443;
    observation.add(pulled);
    const auto proposal = cli::propose(observation, {"a test", "egresswatch learn"}, {});
    INFO(proposal.text);
    CHECK(proposal.entries == 3);
    CHECK(proposal.text.find("to: {cidr: [\"203.0.113.0/24\"], port: [443/tcp, 8443/tcp]}") !=
          std::string::npos);
    CHECK(proposal.text.find(
              "# 203.0.113.0/24 (US), tcp, port 443/tcp, 8443/tcp; this host connects; 10 flows, 9 "
              "addresses") != std::string::npos);
    CHECK(proposal.text.find("10.0 MiB out") != std::string::npos);
    CHECK(proposal.text.find("ceiling: {bytes_out: 20 MiB, per: 1d}") != std::string::npos);
    CHECK(proposal.text.find("to: {cidr: [\"198.51.100.7\"], port: [22/tcp]}") != std::string::npos);
    CHECK(proposal.text.find("to: {cidr: [\"198.51.100.7\"]}\n    direction: in") != std::string::npos);
}

TEST_CASE("a proposal is refused until a person has filled it in", "[agent][learn]") {
    Observation observation;
    observation.add(flow("203.0.113.1", 443, 1 << 20));
    observation.add(flow("2001:db8::1", 443, 1 << 20, "unknown"));
    const std::string text = cli::propose(observation, {"a test", "egresswatch learn"}, {}).text;
    const auto refused = compile(text);
    REQUIRE(!refused);
    CHECK(rules::count_errors(refused.error()) == 6);
    for (const auto& diagnostic : refused.error()) {
        if (diagnostic.severity == rules::Severity::warning) continue;
        CHECK(diagnostic.code == "rules/fill-in");
        CHECK(diagnostic.message.find("is still to be filled in") != std::string::npos);
    }
    const auto loaded = compile(filled(text));
    if (!loaded) FAIL(rules::format_diagnostic(loaded.error().front()));
    CHECK(loaded->policy->allows.size() == 2);
}

TEST_CASE("networks of one AS become one entry where that is asked for, tunnelled flows none",
          "[agent][learn]") {
    Observation observation;
    observation.add(flow("203.0.113.1", 443, 1 << 20));
    observation.add(flow("198.51.100.1", 443, 1 << 20));
    observation.add(flow("192.0.2.1", 22, 4000, "SG"));
    auto carried = flow("198.51.100.9", 443, 1 << 20);
    carried.tunnelled = true;
    observation.add(carried);
    const auto asn_of = [](const Address& address) { return address.bytes[12] == 192 ? 0u : 64500u; };
    const auto by_asn = cli::propose(observation, {"a test", "egresswatch learn"}, {0, asn_of, true});
    INFO(by_asn.text);
    CHECK(by_asn.entries == 2);
    CHECK(by_asn.text.find("to: {asn: [64500], country: [\"US\"], port: [443/tcp]}") != std::string::npos);
    CHECK(by_asn.text.find("# AS64500, 2 networks (US), tcp, port 443/tcp; this host connects; 2 flows") !=
          std::string::npos);
    CHECK(by_asn.text.find("to: {cidr: [\"192.0.2.1\"], port: [22/tcp]}") != std::string::npos);
    CHECK(by_asn.text.find("# 1 flows in tunnels are left out") != std::string::npos);
    const auto loaded = compile(filled(by_asn.text));
    if (!loaded) FAIL(rules::format_diagnostic(loaded.error().front()));
    const auto by_prefix = cli::propose(observation, {"a test", "egresswatch learn"}, {0, asn_of, false});
    CHECK(by_prefix.entries == 3);
    CHECK(by_prefix.text.find("# AS64500, 203.0.113.0/24 (US)") != std::string::npos);
}

TEST_CASE("small destinations are left out, and said so", "[agent][learn]") {
    Observation observation;
    observation.add(flow("203.0.113.1", 443, 5000));
    observation.add(flow("198.51.100.1", 443, 50));
    const auto proposal =
        cli::propose(observation, {"a test", "egresswatch learn"}, {.bytes_min = 1000, .asn_of = {}});
    CHECK(proposal.entries == 1);
    CHECK(proposal.left_out == 1);
    CHECK(compile(cli::propose(Observation(), {"a test", "egresswatch learn"}, {}).text));
}

TEST_CASE("an observation is the same after its way over the control socket", "[agent][learn]") {
    Observation observation;
    observation.add(flow("203.0.113.1", 443, 5000));
    observation.add(flow("2001:db8::1", 443, 70, "unknown"));
    const auto there = Observation::from_json(nlohmann::json::parse(observation.to_json().dump()));
    REQUIRE(there);
    CHECK(there->to_json() == observation.to_json());
    CHECK(!Observation::from_json(nlohmann::json::parse("{}")));
    CHECK(!Observation::from_json(nlohmann::json::parse(R"({"groups": [{"prefix": "x"}]})")));
    CHECK(!Observation::from_json(nlohmann::json::parse(R"({"groups": [{"prefix": 7}]})")));
}

TEST_CASE("groups beyond the limit are counted", "[agent][learn]") {
    Observation observation;
    for (std::size_t i = 0; i < Observation::groups_max + 10; ++i) {
        auto one = flow("203.0.113.1", 443, 10);
        one.remote = Address::from_ipv4(static_cast<std::uint32_t>(0x08000000 + (i << 8)));
        observation.add(one);
    }
    CHECK(observation.groups().size() == Observation::groups_max);
    CHECK(observation.not_grouped() == 10);
}
