// capture/ebpf/drain.h - turns the kernel's flow table into flow updates, and frees its slots.
//
// In:       the mapped table, events.      Out: FlowUpdates, in `updates()` until the caller clears them.
// Threads:  one; the table is written by the kernel meanwhile.
// Exact:    every byte that a slot counted is in exactly one delta. A slot is read last after a grace period
//           behind CLOSING, and only then freed; what comes for the flow meanwhile gets a new slot.
// Limits:   as many flows as slots: 40 B a slot, about 250 B a flow.
// Cost:     one cache line for each slot that did not change since the last scan.
// Not here: where the table comes from (object.h), the sink (ebpf_engine.h). Tested without a kernel.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "classifier/datapath/layout.h"
#include "classifier/datapath/sender.h"
#include "classifier/flow_update.h"

namespace egresswatch::capture {

// What the drain asks of GracePeriod; a test gives its own.
struct GraceCalls {
    std::function<void()> begin;
    std::function<bool()> done;
};

class FlowDrain {
public:
    struct Config {
        std::uint32_t slots_per_cpu = 0;
        std::chrono::nanoseconds idle_timeout{};
        std::chrono::nanoseconds closed_timeout{};
        bool knows_senders = false;   // a program fills `senders`; else they stay unseen
        std::uint64_t hash_seed = 0;  // of the table, for those who search it by key
    };
    // Above this share of a section's slots in use, its flows are idle after a quarter of the time.
    static constexpr std::uint64_t PRESSURE_NUMERATOR = 3, PRESSURE_DENOMINATOR = 4;

    // `tags`: one for each FLOW_PROBES entries.
    FlowDrain(Config config, std::span<datapath::flow_entry> entries, std::span<datapath::flow_tags> tags,
              std::span<const datapath::flow_outer> outers, std::span<const datapath::flow_sender> senders,
              GraceCalls grace);
    // Tables of a predecessor, before anything else: reads every slot, and only then tells the flows, each
    // once and whole.
    void adopt(std::uint64_t now_ns);

    // What to add to the kernel's clock to get time since the epoch; asked of the clocks at every drain.
    void set_epoch_offset(std::chrono::nanoseconds offset) noexcept { epoch_offset_ = offset; }

    // A flow that an event names: read now.
    void on_event(const datapath::flow_event& event);
    // The next part of a pass over the table, `slots_max` slots. True: the pass is complete.
    bool scan(std::size_t slots_max, std::uint64_t now_ns);
    // Frees what was CLOSING, once its grace period is over; begins the next.
    void advance_closing();
    [[nodiscard]] bool closing() const noexcept { return !waiting_.empty() || !fresh_.empty(); }
    // No program runs any more and a grace period is over: reads every slot, ends every flow, frees all.
    void finish();

    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept;

    // Who sends on a flow, as the table has it now: also of one of which no event or pass has told yet.
    [[nodiscard]] datapath::flow_sender sender_of(const datapath::flow_key& key) const noexcept;

    [[nodiscard]] std::vector<FlowUpdate>& updates() noexcept { return updates_; }
    // As many as updates, in their order; to be cleared with them.
    [[nodiscard]] std::vector<datapath::flow_sender>& update_senders() noexcept { return update_senders_; }
    [[nodiscard]] std::uint64_t flows() const noexcept { return index_.size(); }
    [[nodiscard]] std::uint64_t slots_used() const noexcept { return slots_used_; }

private:
    static constexpr std::uint32_t NONE = 0xffffffff;
    struct Slot {  // what was read of it last
        std::uint32_t flow = NONE;
        std::uint32_t next = NONE;  // further slot of the same flow
        FlowCounters read;
    };
    struct Flow {  // all its slots, merged
        datapath::flow_key key{};
        FlowCounters total, reported;
        std::uint64_t first_seen_ns = 0, last_seen_ns = 0;
        std::uint64_t initiator_seen_ns = 0;  // first_seen_ns of the slot that said who opened
        std::uint64_t handshake_out_ns = 0, handshake_in_ns = 0;
        Address outer_local, outer_remote;
        std::uint32_t first_slot = NONE;
        std::uint32_t slots = 0;
        std::uint32_t ifindex = 0;
        std::uint32_t handshake_rtt_us = 0;
        datapath::flow_sender sender{};
        std::uint8_t initiator = 0;
        bool initiator_sure = false;
        std::uint8_t tcp_flags_out = 0, tcp_flags_in = 0;
        bool announced = false;
        bool touched = false;
    };
    struct KeyHash {
        std::size_t operator()(const datapath::flow_key& key) const noexcept;
    };
    struct KeyEqual {
        bool operator()(const datapath::flow_key& a, const datapath::flow_key& b) const noexcept;
    };

    std::uint32_t adopt_slot(std::uint32_t slot);
    void read_slot(std::uint32_t slot);
    void merge_sender(Flow& flow, std::uint32_t slot) const;
    void merge_details(Flow& flow, const datapath::flow_entry& entry);
    static void merge_handshake(Flow& flow, const datapath::flow_entry& entry);
    void touch(std::uint32_t flow);
    void emit(Flow& flow, UpdateReason reason);
    void emit_touched();
    void visit(std::uint32_t slot, std::uint64_t now_ns);
    [[nodiscard]] bool is_over(const Flow& flow, std::uint32_t slot, std::uint64_t now_ns) const;
    void free_slot(std::uint32_t slot);
    void repair_tags() noexcept;
    [[nodiscard]] std::uint32_t& tag_copy(std::uint32_t slot) noexcept;
    [[nodiscard]] Timestamp epoch(std::uint64_t kernel_ns) const noexcept;

    Config config_;
    std::span<datapath::flow_entry> entries_;
    std::span<datapath::flow_tags> tags_;
    std::span<const datapath::flow_outer> outers_;
    std::span<const datapath::flow_sender> senders_;
    GraceCalls grace_;
    std::chrono::nanoseconds epoch_offset_{};
    std::vector<Slot> slots_;
    std::vector<Flow> flows_;
    std::vector<std::uint32_t> free_flows_;
    std::unordered_map<datapath::flow_key, std::uint32_t, KeyHash, KeyEqual> index_;
    std::vector<std::uint32_t> touched_;
    std::vector<std::uint32_t> fresh_, waiting_;  // CLOSING; its grace period has not, has begun
    std::vector<FlowUpdate> updates_;
    std::vector<datapath::flow_sender> update_senders_;
    std::size_t cursor_ = 0;
    std::uint64_t slots_used_ = 0;
    std::vector<std::uint32_t> section_used_;
};

}  // namespace egresswatch::capture
