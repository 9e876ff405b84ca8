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
        bool late = false;
        std::optional<Hit> hit;
        std::uint64_t missing = never;  // bytes out to the threshold
    };

    RuleState(const Rule& rule, GroupHash hash, WindowBudget& budget);

    // Counts the update in the group's window. `reached` is the packet time at which windows end.
    Outcome count(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                  Timestamp reached);
    // Of a group that count() is about to be asked for.
    void prefetch(std::uint64_t hash) const noexcept {
        if (windows_) return windows_->prefetch(hash);
        if (distinct_) return distinct_->prefetch(hash);
        if (periods_) return periods_->prefetch(hash);
        if (seen_) seen_->prefetch(hash);
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

    Suppressions suppressions;
    std::unique_ptr<LastSeen> firsts;  // of a sequence: when its first rule crossed
    std::uint64_t findings = 0;
    std::uint64_t suppressed = 0;
    std::uint64_t evicted_before = 0;  // by windows that a change of the rule has ended

private:
    Outcome count_sum(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                      Timestamp reached);
    Outcome count_distinct(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                           Timestamp reached);
    Outcome count_ratio(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                        Timestamp reached);
    Outcome count_period(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash);
    Outcome count_contact(const Rule& rule, const Subject& flow, const GroupKey& key, std::uint64_t hash,
                          Timestamp reached);

    GroupHash hash_;
    std::unique_ptr<Windows> windows_;
    std::unique_ptr<DistinctWindows> distinct_;
    std::unique_ptr<Periods> periods_;
    std::unique_ptr<LastSeen> seen_;
    std::optional<Timestamp> since_;  // first contact: when the rule began to learn
};

// What an update adds under a measure.
[[nodiscard]] std::uint64_t amount_of(Measure measure, const FlowUpdate& update) noexcept;

}  // namespace egresswatch::rules
