// rules/evaluator.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/evaluator.h"

#include <algorithm>
#include <bit>
#include <random>
#include <unordered_map>
#include <utility>

#include "rules/evaluator_state.h"
#include "rules/limits.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t drop_steps = 64;  // groups looked at in one call: bounds the pause

bool names_in(const Condition& condition) {
    const auto of_names = [](const Predicate& predicate) {
        return field_info(predicate.field).source == Source::names ||
               std::ranges::any_of(predicate.sets, [](const NamedSet& set) { return !set.domains.empty(); });
    };
    return std::ranges::any_of(condition.predicates, of_names) ||
           std::ranges::any_of(condition.all, names_in) || std::ranges::any_of(condition.any, names_in) ||
           std::ranges::any_of(condition.none, names_in);
}

bool asks_for_names(const Policy& policy) {
    const auto is_name = [](Field field) { return field_info(field).source == Source::names; };
    return std::ranges::any_of(policy.allows, [](const auto& entry) { return names_in(entry.match); }) ||
           std::ranges::any_of(policy.rules, [&](const Rule& rule) {
               return names_in(rule.when) || std::ranges::any_of(rule.by, is_name) ||
                      std::ranges::any_of(rule.exceptions, [](const auto& e) { return names_in(e.match); });
           });
}

}  // namespace

Evaluator::State::State(std::shared_ptr<const Policy> in_force, ClassOf look_up, Host host)
    : class_of(std::move(look_up)) {
    std::random_device random;
    hash.seed = static_cast<std::uint64_t>(random()) << 32 | random();
    contradictions = Suppressions(limits::contradictions_max, hash);
    around.site = std::move(host.site);
    around.asn_of = std::move(host.asn_of);
    around.interface_name = std::move(host.interface_name);
    allows.emplace(hash, budget);
    install(std::move(in_force));
}

void Evaluator::State::use_seed(std::uint64_t seed) {
    hash.seed = seed;
    contradictions = Suppressions(limits::contradictions_max, hash);
    rules.clear();
    allows.emplace(hash, budget);
    install(policy);
}

void Evaluator::State::install(std::shared_ptr<const Policy> next) {
    std::vector<std::unique_ptr<RuleState>> states(next->rules.size());
    std::unordered_map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < rules.size(); ++i) by_id.emplace(policy->rules[i].id, i);
    for (std::size_t i = 0; i < next->rules.size(); ++i) {
        const Rule& rule = next->rules[i];
        const auto same_id = by_id.find(rule.id);
        if (same_id == by_id.end()) {
            states[i] = std::make_unique<RuleState>(rule, hash, budget);
            continue;
        }
        std::unique_ptr<RuleState>& old = rules[same_id->second];
        if (policy->rules[same_id->second].definition == rule.definition) {
            states[i] = std::move(old);
            continue;
        }
        states[i] = std::make_unique<RuleState>(rule, hash, budget);
        states[i]->findings = old->findings;
        states[i]->suppressed = old->suppressed;
        states[i]->evicted_before = old->evicted_before + old->evicted();
    }
    for (const auto& old : rules) {
        if (!old) continue;
        evicted_before += old->evicted();
        suppressions_evicted_before += old->suppressions.evicted();
    }
    rules = std::move(states);
    allows->install(policy.get(), *next);
    policy = std::move(next);
    plan = Plan(*policy, around.site);
    counts_inbound = std::ranges::any_of(policy->rules, &Rule::counts_inbound);
    make_briefs();
    sequences.assign(policy->rules.size(), {});
    for (std::uint32_t i = 0; i < policy->rules.size(); ++i) {
        const Rule& rule = policy->rules[i];
        if (rule.kind != RuleKind::sequence) continue;
        sequences[rule.first].push_back(i);
        sequences[rule.then].push_back(i);
    }
    wants_names = asks_for_names(*policy);
    counts_questions = std::ranges::any_of(policy->rules, &Rule::counts_names);
    const Site* site = policy->find_site(around.site);
    around.clock = SiteClock::of_zone(site == nullptr ? std::string_view() : site->timezone);
}

void Evaluator::State::make_briefs() {
    const auto is_given = [](Field field) { return field_info(field).source == Source::given; };
    // Rules of the same `by` share a group's key and hash.
    std::map<std::vector<Field>, std::uint32_t> keys;
    briefs.clear();
    for (std::size_t i = 0; i < rules.size(); ++i) {
        const Rule& rule = policy->rules[i];
        const std::uint32_t key =
            keys.emplace(rule.by, static_cast<std::uint32_t>(keys.size())).first->second;
        briefs.push_back(
            {rules[i].get(),
             &rule,
             rules[i]->places(),
             key,
             rules[i]->group_by.is_known_ahead(),
             rule.exceptions.empty() && (rule.by.empty() || std::ranges::any_of(rule.by, is_given)),
             rule.counts_names,
             {!rule.counts_names && rule.counts_inbound, !rule.counts_names}});
    }
    for (Prepared& one : prepared) {
        one.keys.assign(keys.size(), {});
        one.left.reserve(rules.size());
    }
}

void Evaluator::State::prepare(Prepared& out, const FlowUpdate& update, const Plan::OfClass& of_class) {
    out.update = &update;
    out.of_class = &of_class;
    out.number = ++prepared_count;
    out.outbound = is_outbound(update);
    out.bits = flow_bits(update);
    out.left.clear();
    out.keys_ahead = true;
    for (const Plan::Candidate& candidate : of_class.rules.any) {
        // Whether an entry allows it is found out at its turn.
        if ((out.bits & ~(candidate.residue.bits | allowed_bits)) != 0) continue;
        const Brief& rule = briefs[candidate.index];
        if (!rule.counts[out.outbound]) continue;
        out.left.push_back(candidate);
        out.keys_ahead &= rule.key_ahead;
        if (!rule.key_ahead) continue;
        KeyAndHash& group = out.keys[rule.key];
        if (group.made_for != out.number) {
            group.made_for = out.number;
            rule.state->group_by.set_key_ahead(group.key, update, of_class.info);
            group.hash = hash(group.key);
        }
        if (rule.groups != nullptr) rule.groups->prefetch(group.hash);
    }
}

bool Evaluator::State::counts_rest(const Plan::Candidate& candidate, const Subject& flow) const {
    const std::uint32_t index = candidate.index;
    const Rule& rule = policy->rules[index];
    if (!candidate.residue.decided) {
        const Truth matched = plan.class_settles_rule(index) ? match_flow(rule.when, flow, Purpose::rule)
                                                             : match(rule.when, flow, Purpose::rule);
        if (matched != Truth::yes) return false;
    }
    if (!can_group(rule.by, flow)) return false;
    return std::ranges::none_of(rule.exceptions, [&](const RuleException& exception) {
        return flow.at < exception.expires.at && match(exception.match, flow, Purpose::allow) == Truth::yes;
    });
}

// A flow that lived when the state was saved, and whose first news its adopter delivers whole: what it had
// sent by then is in the windows already. Its share since is estimated by time.
FlowUpdate Evaluator::State::since_saved(const FlowUpdate& update) const {
    FlowUpdate out = update;
    if (!restored_at || update.first_seen >= *restored_at || update.delta != update.total) return out;
    const double all = static_cast<double>((update.last_seen - update.first_seen).count());
    const double since = static_cast<double>((update.last_seen - *restored_at).count());
    const double share = all <= 0 || since <= 0 ? 0 : std::min(since / all, 1.0);
    for (std::uint64_t* counter :
         {&out.delta.bytes_out, &out.delta.packets_out, &out.delta.bytes_in, &out.delta.packets_in})
        *counter = static_cast<std::uint64_t>(static_cast<double>(*counter) * share);
    return out;
}

// In line: for every rule that counts an update.
[[gnu::always_inline]] inline void Evaluator::State::count(std::uint32_t index, Prepared& told,
                                                           const Subject& flow, int entry,
                                                           std::uint64_t& missing,
                                                           std::vector<Finding>& out) {
    const Brief& rule = briefs[index];
    RuleState& state = *rule.state;
    const KeyAndHash& group = key(rule, told, flow);
    const auto outcome = state.count(*rule.rule, flow, group.key, group.hash, reached, hit);
    counters.late += outcome.late ? 1 : 0;
    if (outcome.crossed) [[unlikely]]
        crossed(index, group.key, flow, entry, out);
    else if (state.suppressions.empty() ||
             (outcome.missing < missing &&
              !state.suppressions.active(state.quiet_by.key(flow, hash), reached)))
        missing = std::min(missing, outcome.missing);
}

void Evaluator::State::crossed(std::uint32_t index, const GroupKey& group, const Subject& flow, int entry,
                               std::vector<Finding>& out) {
    rules[index]->clear(group);
    report(index, std::move(hit), flow, entry, out);
    for (const std::uint32_t sequence : sequences[index]) {
        const Rule& both = policy->rules[sequence];
        if (!can_group(both.by, flow)) continue;
        LastSeen& firsts = *rules[sequence]->firsts;
        const GroupKey joint = rules[sequence]->group_by.key(flow, hash);
        if (both.then == index) {
            const auto first = firsts.find(joint);
            if (first && flow.at >= *first && flow.at - *first <= both.over) {
                firsts.erase(joint);
                const auto between = std::chrono::duration<double>(flow.at - *first).count();
                report(sequence, {1, 1, *first, 0, {{"seconds_between", between}}}, flow, entry, out);
            }
        } else {
            firsts.see(joint, hash(joint), flow.at);
        }
    }
}

void Evaluator::State::report(std::uint32_t index, Hit what, const Subject& flow, int entry,
                              std::vector<Finding>& out) {
    const Rule& rule = policy->rules[index];
    RuleState& state = *rules[index];
    const GroupKey quiet = state.quiet_by.key(flow, hash);
    if (state.suppressions.repeat(quiet, flow.at)) {
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
    finding.kind = rule_kind_name(rule.kind);
    finding.test = rule.test;
    finding.group = group_fields(rule.by, flow);
    finding.measure = rule.measure_text;
    finding.value = what.value;
    finding.threshold = what.threshold;
    finding.window = rule.over;
    finding.window_start = what.start;
    finding.window_end = reached;
    finding.flows_in_window = what.flows;
    finding.details = std::move(what.details);
    finding.suppressed = state.suppressions.start(quiet, flow.at + rule.suppress_for);
    describe(finding, flow, entry);
    out.push_back(std::move(finding));
}

void Evaluator::State::describe(Finding& finding, const Subject& flow, int entry) const {
    finding.flow = flow.flow;
    finding.info = flow.info;
    finding.list_names = policy->named_lists(flow.info, flow.place);
    finding.decision = decide(entry, flow);
    finding.time = flow.at;
    finding.policy_name = policy->name;
    finding.policy_revision = policy->revision;
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

std::uint64_t Evaluator::State::take_turn(Prepared& told, const FlowFacts& facts, std::vector<Finding>& out) {
    if (!restored_at) return count_all(told, *told.update, facts, out);
    return count_all(told, since_saved(*told.update), facts, out);
}

std::uint64_t Evaluator::State::count_all(Prepared& told, const FlowUpdate& update, const FlowFacts& facts,
                                          std::vector<Finding>& out) {
    const Plan::OfClass& of_class = *told.of_class;
    Subject flow =
        subject(update, of_class.info, std::min(sane(update.last_seen), reached), facts, told.bits);
    const int entry = told.outbound ? cover(of_class, flow, out) : covering_entry(of_class, flow);
    flow.set_allowed(entry >= 0);
    const auto candidates = plan.rules(of_class, told.left, flow, some_rules);
    std::uint64_t missing = entry < 0 ? never : until_ceiling(entry);
    if (candidates.empty() && of_class.rules.any.empty()) return missing;
    counters.ahead += update.last_seen > reached ? 1 : 0;
    if (candidates.data() == told.left.data() && told.keys_ahead) {
        for (const Plan::Candidate& candidate : candidates)
            if (counts(candidate, flow)) count(candidate.index, told, flow, entry, missing, out);
        return missing;
    }
    // First all that count it, so that the groups of the others are on their way from memory meanwhile.
    counting.clear();
    for (const Plan::Candidate& candidate : candidates) {
        const Brief& rule = briefs[candidate.index];
        if (!rule.counts[told.outbound] || !counts(candidate, flow)) continue;
        counting.push_back(candidate.index);
        if (rule.groups != nullptr) rule.groups->prefetch(key(rule, told, flow).hash);
    }
    for (const std::uint32_t index : counting) count(index, told, flow, entry, missing, out);
    return missing;
}

std::uint64_t Evaluator::evaluate(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                  std::vector<Finding>& out, const FlowFacts& facts) {
    State& state = *state_;
    ++state.counters.updates;
    state.reached = std::max(state.reached, sane(now));
    if (!state.may_count(update)) return never;
    const Plan::OfClass& of_class = state.plan.of_class(update.key.class_id, info);
    if (of_class.idle) return never;
    State::Prepared& told = state.prepared.front();
    state.prepare(told, update, of_class);
    return state.take_turn(told, facts, out);
}

void Evaluator::evaluate(std::span<const FlowUpdate> updates, Timestamp now, std::vector<Finding>& out,
                         BatchHandler& handler) {
    State& state = *state_;
    state.reached = std::max(state.reached, sane(now));
    ++state.batch;
    const std::uint32_t reasons = handler.reasons_told();
    static_assert(State::together <= 32, "a bit each");
    for (std::span<const FlowUpdate> left = updates; !left.empty();) {
        const auto some = left.first(std::min(left.size(), State::together));
        left = left.subspan(some.size());
        state.counters.updates += some.size();
        // Of most updates nothing is asked: they are of the home region, or all of them is told already.
        // Which, a CPU cannot guess: they are sorted out without a branch, and in bits.
        std::array<std::size_t, State::together> asked;
        std::size_t may_count = 0;
        std::uint32_t to_tell = 0;
        for (std::size_t i = 0; i < some.size(); ++i) {
            asked[may_count] = i;
            may_count += state.may_count(some[i]) ? 1 : 0;
            to_tell |= ((reasons & BatchHandler::reason_bit(some[i].reason)) != 0 ? 1u : 0u) << i;
        }
        std::array<const Plan::OfClass*, State::together> classes;
        std::size_t count = 0;
        std::uint32_t has_turn = 0;
        for (std::size_t i = 0; i < may_count; ++i) {
            asked[count] = asked[i];
            classes[count] = &state.of_class(some[asked[i]], handler);
            const bool idle = classes[count]->idle;
            has_turn |= (idle ? 0u : 1u) << asked[i];
            count += idle ? 0 : 1;
        }
        State::Prepared* next = state.prepared.data();
        for (std::size_t i = 0; i < count; ++i) state.prepare(next[i], some[asked[i]], *classes[i]);
        for (std::size_t i = 0; i < count; ++i) state.prefetch_groups(next[i]);
        for (std::uint32_t left_to_do = has_turn | to_tell; left_to_do != 0; left_to_do &= left_to_do - 1) {
            const auto i = static_cast<std::size_t>(std::countr_zero(left_to_do));
            std::uint64_t missing = never;
            if ((has_turn >> i & 1) != 0) missing = state.take_turn(*next++, handler.facts_of(some[i]), out);
            handler.evaluated(some[i], missing);
        }
    }
}

void Evaluator::observe(const NameObservation& seen, const ClassInfo& info, Timestamp now,
                        std::vector<Finding>& out, const FlowFacts& facts) {
    State& state = *state_;
    ++state.counters.updates;
    state.reached = std::max(state.reached, sane(now));
    if (!state.counts_questions) return;
    const Plan::OfClass& of_class = state.plan.of_class(seen.flow.key.class_id, info);
    FlowFacts known = facts;
    known.app = "dns";
    Subject flow = state.subject(seen.flow, info, std::min(sane(seen.at), state.reached), known);
    flow.name = seen.name;
    const int entry = state.covering_entry(of_class, flow);
    flow.set_allowed(entry >= 0);
    std::uint64_t missing = never;
    State::Prepared& told = state.prepared.front();
    told.number = ++state.prepared_count;
    for (const Plan::Candidate& candidate :
         state.plan.rules(of_class, of_class.rules.any, flow, state.some_rules))
        if (state.briefs[candidate.index].counts_names && state.counts(candidate, flow))
            state.count(candidate.index, told, flow, entry, missing, out);
}

void Evaluator::advance(Timestamp now, std::vector<Finding>& out) {
    State& state = *state_;
    state.reached = std::max(state.reached, sane(now));
    for (std::size_t i = 0; i < state.rules.size(); ++i)
        state.rules[i]->drop_empty(state.policy->rules[i], state.reached, drop_steps);
    state.contradictions.drop_ended(state.reached, drop_steps);
    state.tell_ends(out);
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

bool Evaluator::wants_names() const noexcept {
    return state_->wants_names;
}

EvaluatorCounters Evaluator::counters() const noexcept {
    EvaluatorCounters out = state_->counters;
    out.window_evictions = state_->evicted_before;
    out.suppression_evictions = state_->suppressions_evicted_before;
    for (const auto& rule : state_->rules) {
        out.window_evictions += rule->evicted();
        out.suppression_evictions += rule->suppressions.evicted();
    }
    out.groups = state_->budget.groups;
    out.cells = state_->budget.cells;
    return out;
}

std::vector<RuleStatus> Evaluator::rule_status() const {
    std::vector<RuleStatus> out;
    for (std::size_t i = 0; i < state_->rules.size(); ++i) {
        const RuleState& rule = *state_->rules[i];
        const Rule& definition = state_->policy->rules[i];
        const bool by_asn_alone = definition.by == std::vector{Field::asn} && !state_->around.asn_of;
        out.push_back({definition.id, std::string(rule_kind_name(definition.kind)), definition.test,
                       !by_asn_alone, rule.findings, rule.suppressed, rule.evicted_before + rule.evicted(),
                       rule.groups(), definition.groups_max()});
    }
    return out;
}

}  // namespace egresswatch::rules
