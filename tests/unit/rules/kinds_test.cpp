// tests/unit/rules/kinds_test.cpp - every kind of rule at its threshold and one below, and the ends of allow
// entries. SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <set>

#include "rules/limits.h"
#include "rules/names.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

constexpr std::uint64_t mib = 1 << 20;

std::string rule(const std::string& kind, const std::string& when = "{region: outside}",
                 const std::string& more = "") {
    return "rules:\n  - id: r\n    title: t\n    level: high\n" +
           (when.empty() ? std::string() : "    when: " + when + "\n") + "    " + kind + "\n" + more;
}

struct World {
    std::shared_ptr<const Policy> in_force;
    Evaluator evaluator;
    std::vector<Finding> findings;
    std::uint64_t missing = 0;

    explicit World(const std::string& text) : in_force(policy(text)), evaluator(in_force) {}

    std::size_t send(const FlowOf& flow, std::string_view country = "CN", const FlowFacts& facts = {}) {
        const std::size_t before = findings.size();
        const ClassInfo info = class_of(*in_force, flow.update.remote().to_string(), country);
        missing = evaluator.evaluate(flow.update, info, flow.update.last_seen, findings, facts);
        return findings.size() - before;
    }
    std::size_t ask(std::string_view name, Timestamp when, std::string_view remote = "198.51.100.53") {
        const std::size_t before = findings.size();
        NameObservation seen{FlowOf(remote, 53, 17).seen(when).update, name, when};
        evaluator.observe(seen, class_of(*in_force, std::string(remote), "CN"), when, findings);
        return findings.size() - before;
    }
    std::size_t pass(Timestamp when) {
        const std::size_t before = findings.size();
        evaluator.advance(when, findings);
        return findings.size() - before;
    }
    [[nodiscard]] double detail(std::string_view name) const {
        for (const FindingDetail& found : findings.back().details)
            if (found.name == name) return found.value;
        return std::nan("");
    }
};

FlowOf incoming(FlowOf flow, std::uint64_t bytes) {
    flow.update.delta.bytes_in = flow.update.total.bytes_in = bytes;
    flow.update.delta.packets_in = flow.update.total.packets_in = bytes / 1000 + 1;
    return flow;
}

}  // namespace

TEST_CASE("bytes and packets that come in, and flows, are summed too", "[rules][kinds]") {
    World in(rule("window: {sum: bytes_in, over: 1h, by: [remote], at_least: 1 MiB}"));
    CHECK(in.send(incoming(FlowOf("198.51.100.1").seen(at(0)), mib - 1)) == 0);
    CHECK(in.send(incoming(FlowOf("198.51.100.1").seen(at(1)), 1)) == 1);
    CHECK(in.findings.back().measure == "bytes_in");
    World flows(rule("window: {sum: flows, over: 1h, by: [], at_least: 3}"));
    FlowOf same = FlowOf("198.51.100.1").out(10).seen(at(0));
    CHECK(flows.send(same) == 0);
    same.update.total.packets_out = 9;  // more of the same flow
    CHECK(flows.send(same) == 0);
    CHECK(flows.send(FlowOf("198.51.100.2").out(10).seen(at(1))) == 0);
    CHECK(flows.send(FlowOf("198.51.100.3").out(10).seen(at(2))) == 1);
    CHECK(flows.findings.back().kind == "sum");
}

TEST_CASE("different values are counted once each, and leave with the window", "[rules][kinds]") {
    World ports(rule("window: {distinct: port, over: 1m, by: [remote], at_least: 5}"));
    for (std::uint16_t port = 1; port <= 4; ++port)
        for (int twice = 0; twice < 2; ++twice)
            CHECK(ports.send(FlowOf("198.51.100.1", port).out(60).seen(at(0))) == 0);
    CHECK(ports.send(FlowOf("198.51.100.2", 5).out(60).seen(at(0))) == 0);  // another group
    CHECK(ports.send(FlowOf("198.51.100.1", 5).out(60).seen(at(1))) == 1);
    CHECK(ports.findings.back().measure == "distinct_port");
    CHECK(ports.findings.back().value == 5);
    World slow(rule("window: {distinct: remote, over: 1m, by: [], at_least: 3}"));
    for (int i = 0; i < 50; ++i) {
        INFO(i);
        CHECK(slow.send(FlowOf("198.51.100." + std::to_string(i)).out(60).seen(at(40 * i))) == 0);
    }
    CHECK(slow.send(FlowOf("198.51.100.200").out(60).seen(at(40 * 49 + 1))) == 1);
    World processes(rule("window: {distinct: executable, over: 1m, by: [], at_least: 2}"));
    FlowFacts facts;
    facts.executable = "/usr/bin/a";
    CHECK(processes.send(FlowOf("198.51.100.1").out(60).seen(at(0)), "CN", facts) == 0);
    facts.executable = "/usr/bin/b";
    CHECK(processes.send(FlowOf("198.51.100.1").out(60).seen(at(0)), "CN", facts) == 1);
}

TEST_CASE("a scan is many with few bytes: a busy client is none", "[rules][kinds]") {
    const std::string scan =
        rule("window: {distinct: port, over: 5m, by: [remote], at_least: 50, bytes_each_at_most: 500 B}");
    World quiet(scan), busy(scan);
    std::size_t found = 0;
    for (std::uint16_t port = 1; port <= 50; ++port) {
        found += quiet.send(FlowOf("198.51.100.1", port).out(500).seen(at(port)));
        CHECK(busy.send(FlowOf("198.51.100.1", port).out(port == 7 ? 526 : 500).seen(at(port))) == 0);
    }
    CHECK(found == 1);
    CHECK(quiet.detail("mean_bytes_out") == 500);
}

TEST_CASE("an upload ratio needs the ratio and the volume", "[rules][kinds]") {
    const std::string text = rule("upload_ratio: {over: 1h, by: [remote], at_least: 10, floor: 10 MiB}");
    World ratio(text);
    CHECK(ratio.send(incoming(FlowOf("198.51.100.1").out(10 * mib - 1).seen(at(0)), mib)) == 0);
    CHECK(ratio.missing == 1);
    CHECK(ratio.send(FlowOf("198.51.100.1").out(1).seen(at(1))) == 1);
    CHECK(ratio.findings.back().measure == "upload_ratio_percent");
    CHECK(ratio.findings.back().value == 1000);
    CHECK(ratio.detail("bytes_in") == mib);
    World fetch(text);  // what comes in alone counts as well
    CHECK(fetch.send(incoming(FlowOf("198.51.100.1").seen(at(0)), 2 * mib)) == 0);
    CHECK(fetch.send(FlowOf("198.51.100.1").out(15 * mib).seen(at(1))) == 0);
    CHECK(fetch.send(FlowOf("198.51.100.1").out(5 * mib).seen(at(2))) == 1);
}

TEST_CASE("even intervals are found through jitter and a missed beat, uneven ones are not",
          "[rules][kinds]") {
    const std::string text =
        rule("periodic: {by: [remote, port], at_least: 10, jitter_at_most: 0.1, every: 30s..10m}");
    const auto run = [&](auto interval_of) {
        World beacon(text);
        std::int64_t now = 0;
        std::size_t found = 0;
        for (int i = 0; i < 20; ++i) {
            FlowOf flow = FlowOf("198.51.100.1").out(200).seen(at(now));
            found += beacon.send(flow);
            flow.update.total.packets_out = 5;  // an answer a second later belongs to the same contact
            found += beacon.send(flow.seen(at(now + 1)));
            now += interval_of(i);
        }
        if (found > 0) CHECK(beacon.findings.front().value >= 10);
        return std::pair{found, found > 0 ? beacon.detail("period_s") : 0.0};
    };
    CHECK(run([](int) { return 60; }).first == 1);
    const auto jittered = run([](int i) { return 58 + i % 5; });
    CHECK(jittered.first == 1);
    CHECK(std::abs(jittered.second - 60) < 3);
    CHECK(run([](int i) { return i == 5 ? 120 : 60; }).first == 1);
    CHECK(run([](int i) { return 30 + 37 * i % 300; }).first == 0);  // people
    CHECK(run([](int) { return 20; }).first == 0);                   // not in `every`
    World few(text);
    for (int i = 0; i <= 9; ++i) CHECK(few.send(FlowOf("198.51.100.1").out(200).seen(at(60 * i))) == 0);
    CHECK(few.send(FlowOf("198.51.100.1").out(200).seen(at(600))) == 1);
}

TEST_CASE("a long-lived flow is reported once, and again a day later", "[rules][kinds]") {
    World world(rule("long_lived: {at_least: 12h}"));
    FlowOf flow = FlowOf("198.51.100.1").out(10).seen(at(0));
    const auto until = [&](std::int64_t seconds) {
        flow.update.last_seen = at(seconds);
        return world.send(flow);
    };
    CHECK(until(12 * 3600 - 1) == 0);
    CHECK(until(12 * 3600) == 1);
    CHECK(world.findings.back().measure == "duration_s");
    CHECK(world.findings.back().value == 12 * 3600);
    CHECK(until(13 * 3600) == 0);
    CHECK(until(36 * 3600) == 1);
    CHECK(world.findings.back().suppressed == 1);
}

TEST_CASE("a first contact is reported after the time of learning, once, and again when forgotten",
          "[rules][kinds]") {
    World world(rule("first_contact: {of: [country], learn: 1d, forget: 30d}"));
    const auto touch = [&](std::string_view country, std::uint16_t class_id, std::int64_t seconds) {
        return world.send(FlowOf("198.51.100.1").class_id(class_id).out(10).seen(at(seconds)), country);
    };
    constexpr std::int64_t day = 86'400;
    CHECK(touch("US", 1, 0) == 0);
    CHECK(touch("CN", 2, day - 1) == 0);
    CHECK(touch("US", 1, day) == 0);
    CHECK(touch("SG", 3, day) == 1);
    CHECK(world.findings.back().group[0].value == "SG");
    CHECK(world.detail("known") == 2);
    CHECK(touch("SG", 3, day + 1) == 0);
    CHECK(touch("US", 1, 31 * day) == 0);
    CHECK(touch("SG", 3, 31 * day + 2) == 1);
}

TEST_CASE("a sequence is its first rule and then its second, in the same group and in time",
          "[rules][kinds]") {
    const std::string text =
        "rules:\n"
        "  - {id: scan, title: t, level: low, status: test, when: {region: outside},"
        " window: {distinct: port, over: 1m, by: [remote], at_least: 3}}\n"
        "  - {id: bulk, title: t, level: low, when: {region: outside},"
        " window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 MiB}}\n"
        "  - {id: both, title: t, level: critical, sequence: {first: scan, then: bulk, within: 1h, by: "
        "[remote]}}\n";
    World world(text);
    const auto scan = [&](std::string_view remote, std::int64_t seconds) {
        for (std::uint16_t port = 1; port <= 3; ++port)
            world.send(FlowOf(remote, port).out(60).seen(at(seconds)));
    };
    const auto bulk = [&](std::string_view remote, std::int64_t seconds) {
        world.send(FlowOf(remote, 443).out(mib).seen(at(seconds)));
    };
    const auto last = [&] { return world.findings.back().rule_id; };
    bulk("198.51.100.1", 0);  // the wrong way round
    scan("198.51.100.1", 1);
    CHECK(last() == "scan");
    CHECK(world.findings.back().test);
    const auto explained = [&](std::string_view remote, std::int64_t seconds) {
        const FlowOf flow = FlowOf(remote, 443).seen(at(seconds));
        return world.evaluator.explain(flow.update, class_of(*world.in_force, remote, "US"), at(seconds))
            .rules[2];
    };
    CHECK(explained("198.51.100.1", 2).counts);
    CHECK(explained("198.51.100.1", 2).value == 1);
    CHECK(explained("198.51.100.1", 2).threshold == 2);
    CHECK(explained("198.51.100.1", 3602).value == 0);
    CHECK(explained("198.51.100.2", 2).value == 0);
    bulk("198.51.100.2", 2);  // another group
    CHECK(last() == "bulk");
    CHECK(!world.findings.back().test);
    bulk("198.51.100.1", 3600);
    CHECK(last() == "both");
    CHECK(world.findings.back().level == Level::critical);
    CHECK(world.detail("seconds_between") == 3599);
    scan("198.51.100.3", 4000);
    bulk("198.51.100.3", 4000 + 3601);
    CHECK(last() == "bulk");
}

TEST_CASE("names that were asked for are counted by what was registered, and by their entropy",
          "[rules][kinds]") {
    CHECK(registered_domain("a.b.example.co.uk") == "example.co.uk");
    CHECK(registered_domain("a.b.example.org") == "example.org");
    CHECK(registered_domain("example.org") == "example.org");
    CHECK(registered_domain("co.uk") == "co.uk");
    CHECK(registered_domain("localhost") == "localhost");
    CHECK(registered_domain("") == "");
    CHECK(label_entropy("aaaa.example.org") == 0);
    CHECK(std::abs(label_entropy("abcd.example.org") - 2) < 1e-9);
    CHECK(std::abs(label_entropy("0123456789abcdef.example.org") - 4) < 1e-9);

    const std::string text = rule(
        "window: {distinct: name, over: 10m, by: [registered_domain], at_least: 20, entropy_at_least: 3.5}",
        "{port: 53/udp}");
    World tunnel(text), mail(text);
    std::size_t found = 0;
    for (int i = 0; i < 20; ++i) {
        const std::string tail = std::to_string(i);
        found += tunnel.ask("q8z1x7k4m2v9b5n3" + tail + ".t.example.co.uk", at(i));
        CHECK(mail.ask("mail" + tail + ".example.co.uk", at(i)) == 0);
    }
    CHECK(found == 1);
    CHECK(tunnel.findings.back().group[0].value == "example.co.uk");
    CHECK(tunnel.detail("mean_entropy") > 3.5);
    // Packets do not feed it, and the form by volume works without names.
    World volume(rule("window: {sum: packets_out, over: 1m, by: [remote], at_least: 500}", "{port: 53/udp}"));
    CHECK(volume.send(FlowOf("198.51.100.53", 53, 17).out(50'000, 499).seen(at(0))) == 0);
    CHECK(volume.send(FlowOf("198.51.100.53", 53, 17).out(100, 1).seen(at(0))) == 1);
    CHECK(tunnel.send(FlowOf("198.51.100.53", 53, 17).out(50'000, 499).seen(at(60))) == 0);
}

TEST_CASE("an entry over its ceiling stops allowing, says so once, and allows again below it",
          "[rules][allow]") {
    const std::string text =
        "allow:\n  - {id: card, to: {country: US, port: 443/tcp}, ceiling: {bytes_out: 10 MiB, per: 1h},"
        " owner: pay@example.org, reason: r, ticket: SEC-1, expires: 2030-01-01}\n" +
        rule("window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}",
             "{region: outside, allowed: false}");
    World world(text);
    const auto send = [&](std::uint64_t bytes, std::int64_t seconds) {
        return world.send(FlowOf("198.51.100.1").out(bytes).seen(at(seconds)), "US");
    };
    const auto decision = [&] {
        return world.evaluator.decide(FlowOf("198.51.100.1").update,
                                      class_of(*world.in_force, "198.51.100.1", "US"), at(0));
    };
    CHECK(send(10 * mib, 0) == 0);
    CHECK(world.missing == 1);
    CHECK(decision().allowed);
    CHECK(send(1, 10) == 1);  // over: one finding of the entry
    CHECK(world.findings.back().rule_id == "egresswatch/allow-ceiling");
    CHECK(world.findings.back().kind == "ceiling");
    CHECK(world.findings.back().value == 10 * mib + 1);
    CHECK(world.findings.back().message.find("SEC-1") != std::string::npos);
    CHECK(!decision().allowed);
    CHECK(decision().reason.find("ceiling") != std::string::npos);
    CHECK(send(mib, 20) == 1);  // and now the rule counts it
    CHECK(world.findings.back().rule_id == "r");
    CHECK(send(mib - 1, 4000) == 0);  // the hour is over
    CHECK(decision().allowed);
    const AllowStatus status = world.evaluator.allow_status().front();
    CHECK(status.matched == 4);
    CHECK(status.last_match == at(4000));
    CHECK(status.ceiling_bytes == 10 * mib);
}

TEST_CASE("the end of an entry is told 14 days before, and when it comes, once each", "[rules][allow]") {
    const std::string text =
        "allow:\n  - {id: card, to: {country: US}, owner: o, reason: r, expires: 2026-06-30}\n"
        "  - {id: old, to: {country: CA}, owner: o, reason: r, expires: 2025-01-01}\n";
    World world(text);
    const Timestamp end{std::chrono::sys_days(std::chrono::year{2026} / 7 / 1)};
    CHECK(world.pass(at(0)) == 0);  // what had ended before is no news
    CHECK(world.pass(end - std::chrono::days(14) - std::chrono::nanoseconds(1)) == 0);
    CHECK(world.pass(end - std::chrono::days(14)) == 1);
    CHECK(world.findings.back().rule_id == "egresswatch/allow-expires");
    CHECK(world.findings.back().value == 14);
    CHECK(!world.findings.back().has_flow);
    CHECK(world.pass(end - std::chrono::hours(1)) == 0);
    CHECK(world.pass(end) == 1);
    CHECK(world.findings.back().rule_id == "egresswatch/allow-expired");
    CHECK(world.findings.back().level == Level::medium);
    CHECK(world.pass(end + std::chrono::days(365)) == 0);
    world.evaluator.replace_policy(policy(text));
    CHECK(world.pass(end + std::chrono::days(366)) == 0);
}

TEST_CASE("an entry that has matched nothing for 30 days is marked unused", "[rules][allow]") {
    World world(
        "allow:\n  - {id: a, to: {country: US}, owner: o, reason: r, expires: 2030-01-01}\n"
        "  - {id: b, to: {country: CA}, owner: o, reason: r, expires: 2030-01-01}\n");
    constexpr std::int64_t day = 86'400;
    const auto unused = [&] {
        std::string out;
        for (const AllowStatus& status : world.evaluator.allow_status())
            if (status.unused) out += status.id;
        return out;
    };
    world.pass(at(0));
    world.send(FlowOf("198.51.100.1").out(10).seen(at(10 * day)), "US");
    world.pass(at(30 * day - 1));
    CHECK(unused().empty());
    world.pass(at(30 * day));
    CHECK(unused() == "b");
    world.pass(at(40 * day));
    CHECK(unused() == "ab");
}

TEST_CASE("every kind keeps to its number of groups, and counts what it evicts", "[rules][kinds][limits]") {
    for (const char* kind : {"window: {sum: bytes_out, over: 1d, by: [remote], at_least: 1 GiB}",
                             "window: {distinct: port, over: 1d, by: [remote], at_least: 9}",
                             "upload_ratio: {over: 1d, by: [remote], at_least: 10, floor: 1 GiB}",
                             "periodic: {by: [remote], at_least: 10}", "first_contact: {of: [remote]}"}) {
        World world(rule(kind));
        FlowOf flow = FlowOf("198.51.100.1").out(10).seen(at(0));
        const ClassInfo info = class_of(*world.in_force, "198.51.100.1", "CN");
        for (std::uint32_t i = 0; i < limits::window_groups_max + 100; ++i) {
            const Address remote = Address::from_ipv4(0x0b000000u + i);
            std::memcpy(flow.update.key.remote_addr, remote.bytes.data(), 16);
            world.evaluator.evaluate(flow.update, info, at(0), world.findings);
        }
        INFO(kind);
        const RuleStatus status = world.evaluator.rule_status().front();
        CHECK(status.groups == limits::window_groups_max);
        CHECK(status.groups_max == limits::window_groups_max);
        CHECK(status.evicted == 100);
        CHECK(world.evaluator.counters().window_evictions == 100);
        CHECK(world.findings.empty());
    }
}

TEST_CASE("why a flow is a finding or not is explained for every entry and rule", "[rules][explain]") {
    World world(
        "allow:\n  - {id: card, to: {country: US, port: 443/tcp}, owner: o, reason: because, expires: "
        "2030-01-01}\n" +
        rule("window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1 MiB}",
             "{region: outside, allowed: false}"));
    world.send(FlowOf("198.51.100.1", 80).out(1000).seen(at(0)), "US");
    const auto explain = [&](std::uint16_t port, std::string_view country) {
        const FlowOf flow = FlowOf("198.51.100.1", port).seen(at(1));
        return world.evaluator.explain(flow.update, class_of(*world.in_force, "198.51.100.1", country),
                                       at(1));
    };
    const Explanation allowed = explain(443, "US");
    CHECK(allowed.decision.allowed);
    CHECK(allowed.allows[0].covers);
    CHECK(!allowed.rules[0].counts);
    CHECK(allowed.rules[0].why_not == "allowed is not false");
    const Explanation counted = explain(80, "US");
    CHECK(counted.allows[0].why_not == "port 80/tcp is not in 443/tcp");
    CHECK(counted.rules[0].counts);
    CHECK(counted.rules[0].value == 1000);
    CHECK(counted.rules[0].threshold == mib);
    CHECK(explain(80, "CN").allows[0].why_not == "country is not US");
}

TEST_CASE("a question moves the packet time, whether a rule counts names or not", "[rules][kinds]") {
    constexpr std::string_view bulk =
        "rules:\n  - {id: bulk, title: t, level: low, when: {region: outside},"
        " window: {sum: bytes_out, over: 10s, by: [remote], at_least: 1 MiB}}\n";
    constexpr std::string_view names =
        "  - {id: names, title: t, level: low, when: {app: dns},"
        " window: {distinct: name, over: 10m, by: [registered_domain], at_least: 1000}}\n";
    const auto found_after = [](const std::string& text, std::int64_t question_s) {
        World world(text);
        CHECK(world.ask("a.example.org", at(question_s)) == 0);
        world.send(FlowOf("198.51.100.7").out(2 << 20).seen(at(1)));
        return world.findings;
    };
    for (const std::int64_t question_s : {0, 5, 3600}) {
        const auto without = found_after(std::string(bulk), question_s);
        const auto with = found_after(std::string(bulk) + std::string(names), question_s);
        CHECK(without.size() == (question_s < 3600 ? 1u : 0u));  // an hour late: in no window
        REQUIRE(with.size() == without.size());
        for (std::size_t i = 0; i < with.size(); ++i) {
            CHECK(with[i].window_end == at(std::max<std::int64_t>(question_s, 1)));
            CHECK(without[i].window_end == with[i].window_end);
            CHECK(without[i].time == with[i].time);
        }
    }
}
