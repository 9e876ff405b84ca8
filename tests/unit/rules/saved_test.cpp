// tests/unit/rules/saved_test.cpp - what an evaluator remembers goes through bytes into another one.
// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

constexpr std::uint64_t mib = 1 << 20;

const std::string text =
    "allow:\n  - {id: card, to: {country: US}, ceiling: {bytes_out: 10 MiB, per: 30d}, owner: o, reason: r,"
    " expires: 2026-03-10}\n"
    "rules:\n"
    "  - {id: slow, title: t, level: high, when: {country: CN},"
    " window: {sum: bytes_out, over: 7d, by: [remote], at_least: 10 MiB}}\n"
    "  - {id: short, title: t, level: high, when: {country: CN},"
    " window: {sum: bytes_out, over: 10m, by: [remote], at_least: 8 MiB}}\n"
    "  - {id: many, title: t, level: low, when: {country: CN},"
    " window: {distinct: port, over: 7d, by: [remote], at_least: 3}}\n"
    "  - {id: beat, title: t, level: low, when: {country: CN}, periodic: {by: [remote], at_least: 4}}\n"
    "  - {id: new, title: t, level: low, when: {country: SG}, first_contact: {of: [remote], learn: 1d}}\n";

struct Half {
    Evaluator evaluator;
    std::vector<Finding> findings;
    explicit Half(const std::string& policy_text = text) : evaluator(policy(policy_text)) {}
    std::vector<std::string> send(const FlowOf& flow, std::string_view country) {
        findings.clear();
        evaluator.evaluate(flow.update,
                           class_of(*evaluator.policy(), flow.update.remote().to_string(), country),
                           flow.update.last_seen, findings);
        std::vector<std::string> out;
        for (const Finding& finding : findings) out.push_back(finding.rule_id);
        return out;
    }
};

using Ids = std::vector<std::string>;
constexpr std::int64_t day = 86'400;

FlowOf flow(std::string_view remote, std::uint64_t bytes, std::int64_t seconds, std::uint16_t port = 443) {
    return FlowOf(remote, port).class_id(remote.ends_with(".1") ? 1 : 2).out(bytes).seen(at(seconds));
}

}  // namespace

TEST_CASE("long windows, contacts, suppressions and ceilings survive a restart, short windows do not",
          "[rules][saved]") {
    Half before;
    before.send(flow("198.51.100.1", 6 * mib, 0, 1), "CN");
    before.send(flow("198.51.100.1", 60, 60, 2), "CN");
    for (int i = 2; i < 4; ++i) before.send(flow("198.51.100.1", 60, 60 * i, 2), "CN");
    CHECK(before.send(flow("203.0.113.1", 60, 0), "SG").empty());
    before.send(flow("192.0.2.1", 9 * mib, 200), "US");
    before.evaluator.advance(at(200), before.findings);
    const std::string bytes = before.evaluator.save();

    Half after;
    const auto restored = after.evaluator.restore(bytes);
    REQUIRE(restored);
    CHECK(restored->saved_at == at(200));
    CHECK(restored->rules == 4);  // short is not kept
    CHECK(restored->dropped == 0);
    // The fourth interval of the beat, the third port, ten of ten mebibytes in a week; the ten minutes began
    // anew.
    CHECK(after.send(flow("198.51.100.1", 4 * mib, 240, 3), "CN") == Ids{"slow", "many", "beat"});
    CHECK(after.send(flow("203.0.113.1", 60, 2 * day), "SG").empty());
    CHECK(after.send(flow("203.0.113.2", 60, 2 * day), "SG") == Ids{"new"});
    CHECK(after.send(flow("192.0.2.1", 2 * mib, 2 * day), "US") == Ids{"egresswatch/allow-ceiling"});
    // What was told of the entry's end is not told again, and a suppressed group stays so.
    CHECK(after.send(flow("198.51.100.1", 11 * mib, 2 * day), "CN") == Ids{"short"});
    after.findings.clear();
    after.evaluator.advance(at(3 * day), after.findings);
    CHECK(after.findings.empty());
    CHECK(after.evaluator.allow_status().front().since == at(200));
}

TEST_CASE(
    "a finding that was made behind the save is recalled: its group is quiet, and its bytes are not counted "
    "again",
    "[rules][saved]") {
    Half before;
    before.send(flow("198.51.100.1", 6 * mib, 0), "CN");
    const std::string bytes = before.evaluator.save();
    CHECK(before.send(flow("198.51.100.1", 9 * mib, 60), "CN") == Ids{"slow", "short"});
    const auto reported = before.findings;

    Half after;
    REQUIRE(after.evaluator.restore(bytes));
    const auto recall = [&] {
        std::size_t news = 0;
        for (const Finding& finding : reported)
            news += after.evaluator.recall(
                        {finding.rule_id, finding.flow, finding.info, finding.group, finding.time})
                        ? 1
                        : 0;
        return news;
    };
    CHECK(recall() == 2);
    CHECK(recall() == 0);  // known
    CHECK_FALSE(after.evaluator.recall({"gone", reported[0].flow, reported[0].info, {}, reported[0].time}));
    CHECK(after.send(flow("198.51.100.1", 9 * mib, 120), "CN").empty());
    CHECK(after.send(flow("198.51.100.2", 11 * mib, 120), "CN") == Ids{"slow", "short"});  // another group
    // Behind its end: the ten minutes and the week have begun anew with what came after the finding.
    CHECK(after.send(flow("198.51.100.1", 9 * mib, 900), "CN") == Ids{"short"});
    CHECK(after.send(flow("198.51.100.1", 11 * mib, 8 * day), "CN") == Ids{"slow", "short"});
    CHECK(after.findings[0].suppressed == 1);
}

TEST_CASE("what a finding's group says of names is enough to recall it", "[rules][saved]") {
    const std::string by_name =
        "rules:\n  - {id: named, title: t, level: high, when: {country: CN},"
        " window: {sum: bytes_out, over: 7d, by: [executable, uid, country], at_least: 10 MiB}}\n";
    Half before(by_name);
    FlowFacts facts;
    facts.executable = "/usr/bin/rsync";
    facts.uid = 33;
    const auto send = [&](Half& half, std::int64_t seconds) {
        const auto sent = flow("198.51.100.1", 11 * mib, seconds);
        half.findings.clear();
        half.evaluator.evaluate(sent.update, class_of(*half.evaluator.policy(), "198.51.100.1", "CN"),
                                at(seconds), half.findings, facts);
        return half.findings.size();
    };
    REQUIRE(send(before, 0) == 1);
    const Finding& finding = before.findings.front();
    Half after(by_name);
    CHECK(after.evaluator.recall({finding.rule_id, finding.flow, finding.info, finding.group, finding.time}));
    CHECK(send(after, 60) == 0);
    facts.uid = 34;
    CHECK(send(after, 120) == 1);
}

TEST_CASE("a restart in between changes no finding of what is kept", "[rules][saved][property]") {
    const auto run = [](bool restart) {
        std::string out;
        auto half = std::make_unique<Half>();
        std::uint64_t random = 1;
        for (int i = 0; i < 4000; ++i) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            if (restart && i % 500 == 499) {
                const std::string bytes = half->evaluator.save();
                half = std::make_unique<Half>();
                REQUIRE(half->evaluator.restore(bytes));
            }
            const std::string remote = "198.51." + std::to_string(random >> 60) + ".1";
            for (const std::string& id : half->send(
                     flow(remote, random >> 44, 120 * i, static_cast<std::uint16_t>(random >> 33 & 3)), "CN"))
                if (id != "short") out += std::to_string(i) + id + remote + "\n";
        }
        return out;
    };
    const std::string whole = run(false);
    CHECK(whole.size() > 100);
    CHECK(run(true) == whole);
}

TEST_CASE("a rule that has changed starts anew, one that is gone is left out", "[rules][saved]") {
    Half before;
    before.send(flow("198.51.100.1", 6 * mib, 0), "CN");
    std::string changed = text;
    changed.replace(changed.find("at_least: 10 MiB"), 16, "at_least: 9 MiB");
    changed.erase(changed.find("  - {id: beat"),
                  changed.find("  - {id: new") - changed.find("  - {id: beat"));
    Half after(changed);
    const auto restored = after.evaluator.restore(before.evaluator.save());
    REQUIRE(restored);
    CHECK(restored->rules == 2);
    CHECK(restored->dropped == 2);
    CHECK(after.send(flow("198.51.100.1", 4 * mib, 1), "CN").empty());
}

TEST_CASE("a flow that an adopter tells whole again counts by its time since the save", "[rules][saved]") {
    Half before;
    before.send(flow("198.51.100.1", 6 * mib, 100), "CN");
    Half after;
    REQUIRE(after.evaluator.restore(before.evaluator.save()));
    FlowOf again = flow("198.51.100.1", 8 * mib, 0);  // 6 of them are in the window, 2 came since
    again.update.last_seen = at(133);
    CHECK(after.send(again, "CN").empty());
    FlowOf rest = flow("198.51.100.1", 2 * mib + 20'000, 134);
    rest.update.total.bytes_out = 10 * mib;
    rest.update.total.packets_out = 7;
    CHECK(after.send(rest, "CN") == Ids{"slow"});
    // A flow that is younger than the save is whole news.
    Half other;
    REQUIRE(other.evaluator.restore(before.evaluator.save()));
    CHECK(other.send(flow("198.51.100.1", 4 * mib, 134), "CN") == Ids{"slow"});
}

TEST_CASE("damaged bytes are refused, wherever they are cut, and change nothing", "[rules][saved]") {
    Half before;
    before.send(flow("198.51.100.1", 6 * mib, 0), "CN");
    before.send(flow("192.0.2.1", mib, 1), "US");
    const std::string bytes = before.evaluator.save();
    Half after;
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        INFO(size);
        REQUIRE(!after.evaluator.restore(bytes.substr(0, size)));
    }
    REQUIRE(!after.evaluator.restore(bytes + "x"));
    std::string other_version = bytes;
    other_version[4] = 9;
    CHECK(after.evaluator.restore(other_version).error().find("version 9") != std::string::npos);
    CHECK(after.send(flow("198.51.100.1", 4 * mib, 2), "CN").empty());
    CHECK(after.evaluator.restore(bytes));
}
