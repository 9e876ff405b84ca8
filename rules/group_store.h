// rules/group_store.h - what a rule remembers of each group, bounded in memory. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// One store for every kind of rule: a hash table over slots that lie side by side, and a list of them by
// activity. At a limit the group with the oldest activity goes, and is counted. No order of the table reaches
// the outside. A slot stays where it is, and has a number.
// Cost: one probe of the table and one slot of two cache lines, when cold. A store has address space for as
// many groups as it may ever hold, from its first group on; memory it takes as it grows, never per group, and
// gives none back while it lives.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "classifier/zeroed_array.h"
#include "rules/group_key.h"

namespace egresswatch::rules {

// Shared by all rules of an evaluator.
struct WindowBudget {
    std::size_t groups = 0;
    std::size_t cells = 0;  // buckets, distinct values, intervals in use
    std::size_t groups_max;
    std::size_t cells_max;
};

// GCC takes a function that only prefetches for one that does nothing, and leaves its calls out: the empty
// statement tells it otherwise.
inline void prefetch(const void* address) noexcept {
    __builtin_prefetch(address, 1);
    asm volatile("");
}

// Where the groups of a store are, and in which order they were active: all that is the same whatever is
// remembered of them.
class GroupPlaces {
public:
    using Number = std::uint32_t;
    static constexpr Number none = 0;  // so that memory of zeros is a table without entries

    // What a slot begins with.
    struct Head {
        GroupKey key;
        std::int64_t activity = never_active;
        std::uint32_t tag = 0;
        Number number = none;  // its own
        Number older = none;
        Number newer = none;

        [[nodiscard]] bool is_new() const noexcept { return activity == never_active; }
    };

    GroupPlaces(const GroupPlaces&) = delete;
    GroupPlaces& operator=(const GroupPlaces&) = delete;

    // Of a group that is going to be looked for: first what says where it is, ...
    void prefetch(std::uint64_t hash) const noexcept { prefetch_entries(tag_of(hash)); }
    // ... and when that has come, itself, or what has to make room for it.
    void expect(std::uint64_t hash) noexcept {
        const std::uint32_t tag = tag_of(hash);
        for (std::size_t place = tag & mask_; table_[place].number != none; place = (place + 1) & mask_)
            if (table_[place].tag == tag) return prefetch_slot(table_[place].number);
        if (is_full()) expect_eviction();
    }

protected:
    struct Entry {
        std::uint32_t tag;
        Number number;
    };

    GroupPlaces(std::size_t slot_bytes, std::size_t groups_max, WindowBudget& budget) noexcept
        : slot_bytes_(slot_bytes), groups_max_(groups_max), budget_(&budget) {}
    ~GroupPlaces() = default;

    // Address space for all that a store may come to hold: the table, which grows in place, and the slots.
    // Most stores hold little: what comes first is in small pages, ...
    [[nodiscard]] static ZeroedArray<std::byte> address_space(std::size_t bytes);
    // ... until the table is as large as it gets: every search of a large store is a page of its own.
    static void gather(ZeroedArray<std::byte>& memory) noexcept;
    // Of the table when it is largest; it is at most half full.
    [[nodiscard]] static std::size_t entries_for(std::size_t groups) noexcept {
        return std::max(entries_min, std::bit_ceil(2 * groups));
    }

    // The half of the hash that also says where an entry belongs: moving entries touches no slot.
    static std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash); }
    [[nodiscard]] bool is_full() const noexcept {
        return count_ >= groups_max_ || budget_->groups >= budget_->groups_max;
    }
    // Where an entry is, or not far behind: that may be in the next line.
    void prefetch_entries(std::uint32_t tag) const noexcept {
        const Entry* home = &table_[tag & mask_];
        rules::prefetch(home);
        rules::prefetch(home + 3);
    }
    void prefetch_slot(Number number) const noexcept {
        const std::byte* slot = slots_ + number * slot_bytes_;
        for (std::size_t line = 0; line < slot_bytes_; line += 64) rules::prefetch(slot + line);
        rules::prefetch(slot + slot_bytes_ - 1);
    }
    // One group more is going to be evicted than was expected so far: where its entry is, and the one after
    // it. Not all that is expected comes to pass: then it begins anew with the oldest.
    void expect_eviction() noexcept {
        if (next_out_ == none || ++expected_ > expected_max) {
            expected_ = 1;
            next_out_ = oldest_;
            if (next_out_ == none) return;
        }
        const auto& out = *std::launder(reinterpret_cast<const Head*>(slots_ + next_out_ * slot_bytes_));
        prefetch_entries(out.tag);
        next_out_ = out.newer;
        // The order in which they were made is where most of them are: so further ahead than links say.
        const std::size_t later = out.number + slots_ahead;
        prefetch_slot(static_cast<Number>(later <= count_ ? later : later - count_));
        if (next_out_ != none) prefetch_slot(next_out_);
    }

    static constexpr std::int64_t never_active = std::numeric_limits<std::int64_t>::min();
    static constexpr std::size_t entries_min = 64;
    static constexpr std::size_t slots_ahead = 8;
    static constexpr std::uint32_t expected_max = 32;  // as a batch expects, and some
    // Stands for the table as long as there is none: every search asks it, none finds anything.
    static inline Entry nothing_{};

    Entry* table_ = &nothing_;
    std::size_t mask_ = 0;
    std::byte* slots_ = nullptr;
    std::size_t slot_bytes_;
    std::size_t groups_max_;
    WindowBudget* budget_;
    std::size_t count_ = 0;
    Number oldest_ = none;
    Number newest_ = none;
    Number next_out_ = none;      // the oldest of which eviction is not expected yet
    std::uint32_t expected_ = 0;  // evictions
};

// Payload: default-constructible; cells() is what it holds of the budget.
template <typename Payload>
class GroupStore : public GroupPlaces {
public:
    struct Slot : Head {
        Payload payload{};
    };

    GroupStore(std::size_t groups_max, WindowBudget& budget)
        : GroupPlaces(sizeof(Slot), groups_max, budget) {}
    ~GroupStore() {
        for (Number number = 1; number <= slots_used_; ++number) {
            budget_->cells -= at(number).payload.cells();
            std::destroy_at(&at(number));
        }
        budget_->groups -= count_;
    }

    [[nodiscard]] const Slot* find(const GroupKey& key, std::uint64_t hash) const noexcept {
        const Number known = table_[probe(key, tag_of(hash))].number;
        return known != none ? &at(known) : nullptr;
    }
    [[nodiscard]] Slot* find(const GroupKey& key, std::uint64_t hash) noexcept {
        return const_cast<Slot*>(std::as_const(*this).find(key, hash));
    }
    // Where there is no room for one more, the group with the oldest activity gives its slot.
    Slot& find_or_make(const GroupKey& key, std::uint64_t hash) {
        const std::uint32_t tag = tag_of(hash);
        const std::size_t place = probe(key, tag);
        const Number known = table_[place].number;
        return known != none ? at(known) : make(key, tag, place);
    }

    // Activity goes up only; what was active at that moment already stays where it is in the order.
    void touch(Slot& slot, std::int64_t activity) {
        if (activity <= slot.activity) return;
        slot.activity = activity;
        if (newest_ == slot.number) return;
        unlink(slot);
        link_newest(slot);
    }
    void erase(Slot& slot) {
        empty(slot);
        slot.newer = free_;
        free_ = slot.number;
        --count_;
        --budget_->groups;
    }
    // A rule never evicts the group that it is adding to: each has at least one, whatever the others hold.
    void make_room(const Slot& keep) {
        while (is_over() && oldest_ != keep.number) [[unlikely]] {
                erase(at(oldest_));
                ++evicted_;
            }
    }
    // Gives back what was last active before `activity`, oldest first, at most `steps`.
    void drop_before(std::int64_t activity, std::size_t steps) {
        while (oldest_ != none && steps-- > 0 && at(oldest_).activity < activity) erase(at(oldest_));
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
    [[nodiscard]] Slot& at(Number number) noexcept {
        return *std::launder(reinterpret_cast<Slot*>(slots_ + number * sizeof(Slot)));
    }
    [[nodiscard]] const Slot& at(Number number) const noexcept {
        return *std::launder(reinterpret_cast<const Slot*>(slots_ + number * sizeof(Slot)));
    }
    // The place of the group, or the one where its entry would be put.
    [[nodiscard]] std::size_t probe(const GroupKey& key, std::uint32_t tag) const noexcept {
        std::size_t place = tag & mask_;
        for (; table_[place].number != none; place = (place + 1) & mask_)
            if (table_[place].tag == tag && at(table_[place].number).key == key) break;
        return place;
    }
    [[nodiscard]] std::size_t free_place(std::uint32_t tag) const noexcept {
        std::size_t place = tag & mask_;
        while (table_[place].number != none) place = (place + 1) & mask_;
        return place;
    }
    [[nodiscard]] bool is_over() const noexcept {
        return count_ > groups_max_ || budget_->groups > budget_->groups_max ||
               budget_->cells > budget_->cells_max;
    }
    [[gnu::noinline]] Slot& make(const GroupKey& key, std::uint32_t tag, std::size_t place) {
        Slot* slot = nullptr;
        if (is_full() && oldest_ != none) {
            slot = &at(oldest_);
            if (expected_ > 0) --expected_;
            empty(*slot);
            ++evicted_;
            place = free_place(tag);  // there may be one nearer now
        } else {
            if (2 * (count_ + 1) > mask_ + 1) {
                grow();
                place = free_place(tag);
            }
            slot = &unused();
            ++count_;
            ++budget_->groups;
        }
        slot->key = key;
        slot->tag = tag;
        table_[place] = {tag, slot->number};
        link_newest(*slot);
        return *slot;
    }
    Slot& unused() {
        if (free_ != none) {
            Slot& slot = at(free_);
            free_ = slot.newer;
            return slot;
        }
        const Number number = ++slots_used_;
        Slot* made = std::construct_at(reinterpret_cast<Slot*>(slots_ + number * sizeof(Slot)));
        made->number = number;
        return *made;
    }
    // Its group goes; the slot is in no list.
    void empty(Slot& slot) {
        unlink(slot);
        take_out(slot);
        budget_->cells -= slot.payload.cells();
        slot.payload = Payload{};
        slot.activity = never_active;
    }

    // Closes the gap behind it: linear probing without tombstones (Knuth, TAOCP volume 3, algorithm 6.4 R).
    void take_out(const Slot& slot) {
        std::size_t gap = slot.tag & mask_;
        while (table_[gap].number != slot.number) gap = (gap + 1) & mask_;
        for (std::size_t next = (gap + 1) & mask_; table_[next].number != none; next = (next + 1) & mask_) {
            const std::size_t home = table_[next].tag & mask_;
            if (((next - home) & mask_) < ((next - gap) & mask_)) continue;
            table_[gap] = table_[next];
            gap = next;
        }
        table_[gap] = Entry{};
    }
    [[gnu::noinline]] void grow() {
        const std::size_t entries = slots_ == nullptr ? entries_min : 2 * (mask_ + 1);
        if (slots_ == nullptr) reserve();
        mask_ = entries - 1;
        std::fill_n(table_, entries, Entry{});
        for (Number next = oldest_; next != none; next = at(next).newer)
            table_[free_place(at(next).tag)] = {at(next).tag, next};
        if (entries == entries_for(groups_max_)) gather(memory_);
    }
    void reserve() {
        const std::size_t table_bytes = entries_for(groups_max_) * sizeof(Entry);
        memory_ = address_space(table_bytes + (std::max<std::size_t>(groups_max_, 1) + 1) * sizeof(Slot));
        table_ = reinterpret_cast<Entry*>(memory_.data());
        slots_ = memory_.data() + table_bytes;
    }
    void unlink(const Slot& slot) noexcept {
        if (next_out_ == slot.number) next_out_ = slot.newer;
        (slot.older != none ? at(slot.older).newer : oldest_) = slot.newer;
        (slot.newer != none ? at(slot.newer).older : newest_) = slot.older;
    }
    void link_newest(Slot& slot) noexcept {
        slot.older = newest_;
        slot.newer = none;
        (newest_ != none ? at(newest_).newer : oldest_) = slot.number;
        newest_ = slot.number;
    }

    ZeroedArray<std::byte> memory_;  // table_, a power of two of entries, and behind it slots_
    Number slots_used_ = 0;          // ever; numbers begin at 1
    Number free_ = none;             // linked by `newer`
    std::uint64_t evicted_ = 0;
};

}  // namespace egresswatch::rules
