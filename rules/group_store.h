// rules/group_store.h - what a rule remembers of each group, bounded in memory. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// One store for every kind of rule: a hash table over slots that lie side by side, and a list of them by
// activity. At a limit the group with the oldest activity goes, and is counted. No order of the table reaches
// the outside. A slot has a number, and stays where it is until the store grows for a new group.
// The table is one of buckets of seven, each a cache line whose tags are compared at once. An entry that
// finds its bucket full goes to the next, and every bucket that it passed counts it: a search goes on where
// something passed, and what is taken out moves nothing.
// Cost: one line of the table and one slot of two cache lines, when cold. A store takes memory as it grows,
// by doubling, never per group, and gives none back while it lives.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "classifier/lanes.h"
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

// Of the table: what is looked for is in a few buckets, mostly in one.
struct alignas(64) GroupBucket {
    static constexpr unsigned entries = 7;

    std::array<std::uint32_t, entries + 1> tag{};     // 0: no entry; behind the last: see passed()
    std::array<std::uint32_t, entries + 1> number{};  // of a slot; behind the last: none, always

    // Entries that lie behind this bucket, and would have been put into it or one before it.
    [[nodiscard]] std::uint32_t& passed() noexcept { return tag[entries]; }
    [[nodiscard]] std::uint32_t passed() const noexcept { return tag[entries]; }
    // A bit for each entry with this tag.
    [[nodiscard]] unsigned equal_to(std::uint32_t wanted) const noexcept {
        return lanes_equal_to(tag.data(), wanted) & ((1u << entries) - 1);
    }
};
static_assert(sizeof(GroupBucket) == 64, "one cache line");

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
    void prefetch(std::uint64_t hash) const noexcept { rules::prefetch(&table_[tag_of(hash) & mask_]); }
    // Most lie where they belong. For others, and for those that are not there, slot `none` is fetched, which
    // costs less than a guess.
    void prefetch_group(std::uint64_t hash) const noexcept {
        const std::uint32_t tag = tag_of(hash);
        const Bucket& bucket = table_[tag & mask_];
        prefetch_slot(bucket.number[static_cast<std::size_t>(
            std::countr_zero(bucket.equal_to(tag) | 1u << Bucket::entries))]);
    }

    [[nodiscard]] std::size_t size() const noexcept { return count_; }

protected:
    using Bucket = GroupBucket;
    static constexpr std::size_t bucket_groups = 4;  // so many for each bucket, at the most
    // Of a slot. That of number `none` closes the ring: newer than it is the oldest.
    struct Link {
        Number older;
        Number newer;
        std::uint32_t tag;
    };

    GroupPlaces(std::size_t slot_bytes, std::size_t groups_max, WindowBudget& budget) noexcept
        : slot_bytes_(slot_bytes), groups_max_(groups_max), budget_(&budget) {}
    ~GroupPlaces() = default;

    // The half of the hash that also says which bucket an entry belongs to: growing touches no slot.
    static std::uint32_t tag_of(std::uint64_t hash) noexcept {
        return static_cast<std::uint32_t>(hash) | std::uint32_t{1} << 31;
    }
    [[nodiscard]] bool is_full() const noexcept {
        return count_ >= groups_max_ || budget_->groups >= budget_->groups_max;
    }
    [[nodiscard]] Number oldest() const noexcept { return links_[none].newer; }

    void put_in(std::uint32_t tag, Number number) noexcept {
        for (std::size_t place = tag & mask_;; place = (place + 1) & mask_) {
            Bucket& bucket = table_[place];
            if (const unsigned room = bucket.equal_to(0); room != 0) [[likely]] {
                const auto at = static_cast<std::size_t>(std::countr_zero(room));
                bucket.tag[at] = tag;
                bucket.number[at] = number;
                return;
            }
            ++bucket.passed();
        }
    }
    void take_out(Number number) noexcept {
        const std::uint32_t tag = links_[number].tag;
        for (std::size_t place = tag & mask_;; place = (place + 1) & mask_) {
            Bucket& bucket = table_[place];
            if (const unsigned equal = lanes_equal_to(bucket.number.data(), number); equal != 0) [[likely]] {
                const auto at = static_cast<std::size_t>(std::countr_zero(equal));
                bucket.tag[at] = 0;
                bucket.number[at] = none;
                return;
            }
            --bucket.passed();
        }
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
        rules::prefetch(&table_[link.tag & mask_]);
        prefetch_slot(next_out_);
        next_out_ = link.newer;
        rules::prefetch(&links_[next_out_]);
    }
    // Room in the table for one group more.
    void have_place() {
        if (count_ == room_) [[unlikely]]
            grow();
    }

    Bucket* table_ = &no_bucket_;  // a power of two of them
    std::size_t mask_ = 0;
    std::size_t room_ = 0;  // for so many groups
    Link* links_ = &no_link_;
    std::byte* slots_ = nullptr;
    std::size_t slot_bytes_;
    std::size_t groups_max_;
    WindowBudget* budget_;
    std::size_t count_ = 0;

private:
    // Stand for table and ring as long as there is no memory: every search asks them, none finds anything.
    static inline Bucket no_bucket_{};
    static inline Link no_link_{};

    void grow();
    // By a number, for there may be no slots yet.
    void prefetch_slot(Number number) const noexcept {
        const auto slot = reinterpret_cast<std::uintptr_t>(slots_) + number * slot_bytes_;
        const auto fetch = [](std::uintptr_t at) { rules::prefetch(reinterpret_cast<const void*>(at)); };
        for (std::size_t line = 0; line + 64 < slot_bytes_; line += 64) fetch(slot + line);
        fetch(slot + slot_bytes_ - 1);
    }

    static constexpr unsigned evictions_ahead = 8;  // of what they touch four lines each wait in the cache

    ZeroedArray<Bucket> table_memory_;
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
        const Number known = number_of(key, tag_of(hash));
        return known != none ? &at(known) : nullptr;
    }
    [[nodiscard]] Slot* find(const GroupKey& key, std::uint64_t hash) noexcept {
        return const_cast<Slot*>(std::as_const(*this).find(key, hash));
    }
    // Where there is no room for one more, the group with the oldest activity gives its slot.
    Slot& find_or_make(const GroupKey& key, std::uint64_t hash) {
        const std::uint32_t tag = tag_of(hash);
        const Number known = number_of(key, tag);
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
    [[nodiscard]] Number number_of(const GroupKey& key, std::uint32_t tag) const noexcept {
        std::size_t place = tag & mask_;
        for (std::size_t i = 0; i <= mask_; ++i) {
            const Bucket& bucket = table_[place];
            for (unsigned equal = bucket.equal_to(tag); equal != 0; equal &= equal - 1) {
                const Number number = bucket.number[static_cast<std::size_t>(std::countr_zero(equal))];
                if (at(number).key == key) [[likely]]
                    return number;
            }
            if (bucket.passed() == 0) [[likely]]
                return none;
            place = (place + 1) & mask_;
        }
        return none;
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
        put_in(tag, slot->number);
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
