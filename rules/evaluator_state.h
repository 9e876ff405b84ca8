// rules/evaluator_state.h - what an evaluator holds. Internal to rules/: evaluator.h is the border.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
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
    // Rules that group alike share it.
    struct KeyAndHash {
        GroupKey key;
        std::uint64_t hash = 0;
        std::uint64_t made_for = 0;  // Prepared::number
    };
    // Of a rule: what every update asks, side by side.
    struct Brief {
        RuleState* state;
        const Rule* rule;
        const GroupPlaces* groups;  // that it counts in; null: none
        std::uint32_t key;          // index into Prepared::keys
        bool key_ahead;             // headers and class are all of its key
        bool plain;                 // every flow has a group, and none is excused
        bool counts_names;
        std::array<bool, 2> counts;  // updates with nothing out, and with something
    };
    // An update before its turn: what nothing before it can change.
    struct Prepared {
        const FlowUpdate* update = nullptr;
        const Plan::OfClass* of_class = nullptr;
        std::uint64_t number = 0;  // of all that were prepared
        bool outbound = false;
        FlowBits bits = 0;                  // as long as no entry allows it
        std::vector<Plan::Candidate> left;  // of the class, that may count it
        bool keys_ahead = true;             // of all of these
        std::vector<KeyAndHash> keys;
    };
    // What a class can match, as it was found for one of a batch.
    struct OfBatch {
        std::uint64_t batch = 0;
        const Plan::OfClass* of_class = nullptr;
    };
    // So many updates are prepared before the first of them has its turn: what they touch is on its way from
    // memory meanwhile.
    static constexpr std::size_t together = 16;

    State(std::shared_ptr<const Policy> in_force, ClassOf look_up, Host host);
    void use_seed(std::uint64_t seed);  // of a saved state; forgets everything

    // evaluator.cpp
    void install(std::shared_ptr<const Policy> next);
    void make_briefs();
    Subject subject(const FlowUpdate& flow, const ClassInfo& info, Timestamp at,
                    const FlowFacts& facts) const {
        return subject(flow, info, at, facts, flow_bits(flow));
    }
    Subject subject(const FlowUpdate& flow, const ClassInfo& info, Timestamp at, const FlowFacts& facts,
                    FlowBits bits) const {
        const PrefixIndex& index = policy->prefix_index();
        return {flow, info, facts, at, index, index.empty() ? 0 : index.find(flow.remote()), around, bits};
    }
    // What the update's class can match; asks for its meaning once in a batch.
    const Plan::OfClass& of_class(const FlowUpdate& update, BatchHandler& handler) {
        const std::uint16_t id = update.key.class_id;
        if (id >= of_batch.size()) [[unlikely]]
            of_batch.resize(std::size_t{id} + 1);
        OfBatch& known = of_batch[id];
        if (known.batch != batch) known = {batch, &plan.of_class(id, handler.info_of(update))};
        return *known.of_class;
    }
    void prepare(Prepared& out, const FlowUpdate& update, const Plan::OfClass& of_class);
    [[nodiscard]] static bool is_outbound(const FlowUpdate& update) noexcept {
        return (update.delta.bytes_out | update.delta.packets_out) != 0;
    }
    // Whether there can be anything in it for a rule or an entry.
    [[nodiscard]] bool may_count(const FlowUpdate& update) const noexcept {
        return is_outbound(update) | counts_inbound;
    }
    void prefetch_groups(const Prepared& update) const {
        for (const Plan::Candidate& candidate : update.left) {
            const Brief& rule = briefs[candidate.index];
            if (rule.key_ahead && rule.groups != nullptr)
                rule.groups->prefetch_group(update.keys[rule.key].hash);
        }
    }
    std::uint64_t take_turn(Prepared& told, const FlowFacts& facts, std::vector<Finding>& out);
    std::uint64_t count_all(Prepared& told, const FlowUpdate& update, const FlowFacts& facts,
                            std::vector<Finding>& out);
    const KeyAndHash& key(const Brief& rule, Prepared& told, const Subject& flow) const {
        KeyAndHash& out = told.keys[rule.key];
        if (out.made_for != told.number) {
            out.made_for = told.number;
            out.key = rule.state->group_by.key(flow, hash);
            out.hash = hash(out.key);
        }
        return out;
    }
    bool counts(const Plan::Candidate& candidate, const Subject& flow) const {
        if ((flow.bits & ~candidate.residue.bits) != 0) return false;
        return (candidate.residue.decided && briefs[candidate.index].plain) || counts_rest(candidate, flow);
    }
    bool counts_rest(const Plan::Candidate& candidate, const Subject& flow) const;
    FlowUpdate since_saved(const FlowUpdate& update) const;
    void count(std::uint32_t index, Prepared& told, const Subject& flow, int entry, std::uint64_t& missing,
               std::vector<Finding>& out);
    void crossed(std::uint32_t index, const GroupKey& group, const Subject& flow, int entry,
                 std::vector<Finding>& out);
    void report(std::uint32_t index, Hit what, const Subject& flow, int entry, std::vector<Finding>& out);
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
    bool counts_questions = false;                         // some rule counts names
    Plan plan;                                             // for this policy
    std::vector<Plan::Candidate> some_rules, some_allows;  // of an update; kept for their memory
    std::vector<std::uint32_t> counting;                   // rules that count it; likewise
    std::vector<Brief> briefs;                             // as policy->rules
    std::array<Prepared, together> prepared;               // by turns
    std::uint64_t prepared_count = 0;
    std::vector<OfBatch> of_batch;  // by class id
    std::uint64_t batch = 0;
    Hit hit;                                            // of the group that count() found full
    std::vector<std::vector<std::uint32_t>> sequences;  // that a rule is a part of
    bool counts_inbound = false;                        // some rule counts what comes in
    Timestamp reached = Timestamp::min() + 4 * std::chrono::nanoseconds(limits::window_over_max);
    std::optional<Timestamp> restored_at;  // packet time of the state that was taken over
    EvaluatorCounters counters;
    std::uint64_t evicted_before = 0;  // by rules that are gone
    std::uint64_t suppressions_evicted_before = 0;
};

}  // namespace egresswatch::rules
