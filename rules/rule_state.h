// rules/rule_state.h - what one rule counts: the window of its kind, and whom it has reported. Internal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "rules/contacts.h"
#include "rules/policy.h"
#include "rules/windows.h"

namespace egresswatch::rules {

// A group has reached what the rule reports.
struct Hit {
    std::uint64_t value = 0;
    std::uint64_t threshold = 0;
    Timestamp start{};
    std::uint64_t flows = 0;
    std::vector<FindingDetail> details;
};

class RuleState {
public:
    static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
    struct Outcome {
        std::uint64_t missing = never;  // bytes out to the threshold
        bool late = false;
        bool crossed = false;
    };

    RuleState(const Rule& rule, GroupHash hash, WindowBudget& budget);

    // Counts the update in the group's window. `reached` is the packet time at which windows end; `hit` is
    // written where the rule's threshold is crossed.
    [[gnu::always_inline]] Outcome count(const Rule& rule, const Subject& flow, const GroupKey& key,
                                         std::uint64_t hash, Timestamp reached, Hit& hit) {
        return rule.kind == RuleKind::sum ? count_sum(rule, flow, key, hash, reached, hit)
                                          : count_other(rule, flow, key, hash, reached, hit);
    }
    // Where count() looks for its groups; null: it has none.
    [[nodiscard]] const GroupPlaces* places() const noexcept {
        return windows_    ? windows_->places()
               : distinct_ ? distinct_->places()
               : periods_  ? periods_->places()
               : seen_     ? seen_->places()
                           : nullptr;
    }
    // What was reported, or counted as a repeat, is not counted again: the next crossing is new volume.
    void clear(const GroupKey& key);
    // How full the group's window is, in the unit of the threshold.
    [[nodiscard]] std::uint64_t value(const Rule& rule, const GroupKey& key, Timestamp reached) const;
    // What else has to be so for the group to be reported, and how far it is; empty: nothing else.
    [[nodiscard]] std::string second_condition(const Rule& rule, const GroupKey& key,
                                               Timestamp reached) const;
    void drop_empty(const Rule& rule, Timestamp reached, std::size_t steps);
    [[nodiscard]] std::size_t groups() const noexcept;
    [[nodiscard]] std::uint64_t evicted() const noexcept;  // groups

    void save(StateWriter& out) const;
    void restore(StateReader& in);

    KeyPlan group_by, quiet_by;  // of what it counts, and of what it keeps quiet about
    Suppressions suppressions;
    std::unique_ptr<LastSeen> firsts;  // of a sequence: when its first rule crossed
    std::uint64_t findings = 0;
    std::uint64_t suppressed = 0;
    std::uint64_t evicted_before = 0;  // by windows that a change of the rule has ended

private:
    Outcome count_sum(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                      Timestamp reached, Hit& hit);
    Outcome count_other(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                        Timestamp reached, Hit& hit);
    Outcome count_distinct(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                           Timestamp reached, Hit& hit);
    Outcome count_ratio(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                        Timestamp reached, Hit& hit);
    Outcome count_period(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                         Hit& hit);
    Outcome count_contact(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                          Timestamp reached, Hit& hit);

    KeyPlan value_;  // distinct: what it counts the values of
    GroupHash hash_;
    std::unique_ptr<Windows> windows_;
    std::unique_ptr<DistinctWindows> distinct_;
    std::unique_ptr<Periods> periods_;
    std::unique_ptr<LastSeen> seen_;
    std::optional<Timestamp> since_;  // first contact: when the rule began to learn
};

[[nodiscard]] inline bool is_first(const FlowUpdate& update) noexcept {
    return update.total.packets_out == update.delta.packets_out;
}

// What an update adds under a measure.
[[nodiscard]] inline std::uint64_t amount_of(Measure measure, const FlowUpdate& update) noexcept {
    switch (measure) {
        case Measure::bytes_out:
            return update.delta.bytes_out;
        case Measure::packets_out:
            return update.delta.packets_out;
        case Measure::bytes_in:
            return update.delta.bytes_in;
        case Measure::packets_in:
            return update.delta.packets_in;
        case Measure::flows:
            return is_first(update) ? 1 : 0;
    }
    return 0;
}

// In line: what most rules are.
[[gnu::always_inline]] inline RuleState::Outcome RuleState::count_sum(const Rule& rule, const Subject& flow,
                                                                      const GroupKey& key, std::uint64_t hash,
                                                                      Timestamp reached, Hit& hit) {
    const std::uint64_t amount = amount_of(rule.measure, flow.flow);
    Outcome out;
    if (amount == 0) return out;
    const Windows::Sum sum =
        windows_->add(key, hash, {amount, 0, is_first(flow.flow) ? 1u : 0u}, flow.at, reached);
    out.late = sum.late;
    if (sum.late) [[unlikely]]
        return out;
    out.crossed = sum.value >= rule.at_least;
    if (out.crossed) [[unlikely]]
        hit = {sum.value, rule.at_least, sum.start, sum.flows, {}};
    else if (rule.measure == Measure::bytes_out)
        out.missing = rule.at_least - sum.value;
    return out;
}

}  // namespace egresswatch::rules
