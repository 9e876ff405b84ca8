// rules/evaluator.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/evaluator.h"

#include <algorithm>
#include <random>
#include <unordered_map>
#include <utility>

#include "rules/limits.h"
#include "rules/matcher.h"
#include "rules/windows.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t drop_steps = 64;  // groups looked at in one call: bounds the pause
constexpr std::size_t reasons_max = 3;  // near misses named in a Decision
constexpr std::uint8_t whole_address = 255;

// What one destination class can still match: everything that the class decides is decided.
struct ClassPlan {
    bool known = false;
    ClassInfo info;
    std::vector<std::uint32_t> allows;  // entries whose destination the class is, in file order
    std::vector<std::uint32_t> rules;
};

GroupKey group_key(const std::vector<GroupBy>& by, const FlowUpdate& flow, const ClassInfo& info) {
    GroupKey key;
    for (const GroupBy field : by) {
        switch (field) {
            case GroupBy::remote:
                key.base = flow.remote();
                key.length = whole_address;
                break;
            case GroupBy::remote_prefix: {
                if (key.length == whole_address) break;  // the address says it already
                const Address remote = flow.remote();
                const std::uint8_t length =
                    remote.is_ipv4() ? limits::remote_prefix_length4 : limits::remote_prefix_length6;
                const Prefix prefix = Prefix::containing(remote, length);
                key.base = prefix.base;
                key.length = prefix.length;
                break;
            }
            case GroupBy::country:
                if (info.country.size() == 2) key.country = {info.country[0], info.country[1]};
                break;
            case GroupBy::unknown_field:
                break;
        }
    }
    return key;
}

std::vector<GroupField> group_fields(const Rule& rule, const FlowUpdate& flow, const ClassInfo& info) {
    std::vector<GroupField> out;
    for (const GroupBy field : rule.by) {
        switch (field) {
            case GroupBy::remote:
                out.push_back({"remote", flow.remote().to_string()});
                break;
            case GroupBy::remote_prefix: {
                const Address remote = flow.remote();
                const std::uint8_t length =
                    remote.is_ipv4() ? limits::remote_prefix_length4 : limits::remote_prefix_length6;
                out.push_back({"remote_prefix", Prefix::containing(remote, length).to_string()});
                break;
            }
            case GroupBy::country:
                out.push_back({"country", info.country.empty() ? "unknown" : info.country});
                break;
            case GroupBy::unknown_field:
                break;
        }
    }
    return out;
}

std::uint64_t amount_of(Measure measure, const FlowCounters& counters) {
    return measure == Measure::bytes_out ? counters.bytes_out : counters.packets_out;
}

// Packet times are what a capture file says: far from the ends of the clock, so that a window can be added.
Timestamp sane(Timestamp at) {
    constexpr Timestamp last = Timestamp::max() - 4 * std::chrono::nanoseconds(limits::window_over_max);
    constexpr Timestamp first = Timestamp::min() + 4 * std::chrono::nanoseconds(limits::window_over_max);
    return std::clamp(at, first, last);
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

    State(std::shared_ptr<const Policy> in_force, ClassOf look_up) : class_of(std::move(look_up)) {
        std::random_device random;
        seed = static_cast<std::uint64_t>(random()) << 32 | random();
        install(std::move(in_force));
    }

    void install(std::shared_ptr<const Policy> next);
    ClassPlan& plan(std::uint16_t class_id, const ClassInfo& info);
    bool covers_tunnel(const Match& match, const FlowUpdate& flow) const;
    int covering_entry(const ClassPlan& candidates, const FlowUpdate& flow, Timestamp at) const;
    Decision decide(const ClassPlan& candidates, const FlowUpdate& flow, const ClassInfo& info,
                    Timestamp at) const;
    std::string near_miss(const AllowEntry& entry, const FlowUpdate& flow, const ClassInfo& info,
                          Timestamp at) const;
    bool counts(const Rule& rule, const FlowUpdate& flow, const ClassInfo& info, Timestamp at, int& allowed,
                const ClassPlan& candidates) const;
    void crossed(std::size_t index, const GroupKey& key, const Windows::Sum& sum, const FlowUpdate& flow,
                 const ClassInfo& info, const ClassPlan& candidates, Timestamp at, std::vector<Finding>& out);

    std::shared_ptr<const Policy> policy;
    ClassOf class_of;
    std::uint64_t seed = 0;
    WindowBudget budget{0, 0, limits::window_groups_total_max, limits::window_cells_total_max};
    std::vector<RuleState> rules;  // as policy->rules
    std::vector<ClassPlan> plans;  // by class id, for this policy
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
                Windows::Config{rule.over, limits::window_groups_max, seed}, budget);
        if (!state.suppressions)
            state.suppressions = std::make_unique<Suppressions>(limits::suppressions_max, seed);
    }
    for (const RuleState& old : rules) {
        if (old.windows) evicted_before += old.windows->evicted();
        if (old.suppressions) suppressions_evicted_before += old.suppressions->evicted();
    }
    rules = std::move(states);
    plans.clear();
    policy = std::move(next);
}

// Cached by class id. An id whose meaning has changed under the same policy is planned anew: comparing costs
// less than being wrong.
ClassPlan& Evaluator::State::plan(std::uint16_t class_id, const ClassInfo& info) {
    if (class_id >= plans.size()) plans.resize(static_cast<std::size_t>(class_id) + 1);
    ClassPlan& out = plans[class_id];
    if (out.known && out.info == info) return out;
    out = {true, info, {}, {}};
    for (std::uint32_t i = 0; i < policy->allows.size(); ++i)
        if (match_class(policy->allows[i].match, info, Purpose::allow) == Truth::yes) out.allows.push_back(i);
    for (std::uint32_t i = 0; i < policy->rules.size(); ++i)
        if (policy->rules[i].active && match_class(policy->rules[i].when, info, Purpose::rule) == Truth::yes)
            out.rules.push_back(i);
    return out;
}

// A tunnelled flow goes to two places: the far end of the tunnel, and from there on. The entry has to cover
// both, where they are not home: otherwise an inner address that is allowed would open the way to any far
// end.
bool Evaluator::State::covers_tunnel(const Match& match, const FlowUpdate& flow) const {
    if (!class_of) return false;
    for (const Address& end : {flow.outer_remote, flow.remote()}) {
        const ClassInfo* info = class_of(end);
        if (info == nullptr) return false;
        if (!at_home(*info) && match_class(match, *info, Purpose::allow) != Truth::yes) return false;
    }
    return true;
}

int Evaluator::State::covering_entry(const ClassPlan& candidates, const FlowUpdate& flow,
                                     Timestamp at) const {
    for (const std::uint32_t index : candidates.allows) {
        const AllowEntry& entry = policy->allows[index];
        if (at >= entry.expires.at || match_flow(entry.match, flow) != Truth::yes) continue;
        if (flow.key.tunnel != datapath::TUNNEL_NONE && !covers_tunnel(entry.match, flow)) continue;
        return static_cast<int>(index);
    }
    return -1;
}

std::string Evaluator::State::near_miss(const AllowEntry& entry, const FlowUpdate& flow,
                                        const ClassInfo& info, Timestamp at) const {
    const Truth destination = match_class(entry.match, info, Purpose::allow);
    if (destination == Truth::no) return {};
    const Truth conditions = match_flow(entry.match, flow);
    // An entry of which even the destination is unknown came close only if all the rest holds.
    if (destination == Truth::unknown)
        return conditions == Truth::yes && at < entry.expires.at
                   ? entry.id + ": " + why_unknown(entry.match, info)
                   : std::string();
    if (conditions != Truth::yes) return entry.id + ": " + why_not(entry.match, flow);
    if (at >= entry.expires.at) return entry.id + " expired " + entry.expires.text;
    if (flow.key.tunnel != datapath::TUNNEL_NONE)
        return entry.id + ": the flow is tunnelled to " + flow.outer_remote.to_string() +
               ", and the entry does not cover both ends";
    return {};
}

Decision Evaluator::State::decide(const ClassPlan& candidates, const FlowUpdate& flow, const ClassInfo& info,
                                  Timestamp at) const {
    const int index = covering_entry(candidates, flow, at);
    if (index >= 0) {
        const AllowEntry& entry = policy->allows[static_cast<std::size_t>(index)];
        return {true, entry.id, entry.reason};
    }
    Decision out;
    std::size_t misses = 0;
    for (const AllowEntry& entry : policy->allows) {
        const std::string miss = near_miss(entry, flow, info, at);
        if (miss.empty() || ++misses > reasons_max) continue;
        out.reason += (out.reason.empty() ? "" : "; ") + miss;
    }
    if (misses == 0) out.reason = "no allow entry names this destination";
    if (misses > reasons_max) out.reason += "; and " + std::to_string(misses - reasons_max) + " more";
    return out;
}

// `allowed` is looked up once an update: -2 until then.
bool Evaluator::State::counts(const Rule& rule, const FlowUpdate& flow, const ClassInfo& info, Timestamp at,
                              int& allowed, const ClassPlan& candidates) const {
    if (match_flow(rule.when, flow) != Truth::yes) return false;
    if (rule.when.allowed) {
        if (allowed == -2) allowed = covering_entry(candidates, flow, at);
        if ((allowed >= 0) != *rule.when.allowed) return false;
    }
    return std::ranges::none_of(rule.exceptions, [&](const RuleException& exception) {
        return at < exception.expires.at &&
               match_class(exception.match, info, Purpose::allow) == Truth::yes &&
               match_flow(exception.match, flow) == Truth::yes;
    });
}

void Evaluator::State::crossed(std::size_t index, const GroupKey& key, const Windows::Sum& sum,
                               const FlowUpdate& flow, const ClassInfo& info, const ClassPlan& candidates,
                               Timestamp at, std::vector<Finding>& out) {
    const Rule& rule = policy->rules[index];
    RuleState& state = rules[index];
    // What was reported, or counted as a repeat, is not counted again: the next crossing is new volume.
    state.windows->clear(key);
    const GroupKey quiet = group_key(rule.suppress_by, flow, info);
    if (state.suppressions->repeat(quiet, at)) {
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
    finding.group = group_fields(rule, flow, info);
    finding.measure = rule.measure;
    finding.value = sum.value;
    finding.threshold = rule.at_least;
    finding.window = rule.over;
    finding.window_start = sum.start;
    finding.window_end = reached;
    finding.flows_in_window = sum.flows;
    finding.suppressed = state.suppressions->start(quiet, at + rule.suppress_for);
    finding.flow = flow;
    finding.info = info;
    finding.list_names = policy->named_lists(info);
    finding.decision = decide(candidates, flow, info, at);
    finding.time = at;
    finding.policy_name = policy->name;
    finding.policy_revision = policy->revision;
    out.push_back(std::move(finding));
}

Evaluator::Evaluator(std::shared_ptr<const Policy> policy, ClassOf class_of)
    : state_(std::make_unique<State>(std::move(policy), std::move(class_of))) {}
Evaluator::~Evaluator() = default;
Evaluator::Evaluator(Evaluator&&) noexcept = default;
Evaluator& Evaluator::operator=(Evaluator&&) noexcept = default;

void Evaluator::replace_policy(std::shared_ptr<const Policy> policy) {
    state_->install(std::move(policy));
}

const std::shared_ptr<const Policy>& Evaluator::policy() const noexcept {
    return state_->policy;
}

void Evaluator::evaluate(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                         std::vector<Finding>& out) {
    State& state = *state_;
    ++state.counters.updates;
    state.reached = std::max(state.reached, sane(now));
    if (update.delta.bytes_out == 0 && update.delta.packets_out == 0) return;
    const ClassPlan& plan = state.plan(update.key.class_id, info);
    if (plan.rules.empty()) return;
    state.counters.ahead += update.last_seen > state.reached ? 1 : 0;
    const Timestamp at = std::min(sane(update.last_seen), state.reached);
    const bool new_flow = update.total.packets_out == update.delta.packets_out;
    int allowed = -2;
    for (const std::uint32_t index : plan.rules) {
        const Rule& rule = state.policy->rules[index];
        const std::uint64_t amount = amount_of(rule.measure, update.delta);
        if (amount == 0 || !state.counts(rule, update, info, at, allowed, plan)) continue;
        const GroupKey key = group_key(rule.by, update, info);
        const Windows::Sum sum = state.rules[index].windows->add(key, amount, new_flow, at, state.reached);
        state.counters.late += sum.late ? 1 : 0;
        if (!sum.late && sum.value >= rule.at_least)
            state.crossed(index, key, sum, update, info, plan, at, out);
    }
}

void Evaluator::advance(Timestamp now, std::vector<Finding>&) {
    State& state = *state_;
    state.reached = std::max(state.reached, sane(now));
    for (State::RuleState& rule : state.rules) {
        rule.windows->drop_empty(state.reached, drop_steps);
        rule.suppressions->drop_ended(state.reached, drop_steps);
    }
}

Decision Evaluator::decide(const FlowUpdate& update, const ClassInfo& info, Timestamp now) const {
    return state_->decide(state_->plan(update.key.class_id, info), update, info, now);
}

int Evaluator::allowed_by(const FlowUpdate& update, const ClassInfo& info, Timestamp now) const {
    return state_->covering_entry(state_->plan(update.key.class_id, info), update, now);
}

std::uint64_t Evaluator::bytes_until_next(const FlowUpdate& update, const ClassInfo& info) const {
    State& state = *state_;
    const ClassPlan& plan = state.plan(update.key.class_id, info);
    const Timestamp at = std::min(sane(update.last_seen), state.reached);
    std::uint64_t out = never;
    int allowed = -2;
    for (const std::uint32_t index : plan.rules) {
        const Rule& rule = state.policy->rules[index];
        const State::RuleState& counted = state.rules[index];
        if (rule.measure != Measure::bytes_out || !state.counts(rule, update, info, at, allowed, plan))
            continue;
        if (counted.suppressions->active(group_key(rule.suppress_by, update, info), state.reached)) continue;
        const std::uint64_t value = counted.windows->value(group_key(rule.by, update, info), state.reached);
        out = std::min(out, rule.at_least > value ? rule.at_least - value : 1);
    }
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
        out.push_back({definition.id, definition.active, rule.findings, rule.suppressed,
                       rule.evicted_before + rule.windows->evicted(), rule.windows->groups()});
    }
    return out;
}

}  // namespace egresswatch::rules
