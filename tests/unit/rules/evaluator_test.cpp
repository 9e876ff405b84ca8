// tests/unit/rules/evaluator_test.cpp - flow updates in, findings out.
// SPDX-License-Identifier: Apache-2.0
#include "rules/evaluator.h"

#include <array>
#include <functional>
#include <span>

#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

constexpr std::uint64_t mib = 1 << 20;

constexpr std::string_view bulk = R"(
rules:
  - id: bulk
    title: Bulk transfer
    revision: 3
    level: high
    tags: [attack.t1041]
    when: {region: outside, allowed: false}
    window: {sum: bytes_out, over: 10m, by: [remote], at_least: 50 MiB}
    suppress: {for: 1h, by: [remote]}
)";

constexpr std::string_view card_scheme = R"(
lists:
  payment_networks: {cidr: [203.0.113.0/24, "2001:db8:77::/48"]}
allow:
  - id: card-scheme
    to: {list: payment_networks, port: [443/tcp, 8000-8100/tcp]}
    owner: payments@example.org
    reason: Card authorisation
    expires: 2026-06-30
)";

// An evaluator with what it found; every update is one of its flow's first.
struct Bench {
    std::shared_ptr<const Policy> in_force;
    Evaluator evaluator;
    std::vector<Finding> findings;
    std::uint64_t missing = 0;  // what evaluate() answered last

    explicit Bench(std::string_view text) : in_force(policy(text)), evaluator(in_force) {}

    // Answers how many findings the update made.
    std::size_t send(const FlowOf& flow, std::string_view country, Timestamp now = {}) {
        const std::size_t before = findings.size();
        const ClassInfo info = class_of(*evaluator.policy(), flow.update.remote().to_string(), country);
        missing = evaluator.evaluate(flow.update, info, std::max(now, flow.update.last_seen), findings);
        return findings.size() - before;
    }
};

}  // namespace

TEST_CASE("a window fires at its threshold and not one byte below", "[rules][evaluator]") {
    Bench below(bulk);
    CHECK(below.send(FlowOf("198.51.100.9").out(50 * mib - 1).seen(at(0)), "CN") == 0);
    Bench exact(bulk);
    CHECK(exact.send(FlowOf("198.51.100.9").out(50 * mib - 1).seen(at(0)), "CN") == 0);
    CHECK(exact.send(FlowOf("198.51.100.9").out(1).seen(at(5)), "CN") == 1);
    const Finding& finding = exact.findings.front();
    CHECK(finding.rule_id == "bulk");
    CHECK(finding.rule_revision == 3);
    CHECK(finding.level == Level::high);
    CHECK(finding.value == 50 * mib);
    CHECK(finding.threshold == 50 * mib);
    CHECK(finding.window == std::chrono::minutes(10));
    CHECK(finding.window_start == at(0));
    CHECK(finding.window_end == at(5));
    CHECK(finding.time == at(5));
    CHECK(finding.info.country == "CN");
    CHECK(!finding.decision.allowed);
    CHECK(finding.decision.reason == "no allow entry names this destination");
    REQUIRE(finding.group.size() == 1);
    CHECK(finding.group[0].name == "remote");
    CHECK(finding.group[0].value == "198.51.100.9");
    CHECK(finding.policy_name == "case");
}

TEST_CASE("home, local and other remotes do not fill a window of the outside", "[rules][evaluator]") {
    Bench bench(bulk);
    CHECK(bench.send(FlowOf("198.51.100.9").class_id(1).out(60 * mib).seen(at(0)), "NO") == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").class_id(2).out(60 * mib).seen(at(0)), "GB") == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").class_id(3).out(60 * mib).seen(at(0)), "") == 0);  // unknown
    CHECK(bench.send(FlowOf("198.51.100.1").class_id(4).out(30 * mib).seen(at(0)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.2").class_id(4).out(30 * mib).seen(at(0)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.2").class_id(4).out(30 * mib).seen(at(0)), "CN") == 1);
}

TEST_CASE("bytes leave the window by buckets, never before its full length has passed",
          "[rules][evaluator]") {
    // over 10m: buckets of 10 s. Bytes of second 0 count until second 609, and no longer.
    for (const auto& [second, findings] : {std::pair{600, 1}, std::pair{609, 1}, std::pair{610, 0}}) {
        Bench bench(bulk);
        bench.send(FlowOf("198.51.100.9").out(30 * mib).seen(at(0)), "CN");
        INFO(second);
        CHECK(bench.send(FlowOf("198.51.100.9").out(20 * mib).seen(at(second)), "CN") ==
              static_cast<std::size_t>(findings));
    }
}

TEST_CASE("a prefix is /24 of IPv4 and /48 of IPv6", "[rules][evaluator]") {
    constexpr std::string_view text = R"(
rules:
  - id: trickle
    title: Small amounts to one network
    level: medium
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [remote_prefix], at_least: 10 MiB}
)";
    Bench bench(text);
    for (int host = 1; host < 10; ++host)
        CHECK(bench.send(FlowOf("198.51.100." + std::to_string(host)).out(mib).seen(at(host)), "US") == 0);
    CHECK(bench.send(FlowOf("198.51.101.1").out(mib).seen(at(10)), "US") == 0);  // the neighbour
    CHECK(bench.send(FlowOf("198.51.100.200").out(mib).seen(at(11)), "US") == 1);
    CHECK(bench.findings.back().group[0].value == "198.51.100.0/24");
    CHECK(bench.findings.back().flows_in_window == 10);
    for (int host = 1; host < 10; ++host)
        CHECK(bench.send(FlowOf("2001:db8:1:" + std::to_string(host) + "::1").out(mib).seen(at(20)), "US") ==
              0);
    CHECK(bench.send(FlowOf("2001:db8:2::1").out(mib).seen(at(21)), "US") == 0);
    CHECK(bench.send(FlowOf("2001:db8:1:ffff::1").out(mib).seen(at(22)), "US") == 1);
    CHECK(bench.findings.back().group[0].value == "2001:db8:1::/48");
}

TEST_CASE("a window by country joins all addresses of one, and names the unknown", "[rules][evaluator]") {
    constexpr std::string_view text = R"(
rules:
  - id: country
    title: Volume to one country
    level: medium
    when: {region: [outside, unknown]}
    window: {sum: bytes_out, over: 1h, by: [country], at_least: 2 MiB}
)";
    Bench bench(text);
    CHECK(bench.send(FlowOf("198.51.100.1").class_id(1).out(mib).seen(at(0)), "US") == 0);
    CHECK(bench.send(FlowOf("192.0.2.1").class_id(2).out(mib).seen(at(0)), "CN") == 0);
    CHECK(bench.send(FlowOf("2001:db8::1").class_id(1).out(mib).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().group[0].value == "US");
    CHECK(bench.send(FlowOf("192.0.2.7").class_id(3).out(2 * mib).seen(at(0)), "") == 1);
    CHECK(bench.findings.back().group[0].value == "unknown");
}

TEST_CASE("packets are counted where a window sums packets", "[rules][evaluator]") {
    constexpr std::string_view text = R"(
rules:
  - id: packets
    title: Many packets
    level: low
    when: {region: outside, l4_proto: udp}
    window: {sum: packets_out, over: 1m, by: [], at_least: 1k}
)";
    Bench bench(text);
    CHECK(bench.send(FlowOf("198.51.100.1", 53, 17).out(mib, 999).seen(at(0)), "US") == 0);
    CHECK(bench.send(FlowOf("198.51.100.2", 53, 6).out(mib, 999).seen(at(0)), "US") == 0);  // TCP
    CHECK(bench.send(FlowOf("198.51.100.2", 53, 17).out(mib, 1).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().measure == "packets_out");
    CHECK(bench.findings.back().value == 1000);
    CHECK(bench.findings.back().group.empty());
}

TEST_CASE("repeats are suppressed per group, counted, and told by the next finding", "[rules][evaluator]") {
    Bench bench(bulk);
    CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(at(0)), "CN") == 1);
    CHECK(bench.findings.back().suppressed == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(at(60)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.10").out(60 * mib).seen(at(60)), "CN") == 1);  // another group
    CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(at(3599)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").out(50 * mib).seen(at(3600)), "CN") == 1);
    CHECK(bench.findings.back().suppressed == 2);
    CHECK(bench.evaluator.counters().suppressed == 2);
    CHECK(bench.evaluator.rule_status().front().suppressed == 2);
    CHECK(bench.evaluator.rule_status().front().findings == 3);
}

TEST_CASE("what a finding has told is not told again by the next byte", "[rules][evaluator]") {
    Bench bench(R"(
rules:
  - id: bulk
    title: Bulk transfer
    level: high
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [remote], at_least: 50 MiB}
    suppress: {for: 1m}
)");
    CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(at(0)), "CN") == 1);
    CHECK(bench.send(FlowOf("198.51.100.9").out(49 * mib).seen(at(120)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").out(1 * mib).seen(at(121)), "CN") == 1);
    CHECK(bench.findings.back().value == 50 * mib);
}

TEST_CASE("suppression may be coarser than the window", "[rules][evaluator]") {
    Bench bench(R"(
rules:
  - id: bulk
    title: Bulk transfer
    level: high
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}
    suppress: {for: 1h, by: [country]}
)");
    CHECK(bench.send(FlowOf("198.51.100.1").class_id(1).out(mib).seen(at(0)), "CN") == 1);
    CHECK(bench.send(FlowOf("198.51.100.2").class_id(1).out(mib).seen(at(1)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.3").class_id(2).out(mib).seen(at(1)), "US") == 1);
}

TEST_CASE("an allow entry covers its network on its ports, and the finding says on what others failed",
          "[rules][evaluator]") {
    Bench bench(std::string(card_scheme) + std::string(bulk));
    CHECK(bench.send(FlowOf("203.0.113.10", 443).out(60 * mib).seen(at(0)), "US") == 0);
    CHECK(bench.send(FlowOf("203.0.113.10", 8050).out(60 * mib).seen(at(0)), "US") == 0);
    CHECK(bench.send(FlowOf("203.0.113.10", 8443).out(60 * mib).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().decision.reason ==
          "card-scheme: port 8443/tcp is not in 443/tcp, 8000-8100/tcp");
    CHECK(bench.findings.back().list_names == std::vector<std::string>{"payment_networks"});
    CHECK(bench.send(FlowOf("203.0.113.11", 443, 17).out(60 * mib).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().decision.reason ==
          "card-scheme: port 443/udp is not in 443/tcp, 8000-8100/tcp");
    CHECK(bench.send(FlowOf("203.0.112.11", 443).class_id(2).out(60 * mib).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().decision.reason == "no allow entry names this destination");

    const FlowOf flow = FlowOf("2001:db8:77::5", 443).seen(at(0));
    const ClassInfo info = class_of(*bench.in_force, "2001:db8:77::5", "US");
    const Decision decision = bench.evaluator.decide(flow.update, info, at(0));
    CHECK(decision.allowed);
    CHECK(decision.allow_id == "card-scheme");
    CHECK(decision.reason == "Card authorisation");
}

TEST_CASE("a fragment without a port is not covered by an entry that names ports", "[rules][evaluator]") {
    Bench bench(std::string(card_scheme) + std::string(bulk));
    CHECK(bench.send(FlowOf("203.0.113.10", 0).out(60 * mib).seen(at(0)), "US") == 1);
    CHECK(bench.findings.back().decision.reason.find("unknown") != std::string::npos);
}

TEST_CASE("an entry allows through its last day and not a nanosecond longer", "[rules][evaluator]") {
    Bench bench(std::string(card_scheme) + std::string(bulk));
    const Timestamp end{std::chrono::sys_days(std::chrono::year{2026} / 7 / 1)};
    const ClassInfo info = class_of(*bench.in_force, "203.0.113.10", "US");
    const FlowOf flow("203.0.113.10", 443);
    CHECK(bench.evaluator.decide(flow.update, info, end - std::chrono::nanoseconds(1)).allowed);
    const Decision after = bench.evaluator.decide(flow.update, info, end);
    CHECK(!after.allowed);
    CHECK(after.reason == "card-scheme expired 2026-06-30");
    CHECK(bench.send(FlowOf("203.0.113.10", 443).out(60 * mib).seen(end - std::chrono::nanoseconds(1)),
                     "US") == 0);
    CHECK(bench.send(FlowOf("203.0.113.10", 443).out(60 * mib).seen(end), "US") == 1);
}

TEST_CASE("an entry that expires at an instant allows until it", "[rules][evaluator]") {
    const auto in_force = policy(R"(
allow:
  - id: migration
    to: {country: US}
    owner: o
    reason: r
    expires: 2026-03-02T12:00:00Z
)");
    const Evaluator evaluator(in_force);
    const ClassInfo info = class_of(*in_force, "198.51.100.1", "US");
    CHECK(evaluator.decide(FlowOf("198.51.100.1").update, info, at(12 * 3600 - 1)).allowed);
    CHECK(!evaluator.decide(FlowOf("198.51.100.1").update, info, at(12 * 3600)).allowed);
}

TEST_CASE("a rule for pulls counts what the remote end started and nothing else", "[rules][evaluator]") {
    constexpr std::string_view text = R"(
rules:
  - id: foreign-pull
    title: Remote end pulls
    level: high
    when: {region: outside, allowed: false, initiator: remote}
    window: {sum: bytes_out, over: 1h, by: [remote_prefix], at_least: 20 MiB}
)";
    Bench bench(text);
    CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(at(0)), "SG") == 0);
    FlowOf nobody("198.51.100.9");
    nobody.update.initiator = datapath::INITIATOR_UNKNOWN;
    CHECK(bench.send(nobody.out(60 * mib).seen(at(0)), "SG") == 0);
    CHECK(bench.send(FlowOf("198.51.100.9").by_remote().out(20 * mib).seen(at(0)), "SG") == 1);
    CHECK(bench.findings.back().flow.initiator == datapath::INITIATOR_REMOTE);
}

TEST_CASE("an entry with a direction covers only flows that connect so", "[rules][evaluator]") {
    const auto in_force = policy(R"(
allow:
  - id: outbound
    to: {country: US}
    direction: out
    owner: o
    reason: r
    expires: 2027-01-01
)");
    const Evaluator evaluator(in_force);
    const ClassInfo info = class_of(*in_force, "198.51.100.1", "US");
    CHECK(evaluator.decide(FlowOf("198.51.100.1").update, info, at(0)).allowed);
    const Decision pulled = evaluator.decide(FlowOf("198.51.100.1").by_remote().update, info, at(0));
    CHECK(!pulled.allowed);
    CHECK(pulled.reason == "outbound: the remote end connected, and it covers only where this host connects");
    FlowOf nobody("198.51.100.1");
    nobody.update.initiator = datapath::INITIATOR_UNKNOWN;
    CHECK(!evaluator.decide(nobody.update, info, at(0)).allowed);
}

TEST_CASE("unknown is never allowed: no country, disputed country, fields of later versions",
          "[rules][evaluator]") {
    const auto in_force = policy(R"(
lists:
  mixed: {country: US, asn: 64500}
allow:
  - {id: by-country, to: {country: US}, owner: o, reason: r, expires: 2027-01-01}
  - {id: by-region, to: {region: europe}, owner: o, reason: r, expires: 2027-01-01}
  - {id: by-list, to: {list: mixed}, owner: o, reason: r, expires: 2027-01-01}
  - {id: by-name, to: {domain: "*.example.org"}, owner: o, reason: r, expires: 2027-01-01}
  - {id: by-sender, to: {country: CN}, from: {user: backup}, owner: o, reason: r, expires: 2027-01-01}
)");
    const Evaluator evaluator(in_force);
    const auto decide = [&](ClassInfo info, std::uint16_t class_id) {
        return evaluator.decide(FlowOf("198.51.100.1").class_id(class_id).update, info, at(0));
    };
    CHECK(decide(class_of(*in_force, "198.51.100.1", "US"), 1).allow_id == "by-country");
    const Decision unknown = decide(class_of(*in_force, "198.51.100.1", ""), 2);
    CHECK(!unknown.allowed);
    CHECK(unknown.reason.find("by-country: the country is unknown") == 0);
    ClassInfo disputed = class_of(*in_force, "198.51.100.1", "US");
    disputed.disputed = true;
    CHECK(!decide(disputed, 3).allowed);
    CHECK(decide(disputed, 3).reason.find("by-country: the geo sources disagree about country US") == 0);
    const Decision sender = decide(class_of(*in_force, "198.51.100.1", "CN"), 4);
    CHECK(!sender.allowed);
    CHECK(sender.reason.find("by-sender: user of this flow is unknown") != std::string::npos);
    ClassInfo as_home;  // `unknown_country: home` gives it that kind, and no country
    as_home.kind = datapath::KIND_HOME;
    CHECK(!decide(as_home, 5).allowed);
}

TEST_CASE("an exception excuses its flows until it expires", "[rules][evaluator]") {
    Bench bench(std::string(bulk) + R"(    exceptions:
      - match: {remote: 198.51.100.7, port: 443/tcp}
        owner: sre@example.org
        expires: 2026-03-02
)");
    CHECK(bench.send(FlowOf("198.51.100.7", 443).class_id(1).out(60 * mib).seen(at(0)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.7", 80).class_id(1).out(60 * mib).seen(at(0)), "CN") == 1);
    CHECK(bench.send(FlowOf("198.51.100.8", 443).class_id(2).out(60 * mib).seen(at(0)), "CN") == 1);
    CHECK(bench.send(FlowOf("198.51.100.7", 443).class_id(1).out(60 * mib).seen(at(86'400)), "CN") == 1);
}

TEST_CASE("a rule or exception over a field of unknown source does nothing", "[rules][evaluator]") {
    Bench bench(R"(
rules:
  - id: by-process
    title: Restic
    level: high
    when: {region: outside, executable: /usr/bin/restic}
    window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}
  - id: by-asn
    title: One network
    level: high
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [asn], at_least: 1 MiB}
  - id: excused
    title: With an exception that cannot match
    level: high
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [remote, asn], at_least: 1 MiB}
    exceptions:
      - match: {asn: 64500}
        owner: sre@example.org
        expires: 2027-01-01
)");
    CHECK(bench.send(FlowOf("198.51.100.7").out(60 * mib).seen(at(0)), "CN") == 1);
    CHECK(bench.findings.back().rule_id == "excused");
    CHECK(bench.evaluator.rule_status()[0].active);
    CHECK(!bench.evaluator.rule_status()[1].active);
    CHECK(bench.evaluator.rule_status()[2].active);
}

TEST_CASE("a tunnelled flow is covered only if both ends of the way are", "[rules][evaluator]") {
    const auto in_force = policy(std::string(card_scheme) + std::string(bulk));
    const auto look_up = [&](std::string_view outer_country) {
        return [in_force, outer_country, info = ClassInfo{}](const Address& address) mutable {
            const std::string text = address.to_string();
            info = class_of(*in_force, text, text.starts_with("203.0.113.") ? "US" : outer_country);
            return static_cast<const ClassInfo*>(&info);
        };
    };
    FlowOf flow("203.0.113.10", 443);
    flow.update.key.tunnel = datapath::TUNNEL_GRE;
    flow.update.outer_remote = *Address::parse("192.0.2.1");
    const ClassInfo info = class_of(*in_force, "203.0.113.10", "US");
    CHECK(Evaluator(in_force, look_up("IE")).decide(flow.update, info, at(0)).allowed);
    const Decision abroad = Evaluator(in_force, look_up("CN")).decide(flow.update, info, at(0));
    CHECK(!abroad.allowed);
    CHECK(abroad.reason.find("tunnelled to 192.0.2.1") != std::string::npos);
    CHECK(!Evaluator(in_force).decide(flow.update, info, at(0)).allowed);
    flow.update.outer_remote = *Address::parse("203.0.113.1");
    CHECK(Evaluator(in_force, look_up("CN")).decide(flow.update, info, at(0)).allowed);
}

TEST_CASE("a late update counts in its own bucket, or is counted as late", "[rules][evaluator]") {
    Bench bench(bulk);
    bench.send(FlowOf("198.51.100.9").out(30 * mib).seen(at(2000)), "CN");
    CHECK(bench.send(FlowOf("198.51.100.9").out(30 * mib).seen(at(1000)), "CN", at(2000)) == 0);
    CHECK(bench.evaluator.counters().late == 1);
    CHECK(bench.send(FlowOf("198.51.100.9").out(20 * mib).seen(at(1500)), "CN", at(2000)) == 1);
    CHECK(bench.findings.back().window_start == at(1500));
    CHECK(bench.evaluator.counters().late == 1);
}

TEST_CASE("an update from the future counts at the time reached", "[rules][evaluator]") {
    Bench bench(bulk);
    std::vector<Finding> findings;
    const FlowOf ahead = FlowOf("198.51.100.9").out(60 * mib).seen(at(5000));
    bench.evaluator.evaluate(ahead.update, class_of(*bench.in_force, "198.51.100.9", "CN"), at(10), findings);
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].time == at(10));
    CHECK(bench.evaluator.counters().ahead == 1);
}

TEST_CASE("times at the ends of the clock do not overflow", "[rules][evaluator]") {
    for (const Timestamp when : {Timestamp::min(), Timestamp{}, Timestamp::max()}) {
        Bench bench(bulk);
        CHECK(bench.send(FlowOf("198.51.100.9").out(60 * mib).seen(when), "CN", when) == 1);
        std::vector<Finding> none;
        bench.evaluator.advance(Timestamp::max(), none);
        CHECK(bench.evaluator.counters().groups == 0);
    }
}

TEST_CASE("how many bytes may go until a window fills", "[rules][evaluator]") {
    Bench bench(std::string(card_scheme) + std::string(bulk) + R"(
  - id: packets
    title: Packets ask for nothing
    level: low
    when: {region: outside}
    window: {sum: packets_out, over: 1m, by: [], at_least: 10k}
)");
    bench.send(FlowOf("198.51.100.9").out(20 * mib).seen(at(0)), "CN");
    CHECK(bench.missing == 30 * mib);
    bench.send(FlowOf("198.51.100.9").out(30 * mib - 1).seen(at(1)), "CN");
    CHECK(bench.missing == 1);
    bench.send(FlowOf("198.51.100.9").out(1).seen(at(1)), "CN");
    CHECK(bench.findings.size() == 1);
    CHECK(bench.missing == Evaluator::never);
    bench.send(FlowOf("198.51.100.9").out(1).seen(at(2)), "CN");
    CHECK(bench.missing == Evaluator::never);  // suppressed
    bench.send(FlowOf("203.0.113.1").class_id(2).out(mib).seen(at(2)), "US");
    CHECK(bench.missing == Evaluator::never);  // allowed
}

TEST_CASE("windows and suppressions of unchanged rules survive a reload, changed rules start anew",
          "[rules][evaluator]") {
    Bench bench(bulk);
    bench.send(FlowOf("198.51.100.9").out(30 * mib).seen(at(0)), "CN");
    bench.send(FlowOf("198.51.100.8").out(60 * mib).seen(at(0)), "CN");
    // A title, a level and a further list change nothing in what is counted.
    std::string same(bulk);
    same.replace(same.find("Bulk transfer"), 13, "Another title");
    bench.evaluator.replace_policy(policy(std::string(card_scheme) + same));
    CHECK(bench.send(FlowOf("198.51.100.9").out(20 * mib).seen(at(1)), "CN") == 1);
    CHECK(bench.findings.back().title == "Another title");
    CHECK(bench.send(FlowOf("198.51.100.8").out(60 * mib).seen(at(1)), "CN") == 0);
    std::string other(bulk);
    other.replace(other.find("50 MiB"), 6, "40 MiB");
    bench.send(FlowOf("198.51.100.7").out(30 * mib).seen(at(2)), "CN");
    bench.evaluator.replace_policy(policy(other));
    CHECK(bench.send(FlowOf("198.51.100.7").out(20 * mib).seen(at(2)), "CN") == 0);
    CHECK(bench.send(FlowOf("198.51.100.7").out(20 * mib).seen(at(2)), "CN") == 1);
    CHECK(bench.evaluator.counters().findings == 3);
    bench.evaluator.replace_policy(policy(""));
    CHECK(bench.send(FlowOf("198.51.100.7").out(90 * mib).seen(at(3)), "CN") == 0);
    CHECK(bench.evaluator.counters().groups == 0);
}

TEST_CASE("a class id whose lists change their numbers is planned anew", "[rules][evaluator]") {
    Bench bench(std::string(card_scheme) + std::string(bulk));
    CHECK(bench.send(FlowOf("203.0.113.10").out(60 * mib).seen(at(0)), "US") == 0);
    bench.evaluator.replace_policy(policy("lists:\n  aaa: {cidr: 203.0.113.0/24}\n" + std::string(bulk)));
    CHECK(bench.send(FlowOf("203.0.113.10").out(60 * mib).seen(at(1)), "US") == 1);
}

TEST_CASE("the same updates make the same findings in the same order", "[rules][evaluator]") {
    const auto run = [] {
        Bench bench(std::string(card_scheme) + std::string(bulk) + R"(
  - id: second
    title: Second
    level: low
    when: {region: outside}
    window: {sum: bytes_out, over: 1h, by: [country], at_least: 100 MiB}
)");
        std::string out;
        std::uint64_t random = 1;
        for (int i = 0; i < 20'000; ++i) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const auto host = static_cast<unsigned>(random >> 33 & 63);
            bench.send(FlowOf("203.0.113." + std::to_string(host), random >> 40 & 1 ? 443 : 80)
                           .out(random >> 41)
                           .seen(at(i / 4 + static_cast<int>(random >> 41 & 3))),
                       "US", at(i / 4 + 4));
        }
        for (const Finding& f : bench.findings)
            out += f.rule_id + f.group[0].value + std::to_string(f.value) + "/" +
                   std::to_string(f.suppressed) + "\n";
        return out;
    };
    const std::string first = run();
    CHECK(first.size() > 200);
    CHECK(first == run());
}

TEST_CASE("a batch comes out as its updates would one by one", "[rules][evaluator]") {
    const auto in_force = policy(R"(
lists:
  payment_networks: {cidr: [203.0.113.0/24]}
allow:
  - {id: scheme, to: {list: payment_networks, port: 443/tcp}, ceiling: {bytes_out: 3 MiB, per: 1h}, owner: o,
     reason: r, expires: 2030-01-01}
rules:
  - {id: first, title: t, level: low, when: {region: outside, allowed: false},
     window: {sum: bytes_out, over: 1m, by: [remote], at_least: 2 MiB}, suppress: {for: 5m}}
  - {id: second, title: t, level: low, when: {region: outside}, window: {sum: flows, over: 10m, by: [country],
     at_least: 1000}}
  - {id: wide, title: t, level: low, when: {region: outside, allowed: false},
     window: {distinct: remote, over: 10m, by: [remote_prefix, port], at_least: 20}}
  - {id: pull, title: t, level: low, when: {region: outside},
     window: {sum: bytes_in, over: 10m, by: [remote], at_least: 1 MiB}}
  - {id: named, title: t, level: low, when: {region: outside, domain: [a.example.net]},
     window: {sum: bytes_out, over: 10m, by: [remote, user], at_least: 1 MiB}}
  - {id: both, title: t, level: high, sequence: {first: first, then: pull, within: 10m, by: [remote]}}
)");
    const std::array<ClassInfo, 4> classes{
        class_of(*in_force, "198.51.100.9", "US"), class_of(*in_force, "198.51.100.9", ""),
        class_of(*in_force, "198.51.100.9", "IE"), class_of(*in_force, "203.0.113.9", "US")};
    std::vector<FlowUpdate> updates;
    std::uint64_t random = 1;
    for (int i = 0; i < 300'000; ++i) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const auto bits = static_cast<std::uint32_t>(random >> 32);
        random = random * 6364136223846793005u + 1442695040888963407u;
        const std::uint32_t spread = (bits & 3) != 0 ? 0x3ffff : 0x3f;  // most once, some often
        const Address remote =
            Address::from_ipv4(0x0b000000u + 7 * (static_cast<std::uint32_t>(random >> 40) & spread));
        FlowOf flow("198.51.100.9", (bits >> 2 & 1) != 0 ? 443 : 80);
        std::memcpy(flow.update.key.remote_addr, remote.bytes.data(), 16);
        flow.class_id(static_cast<std::uint16_t>(bits >> 3 & 3));
        flow.out((bits >> 5 & 7) == 0 ? 0 : bits >> 14, (bits >> 5 & 7) == 0 ? 0 : 1).seen(at(i / 200));
        flow.update.delta.bytes_in = bits >> 15;
        if ((bits >> 8 & 3) == 0) flow.update.delta = {};
        updates.push_back(flow.update);
    }
    static const std::array<std::string_view, 1> names{"a.example.net"};
    FlowFacts named;
    named.dns = names;
    named.user = "backup";
    const auto facts_of = [&](const FlowUpdate& update) -> const FlowFacts& {
        static const FlowFacts nothing;
        return update.key.remote_addr[15] % 16 == 0 ? named : nothing;
    };
    const auto text_of = [](const std::vector<Finding>& findings) {
        std::string out;
        for (const Finding& f : findings)
            out += f.rule_id + " " + f.group[0].value + " " + std::to_string(f.value) + " " +
                   std::to_string(f.suppressed) + " " + f.decision.reason + "\n";
        return out;
    };
    struct Told {
        std::string findings;
        std::vector<std::uint64_t> missing;
        EvaluatorCounters counters;
    };
    const auto alone = [&] {
        Evaluator evaluator(in_force);
        Told out;
        for (const FlowUpdate& update : updates) {
            std::vector<Finding> findings;
            out.missing.push_back(evaluator.evaluate(update, classes[update.key.class_id],
                                                     update.last_seen + std::chrono::seconds(1), findings,
                                                     facts_of(update)));
            out.findings += text_of(findings);
        }
        out.counters = evaluator.counters();
        return out;
    }();
    struct Handler final : BatchHandler {
        std::function<const ClassInfo&(const FlowUpdate&)> info;
        std::function<const FlowFacts&(const FlowUpdate&)> facts;
        std::function<void(std::uint64_t)> told;
        std::uint32_t reasons = every_reason;
        [[nodiscard]] std::uint32_t reasons_told() const noexcept override { return reasons; }
        const ClassInfo& info_of(const FlowUpdate& update) override { return info(update); }
        const FlowFacts& facts_of(const FlowUpdate& update) override { return facts(update); }
        void evaluated(const FlowUpdate&, std::uint64_t missing) override { told(missing); }
    };
    const auto in_batches = [&](std::uint32_t reasons) {
        Evaluator evaluator(in_force);
        Told out;
        std::vector<Finding> findings;
        Handler handler;
        handler.reasons = reasons;
        handler.info = [&](const FlowUpdate& update) -> const ClassInfo& {
            return classes[update.key.class_id];
        };
        handler.facts = facts_of;
        handler.told = [&](std::uint64_t missing) {
            out.missing.push_back(missing);
            out.findings += text_of(findings);
            findings.clear();
        };
        // Of all sizes up to 200, each of one second.
        for (std::size_t first = 0, size = 1; first < updates.size(); first += size) {
            size = std::min(1 + first % 200, 200 - first % 200);
            evaluator.evaluate(std::span(updates).subspan(first, size),
                               updates[first].last_seen + std::chrono::seconds(1), findings, handler);
        }
        out.counters = evaluator.counters();
        return out;
    };
    const Told batches = in_batches(Handler::every_reason);
    CHECK(std::ranges::count(alone.findings, '\n') > 300);
    for (const char* rule :
         {"first ", "second ", "wide ", "pull ", "named ", "both ", "egresswatch/allow-ceiling "})
        CHECK((alone.findings.find(rule) != std::string::npos ? "" : rule) == std::string());
    CHECK(alone.counters.window_evictions > 0);
    CHECK(batches.findings == alone.findings);
    CHECK(batches.missing == alone.missing);
    CHECK(batches.counters.updates == alone.counters.updates);
    CHECK(batches.counters.suppressed == alone.counters.suppressed);
    CHECK(batches.counters.window_evictions == alone.counters.window_evictions);
    CHECK(batches.counters.groups == alone.counters.groups);
    CHECK(batches.counters.cells == alone.counters.cells);
    CHECK(batches.counters.late == alone.counters.late);
    // Who wants to hear of no update that nothing can look at hears of all others.
    Told some = in_batches(0);
    CHECK(some.findings == alone.findings);
    CHECK(some.missing.size() < alone.missing.size());
    std::vector<std::uint64_t> all_missing = alone.missing;
    std::erase(all_missing, Evaluator::never);
    std::erase(some.missing, Evaluator::never);
    CHECK(some.missing == all_missing);
}

TEST_CASE("a name that the sender says against DNS is told once an hour, where an entry would believe either",
          "[rules][evaluator]") {
    Bench bench(R"(
allow:
  - {id: updates, to: {domain: "*.example.org"}, owner: o@example.org, reason: r, expires: 2030-01-01}
rules:
  - {id: bulk, title: t, level: low, when: {region: outside, allowed: false}, window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 GiB}}
)");
    CHECK(bench.evaluator.wants_names());
    const std::array<std::string_view, 1> answered{"a.example.org"};
    const std::array<std::string_view, 1> elsewhere{"b.example.net"};
    const auto send = [&](std::string_view remote, std::string_view sni,
                          std::span<const std::string_view> dns, std::int64_t seconds) {
        FlowFacts facts;
        facts.sni = sni;
        facts.dns = dns;
        facts.contradiction = sni != dns.front();
        const FlowOf flow = FlowOf(remote).out(100).seen(at(seconds));
        const std::size_t before = bench.findings.size();
        bench.evaluator.evaluate(flow.update, class_of(*bench.in_force, remote, "US"), at(seconds),
                                 bench.findings, facts);
        return bench.findings.size() - before;
    };
    CHECK(send("203.0.113.9", "a.example.org", answered, 0) == 0);
    REQUIRE(send("203.0.113.9", "evil.example.net", answered, 1) == 1);
    const Finding& found = bench.findings.back();
    CHECK(found.rule_id == "egresswatch/name-contradiction");
    CHECK_FALSE(found.decision.allowed);
    CHECK(found.decision.reason ==
          "updates: the sender asks for evil.example.net, which is not in *.example.org; DNS gave the "
          "address the "
          "name a.example.org");
    CHECK(send("203.0.113.9", "evil.example.net", answered, 2) == 0);  // known
    CHECK(send("203.0.113.10", "a.example.org", elsewhere, 3) == 1);   // an allowed name to another's address
    CHECK(send("203.0.113.11", "c.example.net", elsewhere, 4) == 0);   // no entry asks for either
    CHECK(send("203.0.113.9", "evil.example.net", answered, 3602) == 1);  // an hour later
}

TEST_CASE("what only a name server that is not listed says opens no entry and excuses nothing; rules see it",
          "[rules][evaluator]") {
    Bench bench(R"(
allow:
  - {id: updates, to: {domain: "*.example.org"}, owner: o@example.org, reason: r, expires: 2030-01-01}
rules:
  - {id: bulk, title: t, level: low, when: {region: outside, allowed: false}, window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 MiB}}
  - id: seen
    title: t
    level: low
    when: {dns: a.example.org}
    window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 MiB}
    exceptions: [{match: {dns: b.example.org}, owner: o@example.org, expires: 2030-01-01}]
)");
    const std::array<std::string_view, 2> names{"b.example.org", "a.example.org"};
    const auto send = [&](std::string_view remote, std::size_t unlisted) {
        FlowFacts facts;
        facts.dns = names;
        facts.dns_unlisted = unlisted;
        const FlowOf flow = FlowOf(remote).out(2 * mib).seen(at(0));
        bench.findings.clear();
        bench.evaluator.evaluate(flow.update, class_of(*bench.in_force, remote, "US"), at(0), bench.findings,
                                 facts);
        std::string out;
        for (const Finding& finding : bench.findings) out += finding.rule_id + " ";
        return out;
    };
    CHECK(send("203.0.113.9", 1) ==
          "seen ");  // a.example.org is listed: allowed, and b.example.org excuses not
    CHECK(send("203.0.113.10", 2) == "bulk seen ");
    CHECK(
        bench.findings.front().decision.reason ==
        "updates: only a name server that is not in names.resolvers says that the address is a.example.org");
    CHECK(send("203.0.113.11", 0).empty());
}

// The outer name of Encrypted ClientHello is for everybody to choose: the server goes by the inner one.
TEST_CASE("a name before a hidden one opens an entry by domain only where its `when` takes it",
          "[rules][evaluator]") {
    Bench bench(R"(
lists: {cdn: {domain: [listed.example.org], cidr: [192.0.2.0/24]}}
allow:
  - {id: plain, to: {domain: a.example.org}, owner: o@example.org, reason: r, expires: 2030-01-01}
  - {id: taken, to: {domain: b.example.org}, when: {hidden: [none, ech]}, owner: o@example.org, reason: r, expires: 2030-01-01}
  - {id: by-list, to: {list: cdn}, owner: o@example.org, reason: r, expires: 2030-01-01}
rules:
  - id: hides
    title: t
    level: low
    when: {hidden: [ech, esni]}
    window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 GiB}
    exceptions: [{match: {sni: a.example.org}, owner: o@example.org, expires: 2030-01-01}]
)");
    const auto decision = [&](std::string_view remote, std::string_view sni, std::uint8_t hidden) {
        FlowFacts facts;
        facts.sni = sni;
        facts.hidden = hidden;
        const FlowOf flow = FlowOf(remote).out(100).seen(at(0));
        return bench.evaluator.decide(flow.update, class_of(*bench.in_force, remote, "US"), at(0), facts);
    };
    CHECK(decision("203.0.113.9", "a.example.org", 0).allow_id == "plain");
    CHECK_FALSE(decision("203.0.113.9", "a.example.org", 1).allowed);
    CHECK(decision("203.0.113.9", "a.example.org", 1).reason ==
          "plain: the ClientHello hides whom it is for behind a.example.org");
    CHECK(decision("203.0.113.9", "b.example.org", 0).allow_id == "taken");
    CHECK(decision("203.0.113.9", "b.example.org", 1).allow_id == "taken");
    CHECK_FALSE(decision("203.0.113.9", "b.example.org", 2).allowed);
    CHECK(decision("203.0.113.9", "listed.example.org", 0).allow_id == "by-list");
    CHECK_FALSE(decision("203.0.113.9", "listed.example.org", 1).allowed);
    CHECK(decision("192.0.2.9", "other.example.org", 1).allow_id == "by-list");  // by its address
    // Nor does an exception believe it.
    FlowFacts facts;
    facts.sni = "a.example.org";
    facts.hidden = 1;
    const FlowOf big = FlowOf("203.0.113.77").out(2048 * mib).seen(at(1));
    bench.evaluator.evaluate(big.update, class_of(*bench.in_force, "203.0.113.77", "US"), at(1),
                             bench.findings, facts);
    REQUIRE(bench.findings.size() == 1);
    CHECK(bench.findings.front().rule_id == "hides");
}
