// rules/evaluator_state.h - what an evaluator holds. Internal to rules/: evaluator.h is the border.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "rules/allow_book.h"
#include "rules/evaluator.h"
#include "rules/limits.h"
#include "rules/plan.h"
#include "rules/rule_state.h"

namespace egresswatch::rules {

// Packet times are what a capture file says: far from the ends of the clock, so that a window can be added.
[[nodiscard]] inline Timestamp sane(Timestamp at) {
    constexpr Timestamp last = Timestamp::max() - 4 * std::chrono::nanoseconds(limits::window_over_max);
    constexpr Timestamp first = Timestamp::min() + 4 * std::chrono::nanoseconds(limits::window_over_max);
    return std::clamp(at, first, last);
}

struct Evaluator::State {
    // Of one update: rules that group alike share it.
    struct KeyAndHash {
        GroupKey key;
        std::uint64_t hash = 0;
        std::uint64_t update = 0;  // EvaluatorCounters::updates when it was made
    };

    State(std::shared_ptr<const Policy> in_force, ClassOf look_up, Host host);
    void use_seed(std::uint64_t seed);  // of a saved state; forgets everything

    // evaluator.cpp
    void install(std::shared_ptr<const Policy> next);
    Subject subject(const FlowUpdate& flow, const ClassInfo& info, Timestamp at,
                    const FlowFacts& facts) const {
        const PrefixIndex& index = policy->prefix_index();
        return {flow, info, facts, at, index, index.empty() ? 0 : index.find(flow.remote()), around};
    }
    const KeyAndHash& key(std::uint32_t rule, const Subject& flow);
    bool counts(const Plan::Candidate& candidate, const Subject& flow) const;
    FlowUpdate since_saved(const FlowUpdate& update) const;
    void count(std::uint32_t index, const Subject& flow, int entry, std::uint64_t& missing,
               std::vector<Finding>& out);
    void crossed(std::uint32_t index, const GroupKey& group, Hit hit, const Subject& flow, int entry,
                 std::vector<Finding>& out);
    void report(std::uint32_t index, Hit hit, const Subject& flow, int entry, std::vector<Finding>& out);
    void describe(Finding& finding, const Subject& flow, int entry) const;

    // evaluator_allow.cpp
    bool covers_tunnel(const Condition& match, const Subject& flow) const;
    bool selects(const Plan::Candidate& candidate, const Subject& flow) const;
    // The entry that covers the flow, or -1; cover() also counts it, and reports a ceiling that is reached.
    int covering_entry(const Plan::OfClass& of_class, const Subject& flow);
    int cover(const Plan::OfClass& of_class, const Subject& flow, std::vector<Finding>& out);
    void tell_contradiction(const Plan::Candidate& candidate, const Subject& flow, std::vector<Finding>& out);
    bool within_ceiling(std::size_t index, const Subject& flow, std::vector<Finding>& out);
    [[nodiscard]] std::uint64_t until_ceiling(int entry) const;
    void tell_ends(std::vector<Finding>& out);
    Decision decide(int index, const Subject& flow) const;
    std::string near_miss(std::size_t index, const Subject& flow) const;
    RuleExplanation explain_rule(std::size_t index, const Subject& flow) const;
    void explain_sequence(std::size_t index, const Subject& flow, RuleExplanation& out) const;

    std::shared_ptr<const Policy> policy;
    ClassOf class_of;
    Surroundings around;
    GroupHash hash;
    WindowBudget budget{0, 0, limits::window_groups_total_max, limits::window_cells_total_max};
    std::vector<std::unique_ptr<RuleState>> rules;  // as policy->rules
    std::optional<AllowBook> allows;
    Suppressions contradictions{limits::contradictions_max, hash};
    bool wants_names = false;                              // some entry or rule asks for names
    Plan plan;                                             // for this policy
    std::vector<Plan::Candidate> some_rules, some_allows;  // of an update; kept for their memory
    std::vector<std::uint32_t> counting;                   // rules that count it; likewise
    std::vector<std::uint32_t> key_of_rule;                // index into `keys`
    std::vector<KeyAndHash> keys;
    std::size_t key_count = 0;
    std::vector<std::vector<std::uint32_t>> sequences;  // that a rule is a part of
    std::vector<bool> groups_always;                    // that know a field of their group of every flow
    bool counts_inbound = false;                        // some rule counts what comes in
    Timestamp reached = Timestamp::min() + 4 * std::chrono::nanoseconds(limits::window_over_max);
    std::optional<Timestamp> restored_at;  // packet time of the state that was taken over
    EvaluatorCounters counters;
    std::uint64_t evicted_before = 0;  // by rules that are gone
    std::uint64_t suppressions_evicted_before = 0;
};

}  // namespace egresswatch::rules
