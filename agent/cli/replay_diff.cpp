// agent/cli/replay_diff.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/replay_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/journal_flows.h"
#include "agent/cli/replay_pass.h"
#include "agent/flow_class.h"
#include "agent/records/record.h"
#include "classifier/region/geo_data.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t findings_max = 1'000'000;
constexpr std::size_t examples_max = 3;  // of each rule, gained and lost

struct Seen {
    Timestamp time{};
    std::string level, group, remote, country;
    std::uint64_t value = 0;
    std::string unit;
};

// What one policy found: by rule and group, in the order of time.
struct Findings {
    std::map<std::string, std::map<std::string, std::vector<Seen>>> by_rule;
    std::set<std::string> rules;  // that the policy has
    std::size_t kept = 0;
    std::size_t beyond = 0;

    void add(const rules::Finding& finding) {
        if (kept >= findings_max) {
            ++beyond;
            return;
        }
        ++kept;
        Seen seen;
        seen.time = finding.time;
        seen.level = std::string(rules::level_name(finding.level)) + (finding.test ? ", test" : "");
        for (const rules::GroupField& field : finding.group)
            seen.group += (seen.group.empty() ? "" : ", ") + field.name + " " + field.value;
        seen.remote = finding.flow.remote().to_string();
        seen.country = finding.info.country.empty() ? "unknown" : finding.info.country;
        seen.value = finding.value;
        seen.unit = finding.measure;
        // One that only its level tells apart is another: less of an alert is a change, too.
        auto& alike = by_rule[finding.rule_id][seen.group + "|" + seen.level];
        alike.push_back(std::move(seen));
    }
};

class Collector final : public ReplayListener {
public:
    explicit Collector(Findings& into) : into_(into) {}
    void on_flow_ended(const FlowUpdate&, const ClassInfo&, const inspect::FlowNames*) override {}
    [[nodiscard]] bool wants_flow_names() const noexcept override { return false; }
    void on_finding(const rules::Finding& finding, const inspect::FlowNames*) override { into_.add(finding); }

private:
    Findings& into_;
};

std::expected<void, ReplayFailure> through_capture(const ReplayDiffOptions& options,
                                                   const ReplayPolicy& policy, Findings& into) {
    auto pass = ReplayPass::open(options.source, options.config, policy);
    if (!pass) return std::unexpected(pass.error());
    Collector collector(into);
    (*pass)->run(collector, [](const capture::FileProgress&) { return true; });
    if (const auto& damage = (*pass)->damage())
        std::fprintf(stderr, "egresswatch replay: %s (everything before it was counted)\n",
                     damage->to_string().c_str());
    return {};
}

std::expected<void, ReplayFailure> through_journal(JournalFlows& flows, const ReplayPolicy& policy,
                                                   Findings& into) {
    const RegionTable& table = *policy.region;
    rules::Evaluator evaluator = policy.make_evaluator();
    std::vector<rules::Finding> findings;
    Timestamp now = Timestamp::min();
    flows.for_each([&](const JournalFlow& flow) {
        FlowUpdate update = flow.update;
        update.key.class_id = flow_class(table, update);
        now = std::max(now, update.last_seen);
        evaluator.advance(now, findings);
        policy.evaluate(evaluator, update, flow.facts, now, findings);
        for (const rules::Finding& finding : findings) into.add(finding);
        findings.clear();
    });
    return {};
}

// One rule before and after.
struct RuleDifference {
    std::string id;
    bool is_new = false, is_gone = false;
    std::size_t before = 0, after = 0;
    std::size_t gained = 0, lost = 0;
    std::vector<Seen> gained_examples, lost_examples;
};

void take(const std::vector<Seen>& from, std::size_t first, std::size_t& count, std::vector<Seen>& examples) {
    for (std::size_t at = first; at < from.size(); ++at) {
        ++count;
        if (examples.size() < examples_max) examples.push_back(from[at]);
    }
}

RuleDifference difference_of(const std::string& id, const Findings& before, const Findings& after) {
    static const std::map<std::string, std::vector<Seen>> none;
    const auto groups = [&](const Findings& findings) -> const std::map<std::string, std::vector<Seen>>& {
        const auto found = findings.by_rule.find(id);
        return found == findings.by_rule.end() ? none : found->second;
    };
    RuleDifference out;
    out.id = id;
    // What the evaluator reports by itself, of allow entries, is in neither policy.
    out.is_new = after.rules.contains(id) && !before.rules.contains(id);
    out.is_gone = before.rules.contains(id) && !after.rules.contains(id);
    std::set<std::string> names;
    for (const auto& [group, seen] : groups(before)) names.insert(group);
    for (const auto& [group, seen] : groups(after)) names.insert(group);
    static const std::vector<Seen> empty;
    for (const std::string& name : names) {
        const auto of = [&](const Findings& findings) -> const std::vector<Seen>& {
            const auto found = groups(findings).find(name);
            return found == groups(findings).end() ? empty : found->second;
        };
        const std::vector<Seen>&then = of(before), &now = of(after);
        out.before += then.size();
        out.after += now.size();
        take(now, then.size(), out.gained, out.gained_examples);
        take(then, now.size(), out.lost, out.lost_examples);
    }
    return out;
}

std::string line_of(const Seen& seen) {
    const std::string who = seen.group.empty() ? "the whole host" : seen.group;
    return fmt::format("{}  {}  {}, to {} ({}), {} {}", records::format_time(seen.time), seen.level, who,
                       seen.remote, seen.country, seen.value, seen.unit);
}

Json json_of(const std::vector<Seen>& examples) {
    Json out = Json::array();
    for (const Seen& seen : examples)
        out.push_back({{"time", records::format_time(seen.time)},
                       {"level", seen.level},
                       {"group", seen.group},
                       {"remote", seen.remote},
                       {"country", seen.country},
                       {"measure", seen.unit},
                       {"value", seen.value}});
    return out;
}

void print_json(const std::vector<RuleDifference>& differences, const std::string& note) {
    Json out{{"note", note}, {"rules", Json::array()}};
    for (const RuleDifference& rule : differences)
        out["rules"].push_back({{"id", rule.id},
                                {"new", rule.is_new},
                                {"gone", rule.is_gone},
                                {"before", rule.before},
                                {"after", rule.after},
                                {"gained", rule.gained},
                                {"lost", rule.lost},
                                {"gained_examples", json_of(rule.gained_examples)},
                                {"lost_examples", json_of(rule.lost_examples)}});
    std::puts(out.dump(1).c_str());
}

void print_text(const std::vector<RuleDifference>& differences, const std::string& note) {
    std::size_t gained = 0, lost = 0;
    for (const RuleDifference& rule : differences) {
        gained += rule.gained;
        lost += rule.lost;
        const char* state = rule.is_new ? " (new)" : rule.is_gone ? " (gone)" : "";
        fmt::print("{}{}: {} before, {} after", rule.id, state, rule.before, rule.after);
        if (rule.gained + rule.lost == 0)
            fmt::print(", the same\n");
        else
            fmt::print("; {} gained, {} lost\n", rule.gained, rule.lost);
        for (const Seen& seen : rule.gained_examples) fmt::print("  + {}\n", line_of(seen));
        if (rule.gained > rule.gained_examples.size())
            fmt::print("  + and {} more\n", rule.gained - rule.gained_examples.size());
        for (const Seen& seen : rule.lost_examples) fmt::print("  - {}\n", line_of(seen));
        if (rule.lost > rule.lost_examples.size())
            fmt::print("  - and {} more\n", rule.lost - rule.lost_examples.size());
    }
    fmt::print("{} findings gained, {} lost\n", gained, lost);
    if (!note.empty()) fmt::print("{}\n", note);
}

std::expected<Findings, ReplayFailure> find_all(const ReplayDiffOptions& options,
                                                const std::string& policy_path, const GeoData& geo,
                                                std::string& note) {
    const auto policy = open_replay_policy(policy_path, geo, options.host);
    if (!policy) return std::unexpected(policy.error());
    Findings out;
    for (const rules::Rule& rule : policy->policy->rules) out.rules.insert(rule.id);
    if (JournalFlows::is_journal(options.source)) {
        auto flows = JournalFlows::open(options.source);
        if (!flows) return std::unexpected(ReplayFailure{exit_input, flows.error()});
        if (auto done = through_journal(*flows, *policy, out); !done) return std::unexpected(done.error());
        note = fmt::format(
            "From {} recorded flows: the volume of a flow counts when it ended, and of one that lives long "
            "every time "
            "that it was recorded; flows in the region have no record",
            flows->records());
        if (flows->skipped() > 0)
            note += fmt::format("; {} flows have none, for the limit of their rate", flows->skipped());
        if (flows->unreadable() > 0)
            note += fmt::format("; {} records could not be read", flows->unreadable());
        note += ".";
    } else if (auto done = through_capture(options, *policy, out); !done) {
        return std::unexpected(done.error());
    }
    if (out.beyond > 0)
        note += fmt::format("{}{} findings beyond {} are not compared.", note.empty() ? "" : " ", out.beyond,
                            findings_max);
    return out;
}

}  // namespace

int replay_difference(const ReplayDiffOptions& options) {
    const auto complain = [](const ReplayFailure& failure) {
        std::fprintf(stderr, "egresswatch replay: %s\n", failure.text.c_str());
        return failure.exit_code;
    };
    if (options.source == "-")
        return complain({exit_input, "standard input can be read once only: give --old and --new a file"});
    const auto geo = open_replay_geo(options.geo);
    if (!geo) return complain(geo.error());
    std::string note;
    const auto before = find_all(options, options.old_policy, *geo, note);
    if (!before) return complain(before.error());
    const auto after = find_all(options, options.new_policy, *geo, note);
    if (!after) return complain(after.error());

    std::set<std::string> ids = before->rules;
    ids.insert(after->rules.begin(), after->rules.end());
    for (const Findings& findings : {std::cref(*before), std::cref(*after)})
        for (const auto& [id, groups] : findings.by_rule) ids.insert(id);
    std::vector<RuleDifference> differences;
    bool differ = false;
    for (const std::string& id : ids) {
        differences.push_back(difference_of(id, *before, *after));
        differ |= differences.back().gained + differences.back().lost > 0;
    }
    options.json ? print_json(differences, note) : print_text(differences, note);
    if (std::fflush(stdout) != 0) return complain({exit_environment, "cannot write to standard output"});
    return options.fail_on_difference && differ ? exit_bad : 0;
}

}  // namespace egresswatch::cli
