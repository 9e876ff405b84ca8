// capture/ebpf/drain.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/drain.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "classifier/flow_place.h"

namespace egresswatch::capture {
namespace {

template <typename T>
T load(const T& from) noexcept {
    return __atomic_load_n(&from, __ATOMIC_RELAXED);
}

std::uint32_t load_tag(const datapath::flow_entry& entry) noexcept {
    return __atomic_load_n(&entry.head.tag, __ATOMIC_ACQUIRE);
}

bool is_live(std::uint32_t tag) noexcept {
    return (tag & datapath::FLOW_LIVE) != 0;
}

FlowCounters counters_of(const datapath::flow_entry& entry) noexcept {
    return {load(entry.counts.packets_out), load(entry.counts.bytes_out), load(entry.counts.packets_in),
            load(entry.counts.bytes_in)};
}

void add(FlowCounters& to, const FlowCounters& what) noexcept {
    to.packets_out += what.packets_out;
    to.bytes_out += what.bytes_out;
    to.packets_in += what.packets_in;
    to.bytes_in += what.bytes_in;
}

}  // namespace

std::size_t FlowDrain::KeyHash::operator()(const datapath::flow_key& key) const noexcept {
    std::uint64_t words[sizeof key / sizeof(std::uint64_t)];
    std::memcpy(words, &key, sizeof key);
    std::uint64_t hash = 0x9e3779b97f4a7c15ULL;
    for (const std::uint64_t word : words) {
        hash = (hash ^ word) * 0xbf58476d1ce4e5b9ULL;
        hash ^= hash >> 31;
    }
    return hash;
}

bool FlowDrain::KeyEqual::operator()(const datapath::flow_key& a,
                                     const datapath::flow_key& b) const noexcept {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

FlowDrain::FlowDrain(Config config, std::span<datapath::flow_entry> entries,
                     std::span<datapath::flow_tags> tags, std::span<const datapath::flow_outer> outers,
                     std::span<const datapath::flow_sender> senders, GraceCalls grace)
    : config_(config),
      entries_(entries),
      tags_(tags),
      outers_(outers),
      senders_(senders),
      grace_(std::move(grace)),
      slots_(entries.size()),
      section_used_(entries.size() / config.slots_per_cpu) {}

std::uint32_t& FlowDrain::tag_copy(std::uint32_t slot) noexcept {
    return tags_[slot / datapath::FLOW_PROBES].tag[slot % datapath::FLOW_PROBES];
}

// A predecessor may have died between freeing a slot and clearing its tag's copy, without which no flow would
// ever get that slot again. So where a copy says FREE, its entry does: flow_create() counts on it.
void FlowDrain::repair_tags() noexcept {
    // Read in this order: the kernel writes an entry's tag first and the copy behind it.
    for (std::uint32_t slot = 0; slot < entries_.size(); slot++)
        if (__atomic_load_n(&tag_copy(slot), __ATOMIC_ACQUIRE) != datapath::FLOW_FREE &&
            load_tag(entries_[slot]) == datapath::FLOW_FREE)
            __atomic_store_n(&tag_copy(slot), static_cast<std::uint32_t>(datapath::FLOW_FREE),
                             __ATOMIC_RELEASE);
}

void FlowDrain::adopt(std::uint64_t now_ns) {
    repair_tags();
    // A flow may have slots of several CPUs. Whoever takes off of its first update what it knows already
    // would take a second one, with the other CPU's part, for news.
    for (std::uint32_t slot = 0; slot < entries_.size(); slot++) visit(slot, now_ns);
    emit_touched();
}

Timestamp FlowDrain::epoch(std::uint64_t kernel_ns) const noexcept {
    return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(kernel_ns)) + epoch_offset_);
}

// The flow of a slot that was not known, made where it is the first. Returns its number.
std::uint32_t FlowDrain::adopt_slot(std::uint32_t slot) {
    const datapath::flow_entry& entry = entries_[slot];
    const auto [at, is_new] = index_.try_emplace(entry.head.key, NONE);
    if (is_new) {
        if (free_flows_.empty()) {
            at->second = static_cast<std::uint32_t>(flows_.size());
            flows_.emplace_back();
        } else {
            at->second = free_flows_.back();
            free_flows_.pop_back();
        }
        Flow& made = flows_[at->second];
        made = Flow{};
        made.key = entry.head.key;
        made.first_seen_ns = ~std::uint64_t{0};
        if (entry.head.key.tunnel != datapath::TUNNEL_NONE) {
            made.outer_local = Address::from_bytes(outers_[slot].local_addr);
            made.outer_remote = Address::from_bytes(outers_[slot].remote_addr);
        }
    }
    Flow& flow = flows_[at->second];
    slots_[slot] = Slot{at->second, flow.first_slot, {}};
    flow.first_slot = slot;
    flow.slots++;
    slots_used_++;
    section_used_[slot / config_.slots_per_cpu]++;
    return at->second;
}

// A flow's two directions may run on different CPUs: the SYN lies in one section, its answer in another.
void FlowDrain::merge_handshake(Flow& flow, const datapath::flow_entry& entry) {
    if (const std::uint32_t rtt = load(entry.head.handshake_rtt_us);
        rtt != 0 && (flow.handshake_rtt_us == 0 || rtt < flow.handshake_rtt_us))
        flow.handshake_rtt_us = rtt;
    const std::uint64_t out = load(entry.counts.handshake_out_ns), in = load(entry.counts.handshake_in_ns);
    // 1 says "sent twice": no sample (layout.h), whatever another section saw.
    if (out != 0 && flow.handshake_out_ns != 1) flow.handshake_out_ns = out;
    if (in != 0 && (flow.handshake_in_ns == 0 || in < flow.handshake_in_ns)) flow.handshake_in_ns = in;
    if (flow.handshake_rtt_us != 0 || flow.handshake_out_ns <= 1) return;
    if (flow.handshake_in_ns <= flow.handshake_out_ns) return;
    const std::uint64_t rtt = (flow.handshake_in_ns - flow.handshake_out_ns) / 1000;
    if (rtt <= 0xffffffff)
        flow.handshake_rtt_us = static_cast<std::uint32_t>(std::max<std::uint64_t>(rtt, 1));
}

void FlowDrain::merge_details(Flow& flow, const datapath::flow_entry& entry) {
    const std::uint64_t first = load(entry.head.first_seen_ns);
    if (first < flow.first_seen_ns) {
        flow.first_seen_ns = first;
        flow.ifindex = load(entry.head.ifindex);
    }
    flow.last_seen_ns = std::max<std::uint64_t>(flow.last_seen_ns, load(entry.counts.last_seen_ns));
    flow.tcp_flags_out |= load(entry.head.tcp_flags_out);
    flow.tcp_flags_in |= load(entry.head.tcp_flags_in);
    const std::uint8_t initiator = load(entry.head.initiator);
    const bool sure = load(entry.head.initiator_sure) != 0;
    const bool better = sure != flow.initiator_sure ? sure : first <= flow.initiator_seen_ns;
    if (initiator != datapath::INITIATOR_UNKNOWN &&
        (flow.initiator == datapath::INITIATOR_UNKNOWN || better)) {
        flow.initiator = initiator;
        flow.initiator_sure = sure;
        flow.initiator_seen_ns = first;
    }
    if (flow.key.l4_proto == IPPROTO_TCP) merge_handshake(flow, entry);
}

void FlowDrain::touch(std::uint32_t flow) {
    if (std::exchange(flows_[flow].touched, true)) return;
    touched_.push_back(flow);
}

// Of several slots the one that moves; a process before a reason for none.
void FlowDrain::merge_sender(Flow& flow, std::uint32_t slot) const {
    const datapath::flow_sender& sender = senders_[slot];
    const std::uint8_t outcome = load(sender.outcome);
    if (outcome == datapath::SENDER_UNSEEN) return;
    if (outcome != datapath::SENDER_PROCESS && flow.sender.outcome == datapath::SENDER_PROCESS) return;
    const std::uint8_t changes = std::max(flow.sender.changes, load(sender.changes));
    flow.sender = sender;
    flow.sender.outcome = outcome;
    flow.sender.changes = changes;
}

// Adds what the slot counted since it was read last.
void FlowDrain::read_slot(std::uint32_t slot) {
    const datapath::flow_entry& entry = entries_[slot];
    const std::uint32_t number = slots_[slot].flow != NONE ? slots_[slot].flow : adopt_slot(slot);
    const FlowCounters now = counters_of(entry);
    Flow& flow = flows_[number];
    const bool moved = now != slots_[slot].read;
    if (moved || flow.slots == 1) merge_sender(flow, slot);
    if (!moved) return;
    add(flow.total, now - slots_[slot].read);
    slots_[slot].read = now;
    merge_details(flow, entry);
    touch(number);
}

void FlowDrain::emit(Flow& flow, UpdateReason reason) {
    FlowUpdate update;
    update.key = flow.key;
    update.total = flow.total;
    update.delta = flow.total - flow.reported;
    update.first_seen = epoch(flow.first_seen_ns);
    update.last_seen = epoch(flow.last_seen_ns);
    update.outer_local = flow.outer_local;
    update.outer_remote = flow.outer_remote;
    update.ifindex = flow.ifindex;
    update.handshake_rtt_us = flow.handshake_rtt_us;
    update.initiator = static_cast<datapath::initiator>(flow.initiator);
    update.initiator_sure = flow.initiator_sure;
    update.tcp_flags_out = flow.tcp_flags_out;
    update.tcp_flags_in = flow.tcp_flags_in;
    update.reason = reason;
    flow.reported = flow.total;
    flow.announced = true;
    updates_.push_back(update);
    update_senders_.push_back(flow.sender);
    if (config_.knows_senders && flow.sender.outcome == datapath::SENDER_UNSEEN &&
        flow.total.packets_out != 0)
        update_senders_.back().outcome = datapath::SENDER_DAEMON_AWAY;
}

void FlowDrain::emit_touched() {
    for (const std::uint32_t number : touched_) {
        Flow& flow = flows_[number];
        flow.touched = false;
        if (flow.slots == 0) continue;  // ended meanwhile
        if (flow.total == flow.reported && flow.announced) continue;
        emit(flow, flow.announced ? UpdateReason::active : UpdateReason::created);
    }
    touched_.clear();
}

void FlowDrain::on_event(const datapath::flow_event& event) {
    if (event.kind != datapath::EVENT_FLOW_NEW && event.kind != datapath::EVENT_FLOW_VOLUME) return;
    const std::uint64_t slot = std::uint64_t{event.cpu} * config_.slots_per_cpu + event.slot;
    if (event.slot >= config_.slots_per_cpu || slot >= entries_.size()) return;
    const datapath::flow_entry& entry = entries_[slot];
    // The slot may have been freed and taken again since: then this is news of the flow in it.
    if (!is_live(load_tag(entry))) return;
    read_slot(static_cast<std::uint32_t>(slot));
    Flow& flow = flows_[slots_[slot].flow];
    if (event.kind == datapath::EVENT_FLOW_VOLUME && flow.announced && flow.total != flow.reported)
        emit(flow, UpdateReason::volume);
    else
        emit_touched();
}

bool FlowDrain::is_over(const Flow& flow, std::uint32_t slot, std::uint64_t now_ns) const {
    const std::uint64_t last = load(entries_[slot].counts.last_seen_ns);
    if (now_ns <= last) return false;
    auto limit = static_cast<std::uint64_t>(config_.idle_timeout.count());
    const std::uint64_t used = section_used_[slot / config_.slots_per_cpu];
    if (used * PRESSURE_DENOMINATOR > config_.slots_per_cpu * PRESSURE_NUMERATOR) limit /= 4;
    const bool both_fin = (flow.tcp_flags_out & flow.tcp_flags_in & datapath::TCP_FIN) != 0;
    const bool reset = ((flow.tcp_flags_out | flow.tcp_flags_in) & datapath::TCP_RST) != 0;
    if (both_fin || reset)
        limit = std::min(limit, static_cast<std::uint64_t>(config_.closed_timeout.count()));
    return now_ns - last > limit;
}

void FlowDrain::visit(std::uint32_t slot, std::uint64_t now_ns) {
    datapath::flow_entry& entry = entries_[slot];
    const std::uint32_t tag = load_tag(entry);
    if (tag == datapath::FLOW_FREE) return;
    if (!is_live(tag)) {
        // CLOSING, and not by us: a predecessor died before it freed the slot.
        if (slots_[slot].flow != NONE) return;
        read_slot(slot);
        fresh_.push_back(slot);
        return;
    }
    read_slot(slot);
    if (!is_over(flows_[slots_[slot].flow], slot, now_ns)) return;
    __atomic_store_n(&entry.head.tag, static_cast<std::uint32_t>(datapath::FLOW_CLOSING), __ATOMIC_RELEASE);
    fresh_.push_back(slot);
}

bool FlowDrain::scan(std::size_t slots_max, std::uint64_t now_ns) {
    const std::size_t end = std::min(entries_.size(), cursor_ + slots_max);
    for (; cursor_ < end; cursor_++) visit(static_cast<std::uint32_t>(cursor_), now_ns);
    emit_touched();
    if (cursor_ < entries_.size()) return false;
    cursor_ = 0;
    return true;
}

// The last read of a slot, which nobody writes any more.
void FlowDrain::free_slot(std::uint32_t slot) {
    read_slot(slot);
    const std::uint32_t number = slots_[slot].flow;
    Flow& flow = flows_[number];
    std::uint32_t* link = &flow.first_slot;
    while (*link != slot) link = &slots_[*link].next;
    *link = slots_[slot].next;
    slots_[slot] = Slot{};
    slots_used_--;
    section_used_[slot / config_.slots_per_cpu]--;
    __atomic_store_n(&entries_[slot].head.tag, static_cast<std::uint32_t>(datapath::FLOW_FREE),
                     __ATOMIC_RELEASE);
    __atomic_store_n(&tag_copy(slot), static_cast<std::uint32_t>(datapath::FLOW_FREE), __ATOMIC_RELEASE);
    if (--flow.slots != 0) return;
    if (!flow.announced) emit(flow, UpdateReason::created);
    emit(flow, UpdateReason::ended);
    index_.erase(flow.key);
    free_flows_.push_back(number);
}

void FlowDrain::advance_closing() {
    if (!waiting_.empty()) {
        if (!grace_.done()) return;
        for (const std::uint32_t slot : waiting_) free_slot(slot);
        waiting_.clear();
        emit_touched();
    }
    if (fresh_.empty()) return;
    waiting_.swap(fresh_);
    grace_.begin();
}

void FlowDrain::finish() {
    for (std::uint32_t slot = 0; slot < entries_.size(); slot++)
        if (load_tag(entries_[slot]) != datapath::FLOW_FREE) free_slot(slot);
    emit_touched();
    fresh_.clear();
    waiting_.clear();
    cursor_ = 0;
}

// Each CPU may have a section of the flow.
datapath::flow_sender FlowDrain::sender_of(const datapath::flow_key& key) const noexcept {
    if (!config_.knows_senders) return {};
    const FlowPlace place = place_of(key, config_.hash_seed, config_.slots_per_cpu);
    for (std::size_t section = 0; section < entries_.size(); section += config_.slots_per_cpu)
        for (const std::uint32_t bucket : place.buckets)
            for (std::size_t slot = section + bucket; slot < section + bucket + datapath::FLOW_PROBES; ++slot)
                if (load_tag(entries_[slot]) == place.tag && KeyEqual{}(entries_[slot].head.key, key) &&
                    senders_[slot].outcome != datapath::SENDER_UNSEEN)
                    return senders_[slot];
    return {};
}

void FlowDrain::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    // A step smaller than a packet would only make more events.
    constexpr std::uint64_t STEP_BYTES_MIN = 1500;
    const auto at = index_.find(key);
    if (at == index_.end()) return;
    const Flow& flow = flows_[at->second];
    // What is missing may come through any of the flow's sections: each gets its share of it.
    const std::uint64_t missing = bytes_out > flow.total.bytes_out ? bytes_out - flow.total.bytes_out : 0;
    const std::uint64_t share = std::max(missing / std::max(flow.slots, 1U), STEP_BYTES_MIN);
    for (std::uint32_t slot = flow.first_slot; slot != NONE; slot = slots_[slot].next) {
        const std::uint64_t wanted = slots_[slot].read.bytes_out + share;
        if (wanted < load(entries_[slot].counts.notify_bytes_out))
            __atomic_store_n(&entries_[slot].counts.notify_bytes_out, wanted, __ATOMIC_RELAXED);
    }
}

}  // namespace egresswatch::capture
