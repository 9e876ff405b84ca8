// rules/windows.h - sliding sums and distinct values per group, and suppression. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// A window of length `over` is cut into limits::window_buckets buckets of over/window_buckets each, aligned
// to the epoch. Its sum at time T is that of the bucket of T and the window_buckets before it: it covers
// `over` wholly and at most one bucket more, so that no burst of length `over` is missed for lying across a
// boundary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "classifier/flow_update.h"
#include "rules/group_store.h"
#include "rules/limits.h"
#include "rules/state_bytes.h"

namespace egresswatch::rules {

// Time in buckets.
class Buckets {
public:
    explicit Buckets(std::chrono::seconds over) noexcept;
    [[nodiscard]] std::int64_t of(Timestamp at) const noexcept { return in(last_, at); }
    // Of the window that ends at `end`.
    [[nodiscard]] std::int64_t oldest(Timestamp end) const noexcept {
        return in(last_end_, end) - static_cast<std::int64_t>(limits::window_buckets);
    }
    [[nodiscard]] Timestamp start(std::int64_t bucket) const noexcept {
        return Timestamp(std::chrono::nanoseconds(bucket * length_.count()));
    }
    [[nodiscard]] std::chrono::nanoseconds length() const noexcept { return length_; }

private:
    // Times come close to each other: most lie in the bucket of the one before, which needs no division.
    struct Known {
        std::int64_t bucket = 0;
        std::int64_t start = 0;  // since the epoch
    };
    [[nodiscard]] std::int64_t in(Known& known, Timestamp at) const noexcept {
        const std::int64_t since = at.time_since_epoch().count();
        // Two times of a clock may be further apart than a signed number goes.
        const auto apart = static_cast<std::uint64_t>(since) - static_cast<std::uint64_t>(known.start);
        if (since >= known.start && apart < static_cast<std::uint64_t>(length_.count())) return known.bucket;
        return divide(known, since);
    }
    std::int64_t divide(Known& known, std::int64_t since) const noexcept;

    std::chrono::nanoseconds length_;
    mutable Known last_, last_end_;
};

class Windows {
public:
    struct Config {
        std::chrono::seconds over;
        std::size_t groups_max;
        GroupHash hash;
    };
    struct Amounts {
        std::uint64_t value = 0;
        std::uint64_t second = 0;  // what `value` is compared with, where a rule compares
        std::uint64_t flows = 0;

        Amounts& operator+=(const Amounts& more) noexcept {
            value += more.value;
            second += more.second;
            flows += more.flows;
            return *this;
        }
        Amounts& operator-=(const Amounts& less) noexcept {
            value -= less.value;
            second -= less.second;
            flows -= less.flows;
            return *this;
        }
    };
    struct Sum : Amounts {
        bool late = false;  // older than the window: not counted
        Timestamp start{};  // of the oldest bucket counted
    };

    Windows(Config config, WindowBudget& budget);

    // Adds at time `at` to the group's window that ends at `end`; `at` <= `end`, `end` never goes back.
    Sum add(const GroupKey& key, std::uint64_t hash, const Amounts& amounts, Timestamp at, Timestamp end);
    Sum add(const GroupKey& key, std::uint64_t amount, bool new_flow, Timestamp at, Timestamp end) {
        return add(key, hash_(key), {amount, 0, new_flow ? 1u : 0u}, at, end);
    }
    [[nodiscard]] const GroupPlaces* places() const noexcept { return &groups_; }
    // What it holds at `end`, without changing it.
    [[nodiscard]] Amounts amounts(const GroupKey& key, Timestamp end) const;
    [[nodiscard]] std::uint64_t value(const GroupKey& key, Timestamp end) const {
        return amounts(key, end).value;
    }
    // The group starts again from nothing.
    void clear(const GroupKey& key);
    // Groups whose windows have emptied give their memory back, oldest activity first, at most `steps`.
    void drop_empty(Timestamp end, std::size_t steps) { groups_.drop_before(buckets_.oldest(end), steps); }

    [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return groups_.evicted(); }
    [[nodiscard]] std::chrono::nanoseconds bucket() const noexcept { return buckets_.length(); }

    void save(StateWriter& out) const;
    void restore(StateReader& in);

private:
    struct Cell {
        std::int64_t bucket = 0;
        Amounts amounts;
    };
    // Most groups have one bucket, which needs no memory of its own: its amounts are the sum.
    struct Group {
        static constexpr std::int64_t no_bucket = std::numeric_limits<std::int64_t>::min();

        Amounts sum;
        std::int64_t first = no_bucket;          // the oldest bucket
        std::unique_ptr<std::vector<Cell>> all;  // by bucket, ascending; null where there is at most one

        [[nodiscard]] std::size_t cells() const noexcept {
            return all != nullptr ? all->size() : first != no_bucket ? 1 : 0;
        }
    };

    void age(Group& group, std::int64_t oldest);
    void insert(Group& group, std::int64_t bucket, const Amounts& amounts);
    // Into a group that has this bucket alone, or none.
    void insert_only(Group& group, std::int64_t bucket, const Amounts& amounts) {
        groups_.budget().cells += group.first == bucket ? 0 : 1;
        group.first = bucket;
        group.sum += amounts;
    }

    Buckets buckets_;
    GroupHash hash_;
    GroupStore<Group> groups_;
};

// In line: for every rule that counts an update.
[[gnu::always_inline]] inline Windows::Sum Windows::add(const GroupKey& key, std::uint64_t hash,
                                                        const Amounts& amounts, Timestamp at, Timestamp end) {
    const std::int64_t oldest = buckets_.oldest(end);
    const std::int64_t bucket = buckets_.of(at);
    Sum out;
    out.late = bucket < oldest;
    if (out.late) [[unlikely]]
        return out;
    auto& slot = groups_.find_or_make(key, hash);
    Group& group = slot.payload;
    // Order of activity by buckets: what was active in this bucket already stays where it is, which saves the
    // cache misses of its neighbours.
    groups_.touch(slot, bucket);
    if (group.all == nullptr && (group.first == bucket || group.first == Group::no_bucket)) {
        insert_only(group, bucket, amounts);  // it has nothing else, and that is in the window
    } else {
        if (group.first < oldest) age(group, oldest);
        insert(group, bucket, amounts);
    }
    static_cast<Amounts&>(out) = group.sum;
    out.start = buckets_.start(group.first);
    groups_.make_room(slot);
    return out;
}

// How many different values a group has seen in the window, and a weight for each. Exact up to `count_max`,
// beyond which nobody asks: a rule fires there and the group starts anew.
class DistinctWindows {
public:
    struct Config {
        std::chrono::seconds over;
        std::size_t count_max;
        bool weigh_once;  // a value's first weight stands; otherwise they add up
        std::size_t groups_max;
        GroupHash hash;
    };
    struct Count {
        bool late = false;
        std::uint64_t values = 0;  // exact where it is count_max; before that it may include what has left
        double mean_weight = 0;    // over the values
        Timestamp start{};
    };

    DistinctWindows(Config config, WindowBudget& budget);
    Count add(const GroupKey& key, std::uint64_t hash, std::uint64_t value, std::uint64_t weight,
              Timestamp at, Timestamp end);
    [[nodiscard]] const GroupPlaces* places() const noexcept { return &groups_; }
    [[nodiscard]] std::uint64_t count(const GroupKey& key, Timestamp end) const;
    void clear(const GroupKey& key);
    void drop_empty(Timestamp end, std::size_t steps) { groups_.drop_before(buckets_.oldest(end), steps); }
    [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return groups_.evicted(); }

    void save(StateWriter& out) const;
    void restore(StateReader& in);

private:
    struct Seen {
        std::uint64_t value;
        std::int64_t bucket;  // of the latest time
        std::uint64_t weight;
    };
    struct Group {
        std::vector<Seen> seen;  // by value
        [[nodiscard]] std::size_t cells() const noexcept { return seen.size(); }
    };

    Buckets buckets_;
    GroupHash hash_;
    std::size_t count_max_;
    bool weigh_once_;
    GroupStore<Group> groups_;
};

// Groups that are not to be reported again until a time.
class Suppressions {
public:
    Suppressions(std::size_t entries_max, GroupHash hash);

    // Counts a repeat and answers true where the group is suppressed at `at`.
    bool repeat(const GroupKey& key, Timestamp at);
    [[nodiscard]] bool active(const GroupKey& key, Timestamp at) const;
    // Suppresses until `until`; answers the repeats counted since the last time.
    std::uint64_t start(const GroupKey& key, Timestamp until);
    void drop_ended(Timestamp at, std::size_t steps);

    [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }

    void save(StateWriter& out) const;
    void restore(StateReader& in);

private:
    struct Entry {
        Timestamp until{};
        std::uint64_t repeats = 0;
        std::uint64_t order = 0;
    };
    std::size_t entries_max_;
    std::unordered_map<GroupKey, Entry, GroupHash> entries_;
    std::map<std::uint64_t, GroupKey> by_order_;  // of starting
    std::uint64_t next_order_ = 0;
    std::uint64_t evicted_ = 0;
};

}  // namespace egresswatch::rules
