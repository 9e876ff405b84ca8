// rules/contacts.h - when groups were in touch: periods, first contacts, and the first of two rules.
// Internal. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>

#include "classifier/flow_update.h"
#include "rules/group_store.h"
#include "rules/limits.h"
#include "rules/state_bytes.h"

namespace egresswatch::rules {

// The times between a group's contacts. A contact is activity after at least `gap` without any.
// The statistic: of the last intervals (period_intervals_max at the most) the median, and as jitter the
// median of their absolute deviations from it, divided by it. Both bear single outliers, such as a missed
// beacon.
class Periods {
public:
    static constexpr std::size_t intervals_max = limits::periods_max;

    struct Found {
        std::uint64_t intervals = 0;  // looked at
        double period_s = 0;
        double jitter = 0;
    };

    Periods(std::chrono::milliseconds gap, std::size_t groups_max, GroupHash hash, WindowBudget& budget);
    // Something when this activity is a contact that ends an interval.
    std::optional<Found> add(const GroupKey& key, std::uint64_t hash, Timestamp at);
    [[nodiscard]] const GroupPlaces* places() const noexcept { return &groups_; }
    [[nodiscard]] std::optional<Found> find(const GroupKey& key) const;  // what add() found last
    void clear(const GroupKey& key);
    // Those that have been silent for longer than `silent`.
    void drop_silent(Timestamp end, std::chrono::seconds silent, std::size_t steps);
    [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return groups_.evicted(); }

    void save(StateWriter& out) const;
    void restore(StateReader& in);

private:
    struct Group {
        Timestamp last{};
        std::uint32_t next = 0;   // place in the ring
        std::uint32_t count = 0;  // in the ring
        std::array<std::uint32_t, intervals_max> ms;
        [[nodiscard]] std::size_t cells() const noexcept { return 0; }
    };
    [[nodiscard]] static Found statistic(const Group& group);

    std::chrono::milliseconds gap_;
    GroupHash hash_;
    GroupStore<Group> groups_;
};

// The last time that a group was seen.
class LastSeen {
public:
    LastSeen(std::size_t groups_max, GroupHash hash, WindowBudget& budget);
    // The time before, if there was one that is not forgotten.
    std::optional<Timestamp> see(const GroupKey& key, std::uint64_t hash, Timestamp at);
    [[nodiscard]] const GroupPlaces* places() const noexcept { return &groups_; }
    [[nodiscard]] std::optional<Timestamp> find(const GroupKey& key) const;
    void erase(const GroupKey& key);
    void drop_before(Timestamp when, std::size_t steps);
    [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return groups_.evicted(); }

    void save(StateWriter& out) const;
    void restore(StateReader& in);

private:
    struct Group {
        Timestamp last{};
        [[nodiscard]] std::size_t cells() const noexcept { return 0; }
    };
    // Whole seconds keep the order of activity: a group that is busy is not moved in it at every update.
    [[nodiscard]] static std::int64_t activity_of(Timestamp at) noexcept;

    GroupHash hash_;
    GroupStore<Group> groups_;
};

}  // namespace egresswatch::rules
