// rules/windows.h - sliding sums per group, bounded in memory. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// A window of length `over` is cut into limits::window_buckets buckets of over/window_buckets each, aligned
// to the epoch. Its sum at time T is that of the bucket of T and the window_buckets before it: it covers
// `over` wholly and at most one bucket more, so that no burst of length `over` is missed for lying across a
// boundary.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "classifier/flow_update.h"
#include "rules/group_key.h"

namespace egresswatch::rules {

// Shared by all rules of an evaluator.
struct WindowBudget {
    std::size_t groups = 0;
    std::size_t cells = 0;
    std::size_t groups_max;
    std::size_t cells_max;
};

class Windows {
public:
    struct Config {
        std::chrono::seconds over;
        std::size_t groups_max;
        std::uint64_t seed;
    };
    struct Sum {
        bool late = false;  // older than the window: not counted
        std::uint64_t value = 0;
        std::uint64_t flows = 0;
        Timestamp start{};  // of the oldest bucket counted
    };

    Windows(Config config, WindowBudget& budget);
    ~Windows();
    Windows(const Windows&) = delete;
    Windows& operator=(const Windows&) = delete;

    // Adds at time `at` to the group's window that ends at `end`; `at` <= `end`, `end` never goes back.
    Sum add(const GroupKey& key, std::uint64_t amount, bool new_flow, Timestamp at, Timestamp end);
    // What it holds at `end`, without changing it.
    [[nodiscard]] std::uint64_t value(const GroupKey& key, Timestamp end) const;
    // The group starts again from nothing.
    void clear(const GroupKey& key);
    // Groups whose windows have emptied give their memory back, oldest activity first, at most `steps`.
    void drop_empty(Timestamp end, std::size_t steps);

    [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }
    [[nodiscard]] std::chrono::nanoseconds bucket() const noexcept { return bucket_; }

private:
    struct Cell {
        std::int64_t bucket;
        std::uint64_t value;
        std::uint64_t flows;
    };
    struct Group {
        std::vector<Cell> cells;  // by bucket, ascending
        std::uint64_t value = 0;  // sums over cells
        std::uint64_t flows = 0;
        std::int64_t newest = 0;  // bucket of the latest activity
        const GroupKey* key = nullptr;
        Group* older = nullptr;  // by activity, in the order of buckets
        Group* newer = nullptr;
    };

    [[nodiscard]] std::int64_t bucket_of(Timestamp at) const noexcept;
    void age(Group& group, std::int64_t oldest);
    void unlink(Group& group) noexcept;
    void link_newest(Group& group) noexcept;
    void erase(Group& group);
    Group& find_or_make(const GroupKey& key);
    void insert(Group& group, std::int64_t bucket, std::uint64_t amount, bool new_flow);
    void make_room(const Group& keep);

    std::chrono::nanoseconds bucket_;
    std::size_t groups_max_;
    WindowBudget& budget_;
    std::unordered_map<GroupKey, Group, GroupHash> groups_;
    Group* oldest_ = nullptr;
    Group* newest_ = nullptr;
    std::uint64_t evicted_ = 0;
};

// Groups that are not to be reported again until a time.
class Suppressions {
public:
    Suppressions(std::size_t entries_max, std::uint64_t seed);

    // Counts a repeat and answers true where the group is suppressed at `at`.
    bool repeat(const GroupKey& key, Timestamp at);
    [[nodiscard]] bool active(const GroupKey& key, Timestamp at) const;
    // Suppresses until `until`; answers the repeats counted since the last time.
    std::uint64_t start(const GroupKey& key, Timestamp until);
    void drop_ended(Timestamp at, std::size_t steps);

    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }

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
