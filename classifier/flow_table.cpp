// classifier/flow_table.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/flow_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "classifier/datapath/region.h"
#include "classifier/datapath/walk_platform_memory.h"
#include "classifier/first_sender.h"
#include "classifier/zeroed_array.h"

namespace egresswatch::datapath {

struct section_state;
struct walk_state;
struct walk_result;
struct flow_key;

// The platform of account.h for one core of user space.
struct TablePlatform {
    // The packet.
    const __u8* data = nullptr;
    __u32 captured = 0;
    __u64 now_ns = 0;
    __u32 interface = 0;
    // What is counted into.
    const __u16* region = nullptr;
    __u32 region_cells = 0;
    ZeroedArray<class_totals> classes{CLASSES_MAX};
    std::vector<iface_totals> interfaces;
    std::array<__u64, LOSS_REASON_COUNT> losses{};
    ZeroedArray<flow_entry> entries;
    ZeroedArray<flow_outer> outers;
    struct walk_state* walk_scratch = nullptr;
    struct section_state* only_section = nullptr;
    __u32 slot_mask = 0;
    __u64 hash_seed = 0;
    bool track_all = false;
    bool may_grow = false;
    // What happened to the packet.
    bool wants_growth = false;
    bool is_new = false;
    bool reached_volume = false;
    FirstSenders first_senders;
    std::vector<Prefix> local_networks;
};
using platform_ctx = TablePlatform*;

DATAPATH_INLINE int platform_read(platform_ctx ctx, __u32 offset, void* to, __u32 size) {
    return read_memory(ctx->data, ctx->captured, offset, to, size);
}
DATAPATH_INLINE const __u16* platform_region(platform_ctx ctx) {
    return ctx->region;
}
DATAPATH_INLINE __u32 platform_region_cells(platform_ctx ctx) {
    return ctx->region_cells;
}
DATAPATH_INLINE struct iface_direction* platform_iface(platform_ctx ctx, __u32 direction) {
    return &ctx->interfaces[ctx->interface].by_direction[direction];
}
DATAPATH_INLINE struct class_traffic* platform_class(platform_ctx ctx, __u32 class_id, __u32 direction) {
    return &ctx->classes[class_id].by_direction[direction];
}
DATAPATH_INLINE struct flow_entry* platform_flow(platform_ctx ctx, __u32 slot) {
    return &ctx->entries[slot];
}
DATAPATH_INLINE struct flow_outer* platform_outer(platform_ctx ctx, __u32 slot) {
    return &ctx->outers[slot];
}
DATAPATH_INLINE __u32 platform_slot_mask(platform_ctx ctx) {
    return ctx->slot_mask;
}
DATAPATH_INLINE __u64 platform_hash_seed(platform_ctx ctx) {
    return ctx->hash_seed;
}
DATAPATH_INLINE int platform_track_all(platform_ctx ctx) {
    return ctx->track_all ? 1 : 0;
}
DATAPATH_INLINE __u64 platform_now(platform_ctx ctx) {
    return ctx->now_ns;
}
DATAPATH_INLINE __u64 platform_now_coarse(platform_ctx ctx) {
    return ctx->now_ns;
}
// A flow that finds no slot while the table may still grow is tried again, and is no loss yet.
DATAPATH_INLINE void platform_lose(platform_ctx ctx, __u32 reason, __u64 amount) {
    if (ctx->may_grow && (reason == LOSS_FLOWS_FULL || reason == LOSS_FLOWS_FULL_BYTES))
        ctx->wants_growth = true;
    else
        ctx->losses[reason] += amount;
}
DATAPATH_INLINE void platform_event(platform_ctx ctx, __u32 kind, __u32, const struct flow_key*, __u64) {
    if (kind == EVENT_FLOW_NEW) ctx->is_new = true;
    if (kind == EVENT_FLOW_VOLUME) ctx->reached_volume = true;
}

DATAPATH_INLINE struct walk_state* platform_walk_state(platform_ctx ctx) {
    return ctx->walk_scratch;
}
DATAPATH_INLINE struct section_state* platform_section(platform_ctx ctx) {
    return ctx->only_section;
}
static __u8 platform_direction(platform_ctx ctx, const struct walk_result* walk);

}  // namespace egresswatch::datapath

#include "classifier/datapath/account.h"

namespace egresswatch {

using namespace datapath;

namespace {

constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::size_t chunk_max = 32;  // packets whose flow slots are fetched from memory side by side
constexpr std::uint32_t no_slot = SLOT_NONE;
constexpr std::uint8_t nothing = 0;  // what an empty packet points at

Timestamp stamp_of(std::uint64_t ns) noexcept {
    return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(ns)));
}

std::uint32_t power_of_two(std::uint32_t value, std::uint32_t low, std::uint32_t high) noexcept {
    return std::bit_ceil(std::clamp(value, low, high));
}

FlowCounters counters_of(const flow_entry& entry) noexcept {
    return {entry.packets_out, entry.bytes_out, entry.packets_in, entry.bytes_in};
}

bool any_contains(const std::vector<Prefix>& prefixes, const std::uint8_t* address) noexcept {
    const Address value = Address::from_bytes(address);
    return std::any_of(prefixes.begin(), prefixes.end(), [&](const Prefix& p) { return p.contains(value); });
}

}  // namespace

struct FlowTable::State : TablePlatform {
    // What the sink has been told of a slot, and the slot's place in the idle wheel.
    struct Reported {
        FlowCounters counters;
        bool known = false;  // the sink has had its `created`
        bool dirty = false;  // in `dirty_slots`
        std::uint32_t next_idle = no_slot;
    };

    explicit State(FlowTableConfig given);

    void take(std::span<const PacketInput> chunk, FlowSink& sink);
    [[nodiscard]] std::uint32_t account_one(const packet_facts& facts, const packet_class& found,
                                            const flow_key& key, std::uint64_t hash);
    void advance_to(std::uint64_t at_ns, FlowSink& sink);
    void report_dirty(FlowSink& sink, std::uint64_t at_ns);
    void end_idle(FlowSink& sink, std::uint64_t at_ns);
    void grow();
    [[nodiscard]] FlowUpdate update_of(std::uint32_t slot, UpdateReason reason);
    void schedule_idle(std::uint32_t slot);
    void deliver(FlowSink& sink, std::span<const FlowUpdate> updates, std::uint64_t at_ns);

    FlowTableConfig config;
    walk_state walk{};
    section_state section{};
    ZeroedArray<Reported> reported;
    std::vector<std::uint32_t> dirty_slots;  // in the order of their first packet since the last tick
    std::vector<std::uint32_t> idle_wheel;   // heads of lists by second of expiry
    std::vector<FlowUpdate> updates;         // reused
    std::uint64_t live = 0;
    std::uint64_t now_max_ns = 0;
    std::uint64_t sink_now_ns = 0;   // what the sink was told last; never goes back
    std::uint64_t next_tick_ns = 0;  // 0: no packet yet
    std::uint64_t idle_done_second = 0;
    packet_class last{};
    flow_key last_key{};
};

namespace datapath {

static __u8 platform_direction(platform_ctx ctx, const walk_result* walk) {
    const auto& networks = ctx->local_networks;
    if (!networks.empty()) {
        bool source = any_contains(networks, walk->src);
        bool destination = any_contains(networks, walk->dst);
        if (source == destination && walk->levels > 0) {
            source = any_contains(networks, walk->outer_src);
            destination = any_contains(networks, walk->outer_dst);
        }
        if (source != destination) return source ? DIRECTION_OUT : DIRECTION_IN;
    }
    return ctx->first_senders.sent_first(walk->src, walk->dst, walk->sport, walk->dport, walk->l4_proto)
               ? DIRECTION_OUT
               : DIRECTION_IN;
}

}  // namespace datapath

FlowTable::State::State(FlowTableConfig given) : config(std::move(given)) {
    config.slots_max =
        power_of_two(config.slots_max, FlowTableConfig::slots_floor, FlowTableConfig::slots_ceiling);
    config.slots_start = power_of_two(config.slots_start, FlowTableConfig::slots_floor, config.slots_max);
    entries = ZeroedArray<flow_entry>(config.slots_start);
    outers = ZeroedArray<flow_outer>(config.slots_start);
    reported = ZeroedArray<Reported>(config.slots_start);
    slot_mask = config.slots_start - 1;
    may_grow = config.slots_start < config.slots_max;
    hash_seed = config.hash_seed;
    track_all = config.track_all;
    local_networks = config.local_networks;
    walk_scratch = &walk;
    only_section = &section;
    interfaces.resize(1);
    if (config.idle_timeout.count() > 0)
        idle_wheel.assign(static_cast<std::size_t>(config.idle_timeout.count()) + 2, no_slot);
}

// ------------------------------------------------------------------------------------------------ packets

static packet_facts facts_of(const PacketInput& packet) noexcept {
    packet_facts facts{};
    facts.frame.wire_bytes = packet.wire_bytes;
    facts.frame.captured_bytes = static_cast<std::uint32_t>(packet.bytes.size());
    facts.frame.start_offset = packet.link.offset;
    facts.ifindex = packet.ifindex;
    facts.direction = packet.direction;
    switch (packet.link.start) {
        case LinkStart::ethernet:
        case LinkStart::ip:
            // The fast walk starts at the first byte of the frame; behind anything else the full walk starts.
            if (packet.link.offset == 0) {
                facts.frame.start = packet.link.start == LinkStart::ip ? START_IP : START_ETHERNET;
            } else {
                facts.frame.start = START_ETHER_TYPE;
                facts.frame.start_ether_type =
                    packet.link.start == LinkStart::ip ? ETHER_IPV4 : ETHER_BRIDGED;
            }
            break;
        case LinkStart::ppp:
            facts.frame.start = START_PPP;
            break;
        case LinkStart::ether_type:
            facts.frame.start = START_ETHER_TYPE;
            facts.frame.start_ether_type = packet.link.ether_type;
            break;
        case LinkStart::not_ip:
            facts.frame.start = START_NOT_IP;
            break;
        case LinkStart::truncated:
            // An IP header that cannot be read: truncated, or malformed where nothing was cut off.
            facts.frame.start = START_ETHER_TYPE;
            facts.frame.start_ether_type = ETHER_IPV4;
            facts.frame.start_offset = facts.frame.captured_bytes;
            break;
    }
    return facts;
}

std::uint32_t FlowTable::State::account_one(const packet_facts& facts, const packet_class& found,
                                            const flow_key& key, std::uint64_t hash) {
    if (may_grow && live * 2 >= entries.size()) grow();
    is_new = false;
    reached_volume = false;
    wants_growth = false;
    const std::uint64_t full_event_ns = section.full_event_ns;
    std::uint32_t slot = account_flow(this, &facts, &found, &key, hash);
    while (wants_growth) {  // at half load a crowd around one slot is rare, and possible
        section.full_event_ns = full_event_ns;
        wants_growth = false;
        grow();
        slot = account_flow(this, &facts, &found, &key, hash);
    }
    if (slot == SLOT_NONE) return slot;
    Reported& told = reported[slot];
    if (is_new) {
        ++live;
        told = Reported{};
        schedule_idle(slot);
    }
    if (!told.dirty) {
        told.dirty = true;
        dirty_slots.push_back(slot);
    }
    return slot;
}

void FlowTable::State::take(std::span<const PacketInput> chunk, FlowSink& sink) {
    std::array<packet_class, chunk_max> found;
    std::array<packet_facts, chunk_max> facts;
    std::array<flow_key, chunk_max> keys;
    std::array<std::uint64_t, chunk_max> hashes;
    std::array<bool, chunk_max> tracked;
    for (std::size_t i = 0; i < chunk.size(); ++i) {
        const PacketInput& packet = chunk[i];
        data = packet.bytes.empty() ? &nothing : packet.bytes.data();
        captured = static_cast<std::uint32_t>(packet.bytes.size());
        now_ns = packet.at_ns;
        interface = packet.interface;
        facts[i] = facts_of(packet);
        classify_packet(this, data, data + captured, &facts[i], &found[i]);
        tracked[i] = is_tracked(this, &found[i]) != 0;
        if (!tracked[i]) continue;
        make_key(&found[i], &keys[i]);
        hashes[i] = flow_hash(&keys[i], hash_seed);
        const flow_entry* first = &entries[hashes[i] & slot_mask];
        __builtin_prefetch(first, 1);
        __builtin_prefetch(reinterpret_cast<const std::byte*>(first) + 64, 1);
    }
    for (std::size_t i = 0; i < chunk.size(); ++i) {
        if (!tracked[i]) continue;
        now_ns = chunk[i].at_ns;
        const std::uint32_t slot = account_one(facts[i], found[i], keys[i], hashes[i]);
        if (slot == SLOT_NONE || !reached_volume) continue;
        // Told at once, so that a bulk transfer is noticed at the packet that makes it one.
        const FlowUpdate update = update_of(slot, UpdateReason::volume);
        deliver(sink, {&update, 1}, chunk[i].at_ns);
    }
    last = found[chunk.size() - 1];
    if (last.walk.status == WALK_IP) make_key(&last, &last_key);
}

void FlowTable::account(std::span<const PacketInput> packets, FlowSink& sink) {
    State& s = *state_;
    std::size_t begin = 0;
    while (begin < packets.size()) {
        s.advance_to(packets[begin].at_ns, sink);
        // A chunk ends where the clock ticks, so that a tick falls between the same two packets always.
        std::size_t end = begin;
        while (end < packets.size() && end - begin < chunk_max && packets[end].at_ns < s.next_tick_ns) {
            if (packets[end].interface >= s.interfaces.size())
                s.interfaces.resize(packets[end].interface + 1);
            s.now_max_ns = std::max(s.now_max_ns, packets[end].at_ns);
            ++end;
        }
        s.take(packets.subspan(begin, end - begin), sink);
        begin = end;
    }
}

// ------------------------------------------------------------------------------------------------ clock

void FlowTable::State::deliver(FlowSink& sink, std::span<const FlowUpdate> news, std::uint64_t at_ns) {
    sink_now_ns = std::max(sink_now_ns, at_ns);
    sink.on_flow_updates(news, stamp_of(sink_now_ns));
}

void FlowTable::State::advance_to(std::uint64_t at_ns, FlowSink& sink) {
    if (next_tick_ns != 0 && at_ns < next_tick_ns) return;
    const std::uint64_t second = at_ns / second_ns;
    if (next_tick_ns != 0) {
        report_dirty(sink, next_tick_ns);
        end_idle(sink, second * second_ns);
    } else {
        idle_done_second = second;
    }
    next_tick_ns = (second + 1) * second_ns;
}

FlowUpdate FlowTable::State::update_of(std::uint32_t slot, UpdateReason reason) {
    const flow_entry& entry = entries[slot];
    Reported& told = reported[slot];
    FlowUpdate update;
    update.key = entry.key;
    update.total = counters_of(entry);
    update.delta = {entry.packets_out - told.counters.packets_out, entry.bytes_out - told.counters.bytes_out,
                    entry.packets_in - told.counters.packets_in, entry.bytes_in - told.counters.bytes_in};
    update.first_seen = stamp_of(entry.first_seen_ns);
    update.last_seen = stamp_of(entry.last_seen_ns);
    if (entry.key.tunnel != TUNNEL_NONE) {
        update.outer_local = Address::from_bytes(outers[slot].local_addr);
        update.outer_remote = Address::from_bytes(outers[slot].remote_addr);
    }
    update.ifindex = entry.ifindex;
    update.handshake_rtt_us = entry.handshake_rtt_us;
    update.initiator = static_cast<initiator>(entry.initiator);
    update.initiator_sure = entry.initiator_sure != 0;
    update.tcp_flags_out = entry.tcp_flags_out;
    update.tcp_flags_in = entry.tcp_flags_in;
    update.reason = reason == UpdateReason::active && !told.known ? UpdateReason::created : reason;
    told.counters = update.total;
    told.known = true;
    return update;
}

void FlowTable::State::report_dirty(FlowSink& sink, std::uint64_t at_ns) {
    updates.clear();
    for (const std::uint32_t slot : dirty_slots) {
        reported[slot].dirty = false;
        // A volume update may have told everything already.
        if (reported[slot].known && reported[slot].counters == counters_of(entries[slot])) continue;
        updates.push_back(update_of(slot, UpdateReason::active));
    }
    dirty_slots.clear();
    deliver(sink, updates, at_ns);
}

void FlowTable::State::schedule_idle(std::uint32_t slot) {
    if (idle_wheel.empty()) return;
    // The first full second at which the flow has been idle long enough; a time before the clock's counts as
    // now.
    const std::uint64_t expiry_ns =
        std::max<std::uint64_t>(entries[slot].last_seen_ns, idle_done_second * second_ns) +
        static_cast<std::uint64_t>(config.idle_timeout.count()) * second_ns;
    std::uint64_t second = (expiry_ns + second_ns - 1) / second_ns;
    second =
        std::min(second, idle_done_second + idle_wheel.size() - 1);  // a time far ahead: looked at again then
    std::uint32_t& head = idle_wheel[second % idle_wheel.size()];
    reported[slot].next_idle = head;
    head = slot;
}

void FlowTable::State::end_idle(FlowSink& sink, std::uint64_t at_ns) {
    if (idle_wheel.empty()) return;
    const std::uint64_t target = at_ns / second_ns;
    const auto timeout = static_cast<std::uint64_t>(config.idle_timeout.count()) * second_ns;
    updates.clear();
    // After a long silence every list is due, once.
    const std::uint64_t steps = std::min<std::uint64_t>(target - idle_done_second, idle_wheel.size());
    std::vector<std::uint32_t> again;
    std::vector<std::uint32_t> ended;
    for (std::uint64_t i = 0; i < steps; ++i) {
        std::uint32_t slot =
            std::exchange(idle_wheel[(idle_done_second + 1 + i) % idle_wheel.size()], no_slot);
        while (slot != no_slot) {
            const std::uint32_t next = reported[slot].next_idle;
            (entries[slot].last_seen_ns + timeout <= at_ns ? ended : again).push_back(slot);
            slot = next;
        }
    }
    idle_done_second = target;
    for (const std::uint32_t slot : again) schedule_idle(slot);
    for (const std::uint32_t slot : ended) updates.push_back(update_of(slot, UpdateReason::ended));
    for (const std::uint32_t slot : ended) entries[slot].tag = FLOW_FREE;
    live -= ended.size();
    // Slots come in an order that growth changes; the sink's order must not depend on it.
    std::sort(updates.begin(), updates.end(), [](const FlowUpdate& a, const FlowUpdate& b) {
        if (a.first_seen != b.first_seen) return a.first_seen < b.first_seen;
        return std::memcmp(&a.key, &b.key, sizeof a.key) < 0;
    });
    if (!updates.empty()) deliver(sink, updates, at_ns);
}

// ------------------------------------------------------------------------------------------------ growth

void FlowTable::State::grow() {
    const std::size_t old_slots = entries.size();
    std::vector<std::uint32_t> moved(old_slots, no_slot);
    for (std::size_t slots = old_slots * 2;; slots *= 2) {
        if (slots > config.slots_max) {  // nothing has been given up: the table stays as it is
            may_grow = false;
            return;
        }
        ZeroedArray<flow_entry> old_entries = std::exchange(entries, ZeroedArray<flow_entry>(slots));
        slot_mask = static_cast<__u32>(slots - 1);
        section.spilled = 0;
        bool all_placed = true;
        for (std::size_t from = 0; from < old_slots && all_placed; ++from) {
            const flow_entry& entry = old_entries[from];
            if ((entry.tag & FLOW_LIVE) == 0) continue;
            const std::uint64_t hash = flow_hash(&entry.key, hash_seed);
            flow_search search = {SLOT_NONE, SLOT_NONE};
            flow_search_window(this, &entry.key, flow_tag(hash), static_cast<__u32>(hash), slot_mask,
                               &search);
            if (search.free == SLOT_NONE) {
                flow_search_window(this, &entry.key, flow_tag(hash), static_cast<__u32>(hash >> 20),
                                   slot_mask, &search);
                ++section.spilled;
            }
            all_placed = search.free != SLOT_NONE;
            if (!all_placed) break;
            entries[search.free] = entry;
            moved[from] = search.free;
        }
        if (all_placed) break;
        // A crowd even in twice the slots: four times, then.
        entries = std::move(old_entries);
        slot_mask = static_cast<__u32>(old_slots - 1);
    }
    ZeroedArray<flow_outer> old_outers = std::exchange(outers, ZeroedArray<flow_outer>(entries.size()));
    ZeroedArray<Reported> old_reported = std::exchange(reported, ZeroedArray<Reported>(entries.size()));
    for (std::size_t from = 0; from < old_slots; ++from) {
        if (moved[from] == no_slot) continue;
        if (entries[moved[from]].key.tunnel != TUNNEL_NONE) outers[moved[from]] = old_outers[from];
        reported[moved[from]] = old_reported[from];
        if (old_reported[from].next_idle != no_slot)
            reported[moved[from]].next_idle = moved[old_reported[from].next_idle];
    }
    for (std::uint32_t& slot : dirty_slots) slot = moved[slot];
    for (std::uint32_t& head : idle_wheel)
        if (head != no_slot) head = moved[head];
    may_grow = entries.size() < config.slots_max;
}

// ------------------------------------------------------------------------------------------------ interface

FlowTable::FlowTable(FlowTableConfig config) : state_(std::make_unique<State>(std::move(config))) {}
FlowTable::FlowTable(FlowTable&&) noexcept = default;
FlowTable& FlowTable::operator=(FlowTable&&) noexcept = default;
FlowTable::~FlowTable() = default;

void FlowTable::install_region(std::span<const std::byte> block) noexcept {
    state_->region = reinterpret_cast<const __u16*>(block.data());
    state_->region_cells = static_cast<__u32>(block.size() / sizeof(__u16));
}

void FlowTable::advance(std::uint64_t at_ns, FlowSink& sink) {
    state_->now_max_ns = std::max(state_->now_max_ns, at_ns);
    state_->advance_to(at_ns, sink);
}

void FlowTable::drain(FlowSink& sink) {
    state_->report_dirty(sink, state_->now_max_ns);
}

void FlowTable::finish(FlowSink& sink) {
    State& s = *state_;
    s.report_dirty(sink, s.now_max_ns);
    std::vector<std::uint32_t> slots;
    slots.reserve(s.live);
    for (std::uint32_t slot = 0; slot <= s.slot_mask; ++slot)
        if ((s.entries[slot].tag & FLOW_LIVE) != 0) slots.push_back(slot);
    std::sort(slots.begin(), slots.end(), [&](std::uint32_t a, std::uint32_t b) {
        const flow_entry& x = s.entries[a];
        const flow_entry& y = s.entries[b];
        if (x.first_seen_ns != y.first_seen_ns) return x.first_seen_ns < y.first_seen_ns;
        return std::memcmp(&x.key, &y.key, sizeof x.key) < 0;
    });
    for (std::size_t at = 0; at < slots.size();) {
        s.updates.clear();
        for (; at < slots.size() && s.updates.size() < 1024; ++at) {
            s.updates.push_back(s.update_of(slots[at], UpdateReason::ended));
            s.entries[slots[at]].tag = FLOW_FREE;
        }
        s.deliver(sink, s.updates, s.now_max_ns);
    }
    std::fill(s.idle_wheel.begin(), s.idle_wheel.end(), no_slot);
    s.live = 0;
}

void FlowTable::notify_at(const flow_key& key, std::uint64_t bytes_out) noexcept {
    State& s = *state_;
    const std::uint64_t hash = flow_hash(&key, s.hash_seed);
    flow_search search = {SLOT_NONE, SLOT_NONE};
    flow_search_window(&s, &key, flow_tag(hash), static_cast<__u32>(hash), s.slot_mask, &search);
    if (search.found == SLOT_NONE)
        flow_search_window(&s, &key, flow_tag(hash), static_cast<__u32>(hash >> 20), s.slot_mask, &search);
    if (search.found == SLOT_NONE) return;
    flow_entry& entry = s.entries[search.found];
    entry.notify_bytes_out = std::min<__u64>(entry.notify_bytes_out, bytes_out);
}

std::span<const class_totals> FlowTable::class_totals() const noexcept {
    return {state_->classes.data(), state_->classes.size()};
}
std::span<const iface_totals> FlowTable::interface_totals() const noexcept {
    return state_->interfaces;
}
std::span<const std::uint64_t> FlowTable::losses() const noexcept {
    return {reinterpret_cast<const std::uint64_t*>(state_->losses.data()), state_->losses.size()};
}
std::span<const flow_entry> FlowTable::entries() const noexcept {
    return {state_->entries.data(), state_->entries.size()};
}
std::span<const flow_outer> FlowTable::outers() const noexcept {
    return {state_->outers.data(), state_->outers.size()};
}
std::uint64_t FlowTable::live() const noexcept {
    return state_->live;
}
std::uint64_t FlowTable::directions_forgotten() const noexcept {
    return state_->first_senders.forgotten();
}
Timestamp FlowTable::now() const noexcept {
    return stamp_of(state_->now_max_ns);
}
PacketVerdict FlowTable::last_verdict() const noexcept {
    const packet_class& last = state_->last;
    return {static_cast<outcome>(last.outcome), static_cast<direction>(last.direction), state_->last_key,
            last.ip_bytes};
}

}  // namespace egresswatch
