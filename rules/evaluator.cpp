// rules/evaluator.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/evaluator.h"

#include <algorithm>
#include <random>
#include <unordered_map>
#include <utility>

#include "rules/limits.h"
#include "rules/matcher.h"
#include "rules/plan.h"
#include "rules/windows.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t drop_steps = 64;  // groups looked at in one call: bounds the pause
constexpr std::size_t reasons_max = 3;  // near misses named in a Decision

std::uint64_t amount_of(Measure measure, const FlowCounters& counters) {
    return measure == Measure::bytes_out ? counters.bytes_out : counters.packets_out;
}

// Packet times are what a capture file says: far from the ends of the clock, so that a window can be added.
Timestamp sane(Timestamp at) {
    constexpr Timestamp last = Timestamp::max() - 4 * std::chrono::nanoseconds(limits::window_over_max);
    constexpr Timestamp first = Timestamp::min() + 4 * std::chrono::nanoseconds(limits::window_over_max);
    return std::clamp(at, first, last);
}

bool selects_destination(Field field) {
    switch (field) {
        case Field::region:
        case Field::country:
        case Field::list:
        case Field::remote:
        case Field::asn:
        case Field::domain:
            return true;
        default:
            return false;
    }
}

bool at_home(const ClassInfo& info) {
    return info.kind == datapath::KIND_LOCAL || info.kind == datapath::KIND_HOME;
}

}  // namespace

struct Evaluator::State {
    struct RuleState {
        std::unique_ptr<Windows> windows;
        std::unique_ptr<Suppressions> suppressions;
        std::uint64_t findings = 0;
        std::uint64_t suppressed = 0;
        std::uint64_t evicted_before = 0;  // by windows that a change of the rule has ended
    };

    State(std::shared_ptr<const Policy> in_force, ClassOf look_up, Host host) : class_of(std::move(look_up)) {
        std::random_device random;
        hash.seed = static_cast<std::uint64_t>(random()) << 32 | random();
        around.site = std::move(host.site);
        around.asn_of = std::move(host.asn_of);
        around.interface_name = std::move(host.interface_name);
        install(std::move(in_force));
    }

    void install(std::shared_ptr<const Policy> next);
    Subject subject(const FlowUpdate& flow, const ClassInfo& info, Timestamp at,
                    const FlowFacts& facts) const {
        return {flow,  info, facts, at, policy->prefix_index(), policy->prefix_index().find(flow.remote()),
                around};
    }
    bool covers_tunnel(const Condition& match, const Subject& flow) const;
    int covering_entry(const Plan::OfClass& plan, const Subject& flow);
    Decision decide(int index, const Subject& flow) const;
    std::string near_miss(const AllowEntry& entry, const Subject& flow) const;
    bool counts(const Rule& rule, const Subject& flow) const;
    RuleExplanation explain_rule(std::size_t index, const Subject& flow) const;
    void crossed(std::size_t index, const GroupKey& key, const Windows::Sum& sum, const Subject& flow,
                 int entry, std::vector<Finding>& out);

    std::shared_ptr<const Policy> policy;
    ClassOf class_of;
    Surroundings around;
    GroupHash hash;
    WindowBudget budget{0, 0, limits::window_groups_total_max, limits::window_cells_total_max};
    std::vector<RuleState> rules;                        // as policy->rules
    Plan plan;                                           // for this policy
    std::vector<std::uint32_t> some_rules, some_allows;  // of an update; kept for their memory
    Timestamp reached = sane(Timestamp::min());
    EvaluatorCounters counters;
    std::uint64_t evicted_before = 0;  // by rules that are gone
    std::uint64_t suppressions_evicted_before = 0;
};

void Evaluator::State::install(std::shared_ptr<const Policy> next) {
    std::vector<RuleState> states(next->rules.size());
    std::unordered_map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < rules.size(); ++i) by_id.emplace(policy->rules[i].id, i);
    for (std::size_t i = 0; i < next->rules.size(); ++i) {
        const Rule& rule = next->rules[i];
        RuleState& state = states[i];
        if (const auto same_id = by_id.find(rule.id); same_id != by_id.end()) {
            const std::size_t before = same_id->second;
            RuleState& old = rules[before];
            state.findings = old.findings;
            state.suppressed = old.suppressed;
            state.evicted_before = old.evicted_before;
            if (policy->rules[before].definition == rule.definition) {
                state.windows = std::move(old.windows);
                state.suppressions = std::move(old.suppressions);
            } else if (old.windows) {
                state.evicted_before += old.windows->evicted();
            }
        }
        if (!state.windows)
            state.windows = std::make_unique<Windows>(
                Windows::Config{rule.over, limits::window_groups_max, hash.seed}, budget);
        if (!state.suppressions)
            state.suppressions = std::make_unique<Suppressions>(limits::suppressions_max, hash.seed);
    }
    for (const RuleState& old : rules) {
        if (old.windows) evicted_before += old.windows->evicted();
        if (old.suppressions) suppressions_evicted_before += old.suppressions->evicted();
    }
    rules = std::move(states);
    policy = std::move(next);
    plan = Plan(*policy, around.site);
    const Site* site = policy->find_site(around.site);
    around.clock = SiteClock::of_zone(site == nullptr ? std::string_view() : site->timezone);
}

// A tunnelled flow goes to two places: the far end of the tunnel, and from there on. The entry has to cover
// both, where they are not home: otherwise an inner address that is allowed would open the way to any far
// end.
bool Evaluator::State::covers_tunnel(const Condition& match, const Subject& flow) const {
    if (!class_of) return false;
    for (const Address& end : {flow.flow.outer_remote, flow.flow.remote()}) {
        const ClassInfo* info = class_of(end);
        if (info == nullptr) return false;
        if (at_home(*info)) continue;
        FlowUpdate there = flow.flow;
        std::copy(end.bytes.begin(), end.bytes.end(), there.key.remote_addr);
        if (rules::match(match, subject(there, *info, flow.at, flow.facts), Purpose::allow) != Truth::yes)
            return false;
    }
    return true;
}

int Evaluator::State::covering_entry(const Plan::OfClass& of_class, const Subject& flow) {
    for (const std::uint32_t index : plan.allows(of_class, flow.flow, flow.place, some_allows)) {
        const AllowEntry& entry = policy->allows[index];
        if (flow.at >= entry.expires.at || match(entry.match, flow, Purpose::allow) != Truth::yes) continue;
        if (flow.flow.key.tunnel != datapath::TUNNEL_NONE && !covers_tunnel(entry.match, flow)) continue;
        return static_cast<int>(index);
    }
    return -1;
}

std::string Evaluator::State::near_miss(const AllowEntry& entry, const Subject& flow) const {
    Truth destination = Truth::yes, rest = Truth::yes;
    for (const Predicate& predicate : entry.match.predicates) {
        const bool is_destination = selects_destination(predicate.field);
        Truth& part = is_destination ? destination : rest;
        part = std::min(part, match(predicate, flow, Purpose::allow));
    }
    // An entry of which even the destination is unknown came close only if all the rest holds.
    if (destination == Truth::no) return {};
    if (destination == Truth::unknown && (rest != Truth::yes || flow.at >= entry.expires.at)) return {};
    if (const std::string failed = why_not(entry.match, flow, Purpose::allow); !failed.empty())
        return entry.id + ": " + failed;
    if (flow.at >= entry.expires.at) return entry.id + " expired " + entry.expires.text;
    if (flow.flow.key.tunnel != datapath::TUNNEL_NONE)
        return entry.id + ": the flow is tunnelled to " + flow.flow.outer_remote.to_string() +
               ", and the entry does not cover both ends";
    return {};
}

Decision Evaluator::State::decide(int index, const Subject& flow) const {
    if (index >= 0) {
        const AllowEntry& entry = policy->allows[static_cast<std::size_t>(index)];
        return {true, entry.id, entry.reason};
    }
    Decision out;
    std::size_t misses = 0;
    for (const AllowEntry& entry : policy->allows) {
        const std::string miss = near_miss(entry, flow);
        if (miss.empty() || ++misses > reasons_max) continue;
        out.reason += (out.reason.empty() ? "" : "; ") + miss;
    }
    if (misses == 0) out.reason = "no allow entry names this destination";
    if (misses > reasons_max) out.reason += "; and " + std::to_string(misses - reasons_max) + " more";
    return out;
}

bool Evaluator::State::counts(const Rule& rule, const Subject& flow) const {
    if (match(rule.when, flow, Purpose::rule) != Truth::yes || !can_group(rule.by, flow)) return false;
    return std::ranges::none_of(rule.exceptions, [&](const RuleException& exception) {
        return flow.at < exception.expires.at && match(exception.match, flow, Purpose::allow) == Truth::yes;
    });
}

void Evaluator::State::crossed(std::size_t index, const GroupKey& key, const Windows::Sum& sum,
                               const Subject& flow, int entry, std::vector<Finding>& out) {
    const Rule& rule = policy->rules[index];
    RuleState& state = rules[index];
    // What was reported, or counted as a repeat, is not counted again: the next crossing is new volume.
    state.windows->clear(key);
    const GroupKey quiet = group_key(rule.suppress_by, flow, hash);
    if (state.suppressions->repeat(quiet, flow.at)) {
        ++state.suppressed;
        ++counters.suppressed;
        return;
    }
    ++state.findings;
    ++counters.findings;
    Finding finding;
    finding.rule_id = rule.id;
    finding.rule_revision = rule.revision;
    finding.title = rule.title;
    finding.level = rule.level;
    finding.tags = rule.tags;
    finding.group = group_fields(rule.by, flow);
    finding.measure = rule.measure;
    finding.value = sum.value;
    finding.threshold = rule.at_least;
    finding.window = rule.over;
    finding.window_start = sum.start;
    finding.window_end = reached;
    finding.flows_in_window = sum.flows;
    finding.suppressed = state.suppressions->start(quiet, flow.at + rule.suppress_for);
    finding.flow = flow.flow;
    finding.info = flow.info;
    finding.list_names = policy->named_lists(flow.info, flow.place);
    finding.decision = decide(entry, flow);
    finding.time = flow.at;
    finding.policy_name = policy->name;
    finding.policy_revision = policy->revision;
    out.push_back(std::move(finding));
}

RuleExplanation Evaluator::State::explain_rule(std::size_t index, const Subject& flow) const {
    const Rule& rule = policy->rules[index];
    RuleExplanation out;
    out.id = rule.id;
    out.kind = "sum";
    out.threshold = rule.at_least;
    out.measure = measure_name(rule.measure);
    out.window = rule.over;
    if (!rule.active)
        out.why_not = "it asks for what is unknown in this version";
    else if (match(rule.when, flow, Purpose::rule) != Truth::yes)
        out.why_not = why_not(rule.when, flow, Purpose::rule);
    else if (!can_group(rule.by, flow))
        out.why_not = "no field of its group is known";
    for (std::size_t i = 0; i < rule.exceptions.size() && out.why_not.empty(); ++i) {
        const RuleException& exception = rule.exceptions[i];
        if (flow.at < exception.expires.at && match(exception.match, flow, Purpose::allow) == Truth::yes)
            out.why_not = "exception " + std::to_string(i + 1) + " of " + exception.owner +
                          " excuses it until " + exception.expires.text;
    }
    if (!out.why_not.empty()) return out;
    out.counts = true;
    out.group = group_fields(rule.by, flow);
    const Timestamp at = std::max(reached, flow.at);
    out.value = rules[index].windows->value(group_key(rule.by, flow, hash), at);
    out.suppressed = rules[index].suppressions->active(group_key(rule.suppress_by, flow, hash), at);
    return out;
}

Evaluator::Evaluator(std::shared_ptr<const Policy> policy, ClassOf class_of)
    : Evaluator(std::move(policy), std::move(class_of), Host{}) {}
Evaluator::Evaluator(std::shared_ptr<const Policy> policy, ClassOf class_of, Host host)
    : state_(std::make_unique<State>(std::move(policy), std::move(class_of), std::move(host))) {}
Evaluator::~Evaluator() = default;
Evaluator::Evaluator(Evaluator&&) noexcept = default;
Evaluator& Evaluator::operator=(Evaluator&&) noexcept = default;

void Evaluator::replace_policy(std::shared_ptr<const Policy> policy) {
    state_->install(std::move(policy));
}

const std::shared_ptr<const Policy>& Evaluator::policy() const noexcept {
    return state_->policy;
}

std::uint64_t Evaluator::evaluate(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                  std::vector<Finding>& out, const FlowFacts& facts) {
    State& state = *state_;
    ++state.counters.updates;
    state.reached = std::max(state.reached, sane(now));
    if (update.delta.bytes_out == 0 && update.delta.packets_out == 0) return never;
    const Plan::OfClass& of_class = state.plan.of_class(update.key.class_id, info);
    Subject flow = state.subject(update, info, std::min(sane(update.last_seen), state.reached), facts);
    const auto candidates = state.plan.rules(of_class, update, flow.place, state.some_rules);
    if (candidates.empty()) return never;
    state.counters.ahead += update.last_seen > state.reached ? 1 : 0;
    const int entry = state.covering_entry(of_class, flow);
    flow.allowed = entry >= 0;
    const bool new_flow = update.total.packets_out == update.delta.packets_out;
    std::uint64_t missing = never;
    for (const std::uint32_t index : candidates) {
        const Rule& rule = state.policy->rules[index];
        const std::uint64_t amount = amount_of(rule.measure, update.delta);
        if (amount == 0 || !state.counts(rule, flow)) continue;
        const GroupKey key = group_key(rule.by, flow, state.hash);
        const Windows::Sum sum =
            state.rules[index].windows->add(key, amount, new_flow, flow.at, state.reached);
        state.counters.late += sum.late ? 1 : 0;
        if (!sum.late && sum.value >= rule.at_least)
            state.crossed(index, key, sum, flow, entry, out);
        else if (rule.measure == Measure::bytes_out && !sum.late && rule.at_least - sum.value < missing &&
                 !state.rules[index].suppressions->active(group_key(rule.suppress_by, flow, state.hash),
                                                          state.reached))
            missing = rule.at_least - sum.value;
    }
    return missing;
}

void Evaluator::advance(Timestamp now, std::vector<Finding>&) {
    State& state = *state_;
    state.reached = std::max(state.reached, sane(now));
    for (State::RuleState& rule : state.rules) {
        rule.windows->drop_empty(state.reached, drop_steps);
        rule.suppressions->drop_ended(state.reached, drop_steps);
    }
}

Decision Evaluator::decide(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                           const FlowFacts& facts) const {
    const Subject flow = state_->subject(update, info, now, facts);
    return state_->decide(state_->covering_entry(state_->plan.of_class(update.key.class_id, info), flow),
                          flow);
}

int Evaluator::allowed_by(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                          const FlowFacts& facts) const {
    return state_->covering_entry(state_->plan.of_class(update.key.class_id, info),
                                  state_->subject(update, info, now, facts));
}

Explanation Evaluator::explain(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                               const FlowFacts& facts) const {
    State& state = *state_;
    Subject flow = state.subject(update, info, sane(now), facts);
    const int entry = state.covering_entry(state.plan.of_class(update.key.class_id, info), flow);
    flow.allowed = entry >= 0;
    Explanation out;
    out.decision = state.decide(entry, flow);
    for (std::size_t i = 0; i < state.policy->allows.size(); ++i) {
        const AllowEntry& allow = state.policy->allows[i];
        const std::string miss = state.near_miss(allow, flow);
        AllowExplanation line{allow.id, static_cast<int>(i) == entry,
                              why_not(allow.match, flow, Purpose::allow), !miss.empty()};
        // What near_miss() knows beyond the fields: that it has expired, that a tunnel leads elsewhere.
        if (line.why_not.empty() && !line.covers)
            line.why_not = miss.substr(std::min(miss.size(), allow.id.size() + 1));
        out.allows.push_back(std::move(line));
    }
    for (std::size_t i = 0; i < state.policy->rules.size(); ++i)
        out.rules.push_back(state.explain_rule(i, flow));
    return out;
}

EvaluatorCounters Evaluator::counters() const noexcept {
    EvaluatorCounters out = state_->counters;
    out.window_evictions = state_->evicted_before;
    out.suppression_evictions = state_->suppressions_evicted_before;
    for (const State::RuleState& rule : state_->rules) {
        out.window_evictions += rule.windows->evicted();
        out.suppression_evictions += rule.suppressions->evicted();
    }
    out.groups = state_->budget.groups;
    out.cells = state_->budget.cells;
    return out;
}

std::vector<RuleStatus> Evaluator::rule_status() const {
    std::vector<RuleStatus> out;
    for (std::size_t i = 0; i < state_->rules.size(); ++i) {
        const State::RuleState& rule = state_->rules[i];
        const Rule& definition = state_->policy->rules[i];
        const bool by_asn_alone = definition.by == std::vector{Field::asn} && !state_->around.asn_of;
        out.push_back({definition.id, definition.active && !by_asn_alone, rule.findings, rule.suppressed,
                       rule.evicted_before + rule.windows->evicted(), rule.windows->groups()});
    }
    return out;
}

}  // namespace egresswatch::rules
