// classifier/flow_table_memory.cpp - how much a FlowTable may hold, and how it grows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "classifier/flow_table_state.h"

namespace egresswatch {

using namespace datapath;

namespace {

constexpr std::size_t ahead_max = 16;  // flows whose new bucket is fetched from memory side by side
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
    // While the table grows, the slots before and after it stand side by side.
    const auto needed = [](std::uint64_t n) {
        return n * FlowTableConfig::slot_bytes * 3 / 2 + n / 2 * FlowTableConfig::flow_bytes;
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
    updates.reserve(updates_max);
    update_entries.reserve(updates_max);
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
                     (bytes - slots * FlowTableConfig::slot_bytes * 3 / 2) / FlowTableConfig::flow_bytes));
    }
    config.slots_start = power_of_two(config.slots_start, FlowTableConfig::slots_floor, config.slots_max);
}

// Room for as many flows as there are slots, within the limit: address space, memory only once they come.
void FlowTable::State::extend_entries() {
    entries_max = std::min(slot_mask + 1, flows_max);
    entries.extend(entries_max);
    outers.extend(entries_max);
    slot_of.extend(entries_max);
    moved_bits.extend((std::size_t{entries_max} + 63) / 64);
    moved_at.extend(entries_max);
    moved.extend(entries_max);
    heard_bits.extend((std::size_t{entries_max} + 63) / 64);
    if (!wheel.empty() ||
        config.idle_timeout.count() + config.active_timeout.count() + config.closed_timeout.count() > 0)
        timers.extend(entries_max);
}

void FlowTable::State::free_entry(std::uint32_t number) {
    tag_at(slot_of[number]) = FLOW_FREE;
    entries[number].tag = FLOW_FREE;
    free_entries.push_back(number);
    any_freed = true;
    count_end();
    heard_bits[number / 64] &= ~(std::uint64_t{1} << number % 64);
    --live;
}

void FlowTable::State::clear() {
    count_end();
    buckets = ZeroedArray<TableBucket>(buckets.size());
    entries = {};
    outers = {};
    slot_of = {};
    moved_bits = {};
    moved_at = {};
    moved = {};
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

// Puts every flow into a table of so many slots. False where one found no room: nothing has changed then.
bool FlowTable::State::rehash(std::size_t slots) {
    auto old_buckets = std::exchange(buckets, ZeroedArray<TableBucket>(slots / FLOW_PROBES));
    const __u32 old_mask = std::exchange(slot_mask, static_cast<__u32>(slots - 1));
    const __u64 old_spilled = std::exchange(section.spilled, 0);
    std::array<std::uint64_t, ahead_max> hashes{};
    const auto prepare = [&](std::uint32_t number) {
        if (number >= entries_used || entries[number].tag == FLOW_FREE) return;
        const std::uint64_t hash = flow_hash(&entries[number].key, hash_seed);
        hashes[number % ahead_max] = hash;
        __builtin_prefetch(&buckets[(hash & slot_mask) / FLOW_PROBES], 1);
    };
    for (std::uint32_t number = 0; number < ahead_max; ++number) prepare(number);
    for (std::uint32_t number = 0; number < entries_used; ++number) {
        const std::uint64_t hash = hashes[number % ahead_max];
        prepare(number + ahead_max);
        if (entries[number].tag == FLOW_FREE) continue;
        const auto place = [&](__u32 start) {
            const __u32 bucket = start & slot_mask & ~(__u32)(FLOW_PROBES - 1);
            for (__u32 i = 0; i < FLOW_PROBES; ++i) {
                const __u32 slot = bucket + ((start + i) & (FLOW_PROBES - 1));
                if (tag_at(slot) != FLOW_FREE) continue;
                tag_at(slot) = entries[number].tag;
                entry_at(slot) = number;
                slot_of[number] = slot;
                return true;
            }
            return false;
        };
        if (place(static_cast<__u32>(hash))) continue;
        ++section.spilled;
        if (place(static_cast<__u32>(hash >> 20))) continue;
        buckets = std::move(old_buckets);
        slot_mask = old_mask;
        section.spilled = old_spilled;
        return false;
    }
    any_freed = false;
    return true;
}

bool FlowTable::State::grow() {
    if (!may_grow) return false;
    const std::size_t before = std::size_t{slot_mask} + 1;
    std::size_t slots = before * 2;
    while (slots <= config.slots_max && !rehash(slots))
        slots *= 2;  // a crowd even in twice the slots: more, then
    if (slots > config.slots_max) {
        // Nothing has been given up: the table stays as it is. What slot a flow is in was overwritten, and is
        // again.
        for (std::uint32_t slot = 0; slot < before; ++slot)
            if (tag_at(slot) != FLOW_FREE) slot_of[entry_at(slot)] = slot;
        may_grow = false;
        return false;
    }
    may_grow = slots < config.slots_max;
    extend_entries();
    return true;
}

}  // namespace egresswatch
