// rules/group_store.h - what a rule remembers of each group, bounded in memory. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// One store for every kind of rule: a hash table over slots that lie side by side, and a list of them by
// activity. At a limit the group with the oldest activity goes, and is counted. No order of the table reaches
// the outside. A slot has a number, and stays where it is until the store grows for a new group.
// Cost: one probe of the table and one slot of two cache lines, when cold. A store takes memory as it grows,
// by doubling, never per group, and gives none back while it lives.
#pragma once

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
// remembered of them. The order lies beside the slots, not in them: what goes next, and where its entry is,
// is known without a look at it, and a group that moves up touches no neighbour.
class GroupPlaces {
public:
    using Number = std::uint32_t;
    static constexpr Number none = 0;  // so that memory of zeros is a table without entries

    GroupPlaces(const GroupPlaces&) = delete;
    GroupPlaces& operator=(const GroupPlaces&) = delete;

    // Of a group that is going to be looked for: first what says where it is, and when that has come, itself.
    void prefetch(std::uint64_t hash) const noexcept { prefetch_entries(tag_of(hash)); }
    // Most lie where they belong, or next to it. For others, and for those that are not there, slot `none` is
    // fetched, which costs less than a guess.
    void prefetch_group(std::uint64_t hash) const noexcept {
        const std::uint32_t tag = tag_of(hash);
        const Entry& home = table_[tag & mask_];
        const Entry& next = table_[(tag + 1) & mask_];
        const auto number_if = [](const Entry& entry, bool is_it) {
            return entry.number & (Number{0} - is_it);
        };
        prefetch_slot(number_if(home, home.tag == tag) | number_if(next, next.tag == tag));
    }

    [[nodiscard]] std::size_t size() const noexcept { return count_; }

protected:
    struct Entry {
        std::uint32_t tag;
        Number number;
    };
    // Of a slot. That of number `none` closes the ring: newer than it is the oldest.
    struct Link {
        Number older;
        Number newer;
        std::uint32_t tag;
    };

    GroupPlaces(std::size_t slot_bytes, std::size_t groups_max, WindowBudget& budget) noexcept
        : slot_bytes_(slot_bytes), groups_max_(groups_max), budget_(&budget) {}
    ~GroupPlaces() = default;

    // The half of the hash that also says where an entry belongs: moving entries touches no slot.
    static std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash); }
    [[nodiscard]] bool is_full() const noexcept {
        return count_ >= groups_max_ || budget_->groups >= budget_->groups_max;
    }
    [[nodiscard]] Number oldest() const noexcept { return links_[none].newer; }

    [[nodiscard]] std::size_t free_place(std::uint32_t tag) const noexcept {
        std::size_t place = tag & mask_;
        while (table_[place].number != none) place = (place + 1) & mask_;
        return place;
    }
    // Closes the gap behind it: linear probing without tombstones (Knuth, TAOCP volume 3, algorithm 6.4 R).
    void take_out(Number number) noexcept {
        std::size_t gap = links_[number].tag & mask_;
        while (table_[gap].number != number) gap = (gap + 1) & mask_;
        for (std::size_t next = (gap + 1) & mask_; table_[next].number != none; next = (next + 1) & mask_) {
            const std::size_t home = table_[next].tag & mask_;
            if (((next - home) & mask_) < ((next - gap) & mask_)) continue;
            table_[gap] = table_[next];
            gap = next;
        }
        table_[gap] = Entry{};
    }
    void unlink(Number number) noexcept {
        const Link& link = links_[number];
        if (next_out_ == number) next_out_ = none;
        links_[link.older].newer = link.newer;
        links_[link.newer].older = link.older;
    }
    void link_newest(Number number) noexcept {
        const Number newest = links_[none].older;
        links_[number].older = newest;
        links_[number].newer = none;
        links_[newest].newer = number;
        links_[none].older = number;
    }
    // Where one group was evicted others will be: what that touches is fetched some of them ahead.
    void prefetch_next_out() noexcept {
        if (next_out_ == none) [[unlikely]] {
            next_out_ = oldest();
            for (unsigned i = 1; i < evictions_ahead && next_out_ != none; ++i)
                next_out_ = links_[next_out_].newer;
        }
        const Link& link = links_[next_out_];
        prefetch_entries(link.tag);
        prefetch_slot(next_out_);
        next_out_ = link.newer;
        rules::prefetch(&links_[next_out_]);
    }
    // Room in the table for one group more.
    void have_place() {
        if (2 * (count_ + 1) > mask_ + 1) [[unlikely]]
            grow();
    }

    Entry* table_ = &no_entry_;  // a power of two, at most half full
    std::size_t mask_ = 0;
    Link* links_ = &no_link_;
    std::byte* slots_ = nullptr;
    std::size_t slot_bytes_;
    std::size_t groups_max_;
    WindowBudget* budget_;
    std::size_t count_ = 0;

private:
    // Stand for table and ring as long as there is no memory: every search asks them, none finds anything.
    static inline Entry no_entry_{};
    static inline Link no_link_{};

    void grow();
    // Where an entry is, or not far behind: that may be in the next line.
    void prefetch_entries(std::uint32_t tag) const noexcept {
        const Entry* home = &table_[tag & mask_];
        rules::prefetch(home);
        rules::prefetch(home + 3);
    }
    // By a number, for there may be no slots yet.
    void prefetch_slot(Number number) const noexcept {
        const auto slot = reinterpret_cast<std::uintptr_t>(slots_) + number * slot_bytes_;
        const auto fetch = [](std::uintptr_t at) { rules::prefetch(reinterpret_cast<const void*>(at)); };
        for (std::size_t line = 0; line < slot_bytes_; line += 64) fetch(slot + line);
        fetch(slot + slot_bytes_ - 1);
    }

    static constexpr unsigned evictions_ahead = 8;  // of what they touch four lines each wait in the cache

    ZeroedArray<Entry> table_memory_;
    ZeroedArray<Link> link_memory_;
    ZeroedArray<std::byte> slot_memory_;  // objects move with their pages: they hold no address of their own
    Number next_out_ = none;              // the oldest that is not fetched yet; none: nothing is
};

// Payload: default-constructible; cells() is what it holds of the budget.
template <typename Payload>
class GroupStore : public GroupPlaces {
public:
    struct Slot {
        GroupKey key;
        std::int64_t activity = never_active;
        Number number = none;  // its own
        Payload payload{};

        [[nodiscard]] bool is_new() const noexcept { return activity == never_active; }
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
        const Number known = table_[probe(key, tag)].number;
        return known != none ? at(known) : make(key, tag);
    }

    // Activity goes up only; what was active at that moment already stays where it is in the order.
    void touch(Slot& slot, std::int64_t activity) {
        if (activity <= slot.activity) return;
        slot.activity = activity;
        if (links_[none].older == slot.number) return;
        unlink(slot.number);
        link_newest(slot.number);
    }
    void erase(Slot& slot) {
        empty(slot);
        links_[slot.number].newer = free_;
        free_ = slot.number;
        --count_;
        --budget_->groups;
    }
    // A rule never evicts the group that it is adding to: each has at least one, whatever the others hold.
    void make_room(const Slot& keep) {
        while (is_over() && oldest() != keep.number) [[unlikely]] {
                erase(at(oldest()));
                ++evicted_;
            }
    }
    // Gives back what was last active before `activity`, oldest first, at most `steps`.
    void drop_before(std::int64_t activity, std::size_t steps) {
        while (oldest() != none && steps-- > 0 && at(oldest()).activity < activity) erase(at(oldest()));
    }

    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }
    [[nodiscard]] WindowBudget& budget() noexcept { return *budget_; }
    // Oldest activity first.
    template <typename Visit>
    void each(Visit visit) const {
        for (Number next = oldest(); next != none; next = links_[next].newer) visit(at(next));
    }

private:
    static constexpr std::int64_t never_active = std::numeric_limits<std::int64_t>::min();

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
    [[nodiscard]] bool is_over() const noexcept {
        return count_ > groups_max_ || budget_->groups > budget_->groups_max ||
               budget_->cells > budget_->cells_max;
    }
    [[gnu::noinline]] Slot& make(const GroupKey& key, std::uint32_t tag) {
        Slot* slot = nullptr;
        if (is_full() && oldest() != none) {
            slot = &at(oldest());
            empty(*slot);
            ++evicted_;
            prefetch_next_out();
        } else {
            have_place();
            slot = &unused();
            ++count_;
            ++budget_->groups;
        }
        slot->key = key;
        links_[slot->number].tag = tag;
        table_[free_place(tag)] = {tag, slot->number};
        link_newest(slot->number);
        return *slot;
    }
    Slot& unused() {
        if (free_ != none) {
            Slot& slot = at(free_);
            free_ = links_[free_].newer;
            return slot;
        }
        const Number number = ++slots_used_;
        Slot* made = std::construct_at(reinterpret_cast<Slot*>(slots_ + number * sizeof(Slot)));
        made->number = number;
        return *made;
    }
    // Its group goes; the slot is in no list.
    void empty(Slot& slot) {
        unlink(slot.number);
        take_out(slot.number);
        budget_->cells -= slot.payload.cells();
        slot.payload = Payload{};
        slot.activity = never_active;
    }

    Number slots_used_ = 0;  // ever; numbers begin at 1
    Number free_ = none;     // linked by `newer`
    std::uint64_t evicted_ = 0;
};

}  // namespace egresswatch::rules
