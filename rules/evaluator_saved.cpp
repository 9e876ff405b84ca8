// rules/evaluator_saved.cpp - what an evaluator remembers over a restart.
// SPDX-License-Identifier: Apache-2.0
//
// Layout: magic, version, seed of the group hashes, packet time reached, then a part for each rule that is
// kept (id, definition, state) and one for the allow entries. A rule is taken over where its definition is
// the same; what belongs to others is left out. Who stores the bytes makes sure that they are whole
// (agent/daemon).
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "classifier/sender.h"
#include "rules/evaluator_state.h"
#include "rules/group_key.h"

namespace egresswatch::rules {

namespace {

constexpr std::uint32_t magic = 0x54535745;  // "EWST"
constexpr std::uint32_t version = 1;

// Short windows fill again by themselves.
bool is_kept(const Rule& rule) {
    return rule.over >= limits::kept_over_min || rule.kind == RuleKind::first_contact ||
           rule.kind == RuleKind::periodic || rule.suppress_for >= limits::kept_over_min;
}

// What the finding's group says of names and process; the rest of its fields is in the flow.
class GroupFacts {
public:
    explicit GroupFacts(std::span<const GroupField> group) : group_(group) {
        facts.executable = text(Field::executable);
        facts.sha256 = text(Field::sha256);
        facts.user = text(Field::user);
        facts.cgroup = text(Field::cgroup);
        facts.unit = text(Field::unit);
        facts.container = text(Field::container);
        facts.app = text(Field::app);
        for (std::uint8_t outcome = 0; outcome < datapath::SENDER_OUTCOME_COUNT; ++outcome)
            if (sender_outcome_name(outcome) == text(Field::sender)) facts.sender = outcome;
        name = text(Field::name).empty() ? text(Field::registered_domain) : text(Field::name);
        const std::string_view uid = text(Field::uid);
        std::uint32_t number = 0;
        if (std::from_chars(uid.data(), uid.data() + uid.size(), number).ec == std::errc())
            facts.uid = number;
    }

    FlowFacts facts;
    std::string_view name;

private:
    [[nodiscard]] std::string_view text(Field field) const {
        const auto found = std::ranges::find(group_, field_info(field).name, &GroupField::name);
        return found == group_.end() || found->value == "unknown" ? std::string_view() : found->value;
    }
    std::span<const GroupField> group_;
};

}  // namespace

std::string Evaluator::save() const {
    const State& state = *state_;
    StateWriter out;
    out.put(magic);
    out.put(version);
    out.put(state.hash.seed);
    out.put(state.reached);
    std::uint64_t kept = 0;
    for (const Rule& rule : state.policy->rules) kept += is_kept(rule) ? 1 : 0;
    out.put(kept);
    for (std::size_t i = 0; i < state.rules.size(); ++i) {
        const Rule& rule = state.policy->rules[i];
        if (!is_kept(rule)) continue;
        out.text(rule.id);
        out.text(rule.definition);
        const std::size_t part = out.begin_part();
        state.rules[i]->save(out);
        out.end_part(part);
    }
    state.allows->save(*state.policy, out);
    return out.take();
}

std::expected<RestoredState, std::string> Evaluator::restore(std::string_view bytes) {
    StateReader in(bytes);
    if (in.get<std::uint32_t>() != magic) return std::unexpected("it is no saved state");
    if (const auto found = in.get<std::uint32_t>(); found != version)
        return std::unexpected("it has layout version " + std::to_string(found) + ", this program reads " +
                               std::to_string(version));
    const auto seed = in.get<std::uint64_t>();
    const auto reached = in.get<Timestamp>();
    // Built aside: a state that turns out to be damaged leaves this evaluator as it was.
    auto next = std::make_unique<State>(
        state_->policy, state_->class_of,
        Host{state_->around.site, state_->around.asn_of, state_->around.interface_name});
    next->use_seed(seed);
    std::unordered_map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < next->policy->rules.size(); ++i) by_id.emplace(next->policy->rules[i].id, i);
    RestoredState out{reached, 0, 0};
    const std::uint64_t rules = in.count(16);
    for (std::uint64_t i = 0; i < rules && in.ok(); ++i) {
        const auto known = by_id.find(in.text());
        const std::string_view definition = in.text();
        StateReader part = in.part();
        if (known == by_id.end() || next->policy->rules[known->second].definition != definition) {
            ++out.dropped;
            continue;
        }
        next->rules[known->second]->restore(part);
        if (!part.ok() || !part.at_end()) return std::unexpected("the windows of a rule are damaged");
        ++out.rules;
    }
    next->allows->restore(*next->policy, in);
    if (!in.ok() || !in.at_end()) return std::unexpected("it is cut or damaged");
    next->reached = std::max(next->reached, reached);
    next->restored_at = reached;
    state_ = std::move(next);
    return out;
}

bool Evaluator::recall(const ReportedFinding& reported) {
    const auto& rules = state_->policy->rules;
    const auto rule = std::ranges::find(rules, reported.rule_id, &Rule::id);
    if (rule == rules.end()) return false;
    const GroupFacts known(reported.group);
    Subject subject = state_->subject(reported.flow, reported.info, sane(reported.at), known.facts);
    subject.name = known.name;
    RuleState& state = *state_->rules[static_cast<std::size_t>(rule - rules.begin())];
    const GroupKey quiet = state.quiet_by.key(subject, state_->hash);
    if (state.suppressions.active(quiet, subject.at)) return false;  // the saved state knows it
    state.clear(state.group_by.key(subject, state_->hash));
    state.suppressions.start(quiet, subject.at + rule->suppress_for);
    return true;
}

}  // namespace egresswatch::rules
