// classifier/flow_table_memory.cpp - how much a FlowTable may hold, and how it grows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "classifier/flow_table_state.h"

namespace egresswatch {

using namespace datapath;

namespace {

constexpr std::size_t buckets_ahead = 8;          // that are fetched from memory meanwhile
constexpr std::uint64_t conversation_bytes = 24;  // FirstSenders: at most, while it grows
// Of a full table's slots at most seven in eight are used, so that nearly every flow finds room in its two
// buckets.
constexpr std::uint64_t slots_used_numerator = 7, slots_used_denominator = 8;

std::uint32_t power_of_two(std::uint32_t value, std::uint32_t low, std::uint32_t high) noexcept {
    return std::bit_ceil(std::clamp(value, low, high));
}

// The most slots that leave room for half as many flows: more flows than that go into the rest of the memory.
std::uint32_t slots_within(std::uint64_t bytes) noexcept {
    std::uint64_t slots = FlowTableConfig::slots_floor;
    const auto needed = [](std::uint64_t n) {
        return n * FlowTableConfig::slot_bytes + n / 2 * FlowTableConfig::flow_bytes;
    };
    while (slots * 2 <= FlowTableConfig::slots_ceiling && needed(slots * 2) <= bytes) slots *= 2;
    return static_cast<std::uint32_t>(slots);
}

std::size_t conversations_within(const FlowTableConfig& config) noexcept {
    if (config.memory_max_bytes == 0) return FirstSenders::conversations_max;
    return std::max(config.memory_max_bytes, FlowTableConfig::memory_floor) / 8 / conversation_bytes;
}

}  // namespace

FlowTable::State::State(FlowTableConfig given)
    : config(std::move(given)), networks(config.local_networks), first_senders(conversations_within(config)) {
    set_limits();
    slot_mask = config.slots_start - 1;
    buckets = ZeroedArray<TableBucket>(config.slots_start / FLOW_PROBES);
    may_grow = config.slots_start < config.slots_max;
    sample_payload = config.sample_payload;
    extend_entries();
    hash_seed = config.hash_seed;
    track_all = config.track_all;
    direction_by_region = config.direction_by_region;
    walk_scratch = &walk;
    only_section = &section;
    const auto timeout = std::max({config.idle_timeout, config.active_timeout, config.closed_timeout});
    if (timeout.count() > 0) wheel.assign(static_cast<std::size_t>(timeout.count()) + 2, no_entry);
}

void FlowTable::State::set_limits() {
    config.slots_max =
        power_of_two(config.slots_max, FlowTableConfig::slots_floor, FlowTableConfig::slots_ceiling);
    flows_max = config.slots_max;
    if (config.memory_max_bytes != 0) {
        const std::uint64_t bytes = std::max(config.memory_max_bytes, FlowTableConfig::memory_floor) / 8 * 7;
        config.slots_max = std::min(config.slots_max, slots_within(bytes));
        const std::uint64_t slots = config.slots_max;
        flows_max = static_cast<std::uint32_t>(
            std::min(slots * slots_used_numerator / slots_used_denominator,
                     (bytes - slots * FlowTableConfig::slot_bytes) / FlowTableConfig::flow_bytes));
    }
    config.slots_start = power_of_two(config.slots_start, FlowTableConfig::slots_floor, config.slots_max);
}

// Room for as many flows as there are slots, within the limit: address space, memory only once they come.
void FlowTable::State::extend_entries() {
    entries_max = std::min(slot_mask + 1, flows_max);
    heads.extend(entries_max);
    counts.extend(entries_max);
    outers.extend(entries_max);
    moved_bits.extend((std::size_t{entries_max} + 63) / 64);
    moved_at.extend(entries_max);
    moved.extend(entries_max);
    told.extend(entries_max);
    heard_bits.extend((std::size_t{entries_max} + 63) / 64);
    if (!wheel.empty() ||
        config.idle_timeout.count() + config.active_timeout.count() + config.closed_timeout.count() > 0)
        timers.extend(entries_max);
}

void FlowTable::State::free_entry(std::uint32_t number) {
    tag_at(slot_of(number)) = FLOW_FREE;
    heads[number].tag = FLOW_FREE;
    free_entries.push_back(number);
    any_freed = true;
    count_end();
    heard_bits[number / 64] &= ~(std::uint64_t{1} << number % 64);
    --live;
}

void FlowTable::State::clear() {
    count_end();
    buckets = ZeroedArray<TableBucket>(buckets.size());
    heads = {};
    counts = {};
    outers = {};
    moved_bits = {};
    moved_at = {};
    moved = {};
    told = {};
    heard_bits = {};
    known_sink = nullptr;
    payload_sink = nullptr;
    timers = {};
    free_entries.clear();
    std::fill(wheel.begin(), wheel.end(), no_entry);
    entries_used = 0;
    live = 0;
    section.spilled = 0;
    any_freed = false;
    made_in_order = true;
    last_made_ns = 0;
    any_outer = false;
    extend_entries();
}

// Where the flow's entry stands: in its first bucket, or else in its second.
std::uint32_t FlowTable::State::slot_of(std::uint32_t number) noexcept {
    const std::uint64_t places = places_of(heads[number].tag);
    const std::uint32_t first = bucket_at(places);
    for (std::uint32_t slot = first; slot < first + FLOW_PROBES; ++slot)
        if (tag_at(slot) != FLOW_FREE && entry_at(slot) == number) return slot;
    std::uint32_t slot = bucket_at(places >> 20);
    while (tag_at(slot) == FLOW_FREE || entry_at(slot) != number) ++slot;
    return slot;
}

void FlowTable::State::move_flow(std::uint32_t from, std::uint32_t to) noexcept {
    tag_at(to) = std::exchange(tag_at(from), FLOW_FREE);
    entry_at(to) = entry_at(from);
}

// Of a flow in its second bucket: whether its first has room, and it lies there now.
bool FlowTable::State::move_home(std::uint32_t from) noexcept {
    const std::uint32_t first = bucket_at(places_of(tag_at(from)));
    for (std::uint32_t to = first; to < first + FLOW_PROBES; ++to) {
        if (tag_at(to) != FLOW_FREE) continue;
        move_flow(from, to);
        --section.spilled;
        return true;
    }
    return false;
}

// Every flow that can into its first bucket; one that goes may leave room for another.
void FlowTable::State::move_home(std::vector<std::uint32_t>& spilled) noexcept {
    std::size_t before = 0;
    do {
        before = spilled.size();
        std::size_t kept = 0;
        for (std::size_t i = 0; i < before; ++i) {
            prefetch_bucket(*this, places_of(tag_at(spilled[std::min(i + buckets_ahead, before - 1)])));
            if (!move_home(spilled[i])) spilled[kept++] = spilled[i];
        }
        spilled.resize(kept);
    } while (spilled.size() != before);
}

namespace {

// Of what is done to a bucket, to four slots at once.
using Lanes [[gnu::vector_size(16), gnu::may_alias]] = std::uint32_t;

[[nodiscard]] inline Lanes mask(decltype(Lanes{} == 0) which) noexcept {
    return reinterpret_cast<Lanes>(which);
}
[[nodiscard]] inline bool any_of(const Lanes& lanes) noexcept {
    std::uint64_t halves[2];
    std::memcpy(halves, &lanes, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}

// Half of a bucket's flows stay, the others go to where they stand in the bucket that is as far behind the
// old table as this one is behind its beginning: there is room for them always. One bit of the place decides,
// and the tag has it. A free slot has number 0. True: some are in their second bucket; those stay too.
[[nodiscard]] inline bool split(TableBucket& lower, TableBucket& upper, std::uint32_t first,
                                std::uint32_t slots) noexcept {
    Lanes elsewhere{};
    for (std::size_t i = 0; i < FLOW_PROBES; i += sizeof(Lanes) / sizeof(std::uint32_t)) {
        auto& tags = reinterpret_cast<Lanes&>(lower.tags.tag[i]);
        auto& numbers = reinterpret_cast<Lanes&>(lower.entry[i]);
        const Lanes places = tags >> 2;
        const Lanes taken = mask(tags != __u32{FLOW_FREE});
        const Lanes away = mask(((places ^ first) & (slots - FLOW_PROBES)) != 0) & taken;
        const Lanes stays = away | mask((places & slots) == 0);
        reinterpret_cast<Lanes&>(upper.tags.tag[i]) = tags & ~stays;
        reinterpret_cast<Lanes&>(upper.entry[i]) = numbers & ~stays & taken;
        tags &= stays;
        numbers &= stays & taken;
        elsewhere |= away;
    }
    return any_of(elsewhere);
}

}  // namespace

// Of a bucket that has been split: the flows for which this is the second one.
void FlowTable::State::split_spilled(std::uint32_t first, std::uint32_t slots,
                                     std::vector<std::uint32_t>& spilled) {
    for (std::uint32_t slot = first; slot < first + FLOW_PROBES; ++slot) {
        const std::uint64_t places = places_of(tag_at(slot));
        if (tag_at(slot) == FLOW_FREE || ((places ^ first) & (slots - FLOW_PROBES)) == 0) continue;
        const bool goes = (places >> 20 & slots) != 0;
        if (goes) move_flow(slot, slot + slots);
        spilled.push_back(goes ? slot + slots : slot);
    }
}

bool FlowTable::State::grow() {
    if (!may_grow) return false;
    const std::uint32_t slots = slot_mask + 1;
    const std::uint32_t count = slots / FLOW_PROBES;
    buckets.extend(std::size_t{count} * 2, buckets.huge_bytes_at_random);
    buckets.populate(count, count);
    std::vector<std::uint32_t> spilled;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t first = i * FLOW_PROBES;
        if (UNLIKELY(split(buckets[i], buckets[i + count], first, slots)))
            split_spilled(first, slots, spilled);
    }
    slot_mask = slots * 2 - 1;
    section.spilled = spilled.size();
    move_home(spilled);
    any_freed = false;  // what is in its second bucket has none to be in its first
    may_grow = slot_mask + 1 < config.slots_max;
    extend_entries();
    return true;
}

}  // namespace egresswatch
