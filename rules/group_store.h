// rules/group_store.h - what a rule remembers of each group, bounded in memory. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// One store for every kind of rule: a hash table over slots that lie in blocks, and a list of them by
// activity. At a limit the group with the oldest activity goes, and is counted. No order of the table reaches
// the outside. Slots are numbers; a payload stays where it is.
// Cost: one probe of the table and one slot of two cache lines, when cold; memory is taken a block at a time,
// never per group, and none is given back and taken anew while a store grows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "rules/group_key.h"

namespace egresswatch::rules {

// Shared by all rules of an evaluator.
struct WindowBudget {
    std::size_t groups = 0;
    std::size_t cells = 0;  // buckets, distinct values, intervals in use
    std::size_t groups_max;
    std::size_t cells_max;
};

// Payload: default-constructible; cells() is what it holds of the budget.
template <typename Payload>
class GroupStore {
public:
    using Number = std::uint32_t;
    static constexpr Number none = std::numeric_limits<Number>::max();

    struct Slot {
        GroupKey key;
        std::int64_t activity = std::numeric_limits<std::int64_t>::min();
        std::uint32_t tag = 0;
        Number older = none;
        Number newer = none;
        Payload payload{};
    };

    GroupStore(std::size_t groups_max, WindowBudget& budget) : groups_max_(groups_max), budget_(&budget) {}
    ~GroupStore() {
        for (Number next = oldest_; next != none; next = at(next).newer)
            budget_->cells -= at(next).payload.cells();
        budget_->groups -= count_;
    }
    GroupStore(const GroupStore&) = delete;
    GroupStore& operator=(const GroupStore&) = delete;

    // Of a group that is about to be looked for.
    void prefetch(std::uint64_t hash) const noexcept {
        if (!table_.empty()) __builtin_prefetch(&table_[tag_of(hash) & mask()], 1);
    }
    [[nodiscard]] Number find(const GroupKey& key, std::uint64_t hash) const noexcept {
        if (table_.empty()) return none;
        const std::uint32_t tag = tag_of(hash);
        for (std::size_t place = tag & mask();; place = (place + 1) & mask()) {
            const Entry& entry = table_[place];
            if (entry.number == none) return none;
            if (entry.tag == tag && at(entry.number).key == key) return entry.number;
        }
    }
    Number find_or_make(const GroupKey& key, std::uint64_t hash) {
        if (const Number known = find(key, hash); known != none) return known;
        if (table_.empty() || 2 * (count_ + 1) > table_.size()) grow();
        Number number = free_;
        if (number != none) {
            free_ = at(number).newer;
        } else {
            if (slots_ % block_slots == 0) blocks_.push_back(std::make_unique<Slot[]>(block_slots));
            number = slots_++;
        }
        Slot& slot = at(number);
        slot.key = key;
        slot.tag = tag_of(hash);
        slot.newer = none;
        place(number);
        link_newest(number);
        ++count_;
        ++budget_->groups;
        return number;
    }
    [[nodiscard]] Slot& at(Number number) noexcept {
        return blocks_[number / block_slots][number % block_slots];
    }
    [[nodiscard]] const Slot& at(Number number) const noexcept {
        return blocks_[number / block_slots][number % block_slots];
    }

    // Activity goes up only; what was active at that moment already stays where it is in the order.
    void touch(Number number, std::int64_t activity) {
        if (activity <= at(number).activity) return;
        at(number).activity = activity;
        if (newest_ == number) return;
        unlink(number);
        link_newest(number);
    }
    void erase(Number number) {
        unlink(number);
        take_out(number);
        Slot& slot = at(number);
        budget_->cells -= slot.payload.cells();
        slot.payload = Payload{};
        slot.activity = std::numeric_limits<std::int64_t>::min();
        slot.newer = free_;
        free_ = number;
        --count_;
        --budget_->groups;
    }
    // A rule never evicts the group that it is adding to: each has at least one, whatever the others hold.
    void make_room(Number keep) {
        while (oldest_ != keep && (count_ > groups_max_ || budget_->groups > budget_->groups_max ||
                                   budget_->cells > budget_->cells_max)) {
            erase(oldest_);
            ++evicted_;
            prefetch_oldest();
        }
    }
    // Gives back what was last active before `activity`, oldest first, at most `steps`.
    void drop_before(std::int64_t activity, std::size_t steps) {
        while (oldest_ != none && steps-- > 0 && at(oldest_).activity < activity) erase(oldest_);
    }

    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }
    [[nodiscard]] WindowBudget& budget() noexcept { return *budget_; }
    // Oldest activity first.
    template <typename Visit>
    void each(Visit visit) const {
        for (Number next = oldest_; next != none; next = at(next).newer) visit(at(next));
    }

private:
    struct Entry {
        std::uint32_t tag = 0;
        Number number = none;
    };
    // The half of the hash that also says where an entry belongs: moving entries touches no slot.
    static std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash); }
    [[nodiscard]] std::size_t mask() const noexcept { return table_.size() - 1; }

    // Where one group was evicted the next will be: what that touches, and it is the only one that knows.
    void prefetch_oldest() const noexcept {
        const Slot& next = at(oldest_);
        __builtin_prefetch(&table_[next.tag & mask()], 1);
        if (next.newer == none) return;
        const auto* after = reinterpret_cast<const std::byte*>(&at(next.newer));
        for (std::size_t line = 0; line < sizeof(Slot); line += 64) __builtin_prefetch(after + line, 1);
    }
    void place(Number number) {
        const std::uint32_t tag = at(number).tag;
        std::size_t free = tag & mask();
        while (table_[free].number != none) free = (free + 1) & mask();
        table_[free] = {tag, number};
    }
    // Closes the gap behind it: linear probing without tombstones (Knuth, TAOCP volume 3, algorithm 6.4 R).
    void take_out(Number number) {
        std::size_t gap = at(number).tag & mask();
        while (table_[gap].number != number) gap = (gap + 1) & mask();
        for (std::size_t next = (gap + 1) & mask(); table_[next].number != none; next = (next + 1) & mask()) {
            const std::size_t home = table_[next].tag & mask();
            if (((next - home) & mask()) < ((next - gap) & mask())) continue;
            table_[gap] = table_[next];
            gap = next;
        }
        table_[gap] = {};
    }
    void grow() {
        constexpr std::size_t smallest = 64;
        table_.assign(table_.empty() ? smallest : 2 * table_.size(), Entry{});
        for (Number next = oldest_; next != none; next = at(next).newer) place(next);
    }
    void unlink(Number number) noexcept {
        const Slot& slot = at(number);
        (slot.older != none ? at(slot.older).newer : oldest_) = slot.newer;
        (slot.newer != none ? at(slot.newer).older : newest_) = slot.older;
    }
    void link_newest(Number number) noexcept {
        at(number).older = newest_;
        at(number).newer = none;
        (newest_ != none ? at(newest_).newer : oldest_) = number;
        newest_ = number;
    }

    std::size_t groups_max_;
    WindowBudget* budget_;
    std::vector<Entry> table_;  // a power of two, at most half full
    static constexpr Number block_slots = 64;
    std::vector<std::unique_ptr<Slot[]>> blocks_;
    Number slots_ = 0;    // ever used
    Number free_ = none;  // linked by `newer`
    Number oldest_ = none;
    Number newest_ = none;
    std::size_t count_ = 0;
    std::uint64_t evicted_ = 0;
};

}  // namespace egresswatch::rules
