// rules/allow_book.h - what became of each allow entry: when it last covered a flow, how full its ceiling is,
// and whether its end was told. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "rules/limits.h"
#include "rules/policy.h"
#include "rules/windows.h"

namespace egresswatch::rules {

struct AllowState {
    std::unique_ptr<Windows> volume;  // of what it covered; null: it has no ceiling
    bool over = false;                // and that was told
    std::uint64_t matched = 0;        // updates that it covered
    std::optional<Timestamp> last_match;
    std::optional<Timestamp> since;  // in force; packet time
    bool told_soon = false;
    bool told_end = false;
};

class AllowBook {
public:
    AllowBook(GroupHash hash, WindowBudget& budget) : hash_(hash), budget_(&budget) {}

    // Entries with the same id go on: their volume where the ceiling is the same, what was told where the end
    // is.
    void install(const Policy* before, const Policy& next);
    [[nodiscard]] AllowState& at(std::size_t index) noexcept { return states_[index]; }
    [[nodiscard]] const AllowState& at(std::size_t index) const noexcept { return states_[index]; }

    // Adds to the volume; true while it is within the ceiling.
    bool add(const AllowEntry& entry, std::size_t index, std::uint64_t bytes, Timestamp at,
             Timestamp reached);
    [[nodiscard]] std::uint64_t used(std::size_t index, Timestamp reached) const;

    // Calls tell(index, expired) for each entry whose end has come, or comes within limits::expiry_notice,
    // and was not told yet.
    template <typename Tell>
    void ends(const Policy& policy, Timestamp reached, Tell tell) {
        if (reached < next_end_) return;
        for (std::size_t i = 0; i < states_.size(); ++i) {
            const Timestamp end = policy.allows[i].expires.at;
            AllowState& state = states_[i];
            if (!state.since) state.since = reached;
            // What had ended before it was first in force was never allowed: loading says so, nothing ends
            // now.
            if (end <= reached && !state.told_end) {
                state.told_end = true;
                if (*state.since < end) tell(i, true);
            } else if (end > reached && end - reached <= limits::expiry_notice && !state.told_soon) {
                state.told_soon = true;
                tell(i, false);
            }
        }
        plan_next(policy, reached);
    }

    void save(const Policy& policy, StateWriter& out) const;
    void restore(const Policy& policy, StateReader& in);

private:
    void plan_next(const Policy& policy, Timestamp reached);

    GroupHash hash_;
    WindowBudget* budget_;
    std::vector<AllowState> states_;  // as Policy::allows
    Timestamp next_end_ = Timestamp::min();
};

}  // namespace egresswatch::rules
