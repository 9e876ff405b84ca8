// classifier/flow_table_state.h - what a FlowTable consists of. Internal to classifier/: flow_table.cpp adds
// packets, flow_table_repeats.cpp those that repeat, flow_table_clock.cpp tells the sink,
// flow_table_memory.cpp makes room. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "classifier/classify_step.h"
#include "classifier/first_sender.h"
#include "classifier/payload_sample.h"
#include "classifier/single_flow.h"
#include "classifier/table_platform.h"
#include "classifier/tuple_sums.h"

namespace egresswatch {

constexpr std::uint64_t second_ns = 1'000'000'000;

static_assert(sizeof(CounterHalves) == sizeof(FlowCounters) &&
              offsetof(FlowCounters, packets_in) == sizeof(Halves));
[[nodiscard]] inline CounterHalves counters_of(const datapath::flow_counts& counts) noexcept {
    return {Halves{counts.packets_out, counts.bytes_out}, Halves{counts.packets_in, counts.bytes_in}};
}

struct FlowTable::State : datapath::TablePlatform {
    // A flow with packets since the last tick, and where it stands in `told` what the sink knew of it before.
    struct Moved {
        std::uint32_t number;
        std::uint32_t told;  // no_told: nothing, it is new
    };
    static constexpr std::uint32_t no_told = 0xffffffff;
    // A flow's place in the wheel: entry numbers.
    struct Timer {
        std::uint32_t next;
        std::uint32_t previous;  // `wheel_head` | index into the wheel, where it is the first
    };
    static constexpr std::uint32_t wheel_head = 0x80000000;

    explicit State(FlowTableConfig given);

    // Packets.
    void take(const ClassifiedBatch::Content& batch, std::span<const PacketInput> packets, FlowSink& sink);
    void take_one(const ClassifiedPacket& packet, const PacketInput& its_input, std::uint32_t likely,
                  const datapath::flow_outer*& carriers, FlowSink& sink);
    std::uint32_t account_chunk(std::span<const PacketInput> packets, std::span<const ReadPacket> chunk,
                                InterfaceTally& tally, FlowSink& sink);
    [[nodiscard]] bool begin_sum(KnownTuple& tuple, TupleSum& sum);
    void settle_sum(const KnownTuple& tuple, TupleSum& sum, InterfaceTally& tally);
    [[nodiscard]] std::size_t account_repeats(std::span<const PacketInput> packets, InterfaceTally& tally,
                                              FetchAhead& fetch);
    void note_verdict(const ReadPacket& seen, bool is_known);
    void add_known(const PacketInput& packet, const ReadPacket& seen, FlowSink& sink);
    [[nodiscard]] bool is_entry_of(KnownTuple& tuple) const noexcept;
    [[nodiscard]] std::uint32_t classify_chunk(std::span<const PacketInput> packets,
                                               std::span<const ReadPacket> chunk, InterfaceTally& tally);
    [[nodiscard]] std::array<std::uint32_t, chunk_max> look_ahead(
        std::span<const ClassifiedPacket* const> chunk) noexcept;
    void reach(std::uint64_t at_ns, FlowSink& sink);
    void decide(std::span<const ClassifiedPacket*> chunk, const UndecidedPacket* next);
    void add(const ClassifiedPacket& packet, std::uint32_t likely_entry, FlowSink& sink);
    [[nodiscard]] std::uint32_t make(const ClassifiedPacket& packet);
    [[nodiscard]] std::uint32_t make_in_bucket(const ClassifiedPacket& packet, std::uint64_t position);
    [[nodiscard]] std::uint32_t make_elsewhere(const ClassifiedPacket& packet);
    [[nodiscard]] std::uint32_t make_anywhere(const ClassifiedPacket& packet);
    void find_payload_sink(FlowSink& sink) noexcept;
    void offer_question(const ClassifiedPacket& packet);
    void offer_payload(const ClassifiedPacket& packet, std::uint32_t number);
    // For every packet, and for most of them not so: without a branch, since half of them have no payload.
    [[nodiscard]] bool wants_payload(const ClassifiedPacket& packet, std::uint32_t number) const noexcept {
        return ((packet.payload_bytes != 0) & ~(heard_bits[number / 64] >> number % 64) & 1) != 0;
    }
    // The same of the next packet of a known tuple, for an entry that is its flow's; or true for want of
    // looking.
    [[nodiscard]] bool may_want_payload(const KnownTuple& tuple, std::uint32_t number) const noexcept {
        const std::uint64_t before = counts[number].packets_out + counts[number].packets_in;
        if (LIKELY(before >= tuple.sampled)) return UNLIKELY(tuple.sampled == sampled_always);
        return tuple.sampled == sampled_always || (heard_bits[number / 64] >> number % 64 & 1) == 0;
    }
    void remember(const ClassifiedPacket& packet, std::uint32_t number) noexcept;
    // Whether the entry is that of a living flow with this key.
    [[nodiscard]] bool is_flow(std::uint32_t number, const datapath::flow_key& key) const noexcept {
        return LIKELY(heads[number].tag != datapath::FLOW_FREE) &&
               LIKELY(datapath::flow_key_equal(&heads[number].key, &key));
    }
    void begin_counts(std::uint32_t number) noexcept;
    [[nodiscard]] CounterHalves counters(std::uint32_t number) const noexcept {
        return is_single(heads[number]) ? single_counters(heads[number]) : counters_of(counts[number]);
    }
    [[nodiscard]] std::uint64_t last_seen_ns(std::uint32_t number) const noexcept {
        return is_single(heads[number]) ? heads[number].first_seen_ns : counts[number].last_seen_ns;
    }
    [[nodiscard]] std::uint32_t find_tag(std::uint64_t hash) const noexcept;
    [[nodiscard]] bool may_be_elsewhere(std::uint64_t hash) const noexcept;
    [[nodiscard]] std::uint32_t find(const datapath::flow_key& key, std::uint64_t hash) const noexcept;

    // Memory.
    void set_limits();
    [[nodiscard]] bool make_room(std::uint64_t hash);
    bool grow();  // false: as large as it may be
    // `spilled`: slots of flows that are in their second bucket.
    void split_spilled(std::uint32_t first, std::uint32_t slots, std::vector<std::uint32_t>& spilled);
    [[nodiscard]] bool move_home(std::uint32_t from) noexcept;
    void move_home(std::vector<std::uint32_t>& spilled) noexcept;
    void move_flow(std::uint32_t from, std::uint32_t to) noexcept;
    [[nodiscard]] std::uint32_t slot_of(std::uint32_t number) noexcept;
    // The first slot of the bucket that a hash position lies in.
    [[nodiscard]] std::uint32_t bucket_at(std::uint64_t position) const noexcept {
        return static_cast<std::uint32_t>(position) & slot_mask & ~(std::uint32_t{datapath::FLOW_PROBES} - 1);
    }
    void extend_entries();
    void free_entry(std::uint32_t number);
    void count_end() noexcept {
        if (ends != ends_max) ++ends;
    }
    void clear();  // gives the memory back

    // Clock.
    void advance_to(std::uint64_t at_ns, FlowSink& sink);
    void report_moved(FlowSink& sink, std::uint64_t at_ns);
    void report(const std::vector<std::uint32_t>& numbers, UpdateReason reason, FlowSink& sink,
                std::uint64_t at_ns, bool more_follow = false);
    void report_all_in_order(FlowSink& sink);
    void run_timers(FlowSink& sink, std::uint64_t at_ns);
    void schedule(std::uint32_t number);
    void unschedule(std::uint32_t number);
    [[nodiscard]] std::uint64_t idle_limit_ns(std::uint32_t number) const noexcept;
    [[nodiscard]] bool is_closed(std::uint32_t number) const noexcept;
    void sort(std::vector<std::uint32_t>& numbers) const;
    [[nodiscard]] bool before(std::uint32_t a, std::uint32_t b) const noexcept;
    void prefetch(std::uint32_t number) const noexcept;
    void prefetch_head(std::uint32_t number) const noexcept { __builtin_prefetch(&heads[number]); }
    // Once its head is there.
    void prefetch_counts(std::uint32_t number) const noexcept {
        if (!is_single(heads[number])) __builtin_prefetch(&counts[number]);
    }
    void push_update(std::uint32_t number, const CounterHalves& total, const CounterHalves& delta,
                     UpdateReason reason);
    void tell_volume(std::uint32_t number, FlowSink& sink);
    void note_moved(std::uint32_t number) {
        moved_bits[number / 64] |= std::uint64_t{1} << number % 64;
        moved_at[number] = static_cast<std::uint32_t>(moved_count);
    }
    void note_new(std::uint32_t number) {
        note_moved(number);
        moved[moved_count++] = {number, no_told};
    }
    void note_known(std::uint32_t number);
    [[nodiscard]] bool has_moved(std::uint32_t number) const noexcept {
        return (moved_bits[number / 64] >> number % 64 & 1) != 0;
    }
    void deliver(FlowSink& sink, std::uint64_t at_ns);

    FlowTableConfig config;
    datapath::section_state section{};
    datapath::walk_state walk{};
    LocalNetworks networks;
    KnownTuples known;
    static constexpr std::size_t sums_max = 64;              // that are begun at a time
    static constexpr std::uint64_t bytes_unlimited = ~0ull;  // TupleSum::bytes_left
    // Where a run of repeating tuples ended before so many packets, or had more than half as many tuples as
    // packets, the chunk behind it and so many more go the general way before the next run is tried.
    static constexpr std::size_t repeats_min = 16;
    static constexpr std::uint32_t repeats_pause = 32;
    std::uint32_t repeats_wait = 0;
    ZeroedArray<TupleSum> sums{KnownTuples::places_max};
    bool none_known = false;                        // of those that a whole chunk, the last, asked for
    bool none_found = false;                        // of the flows that a whole one looked for
    static constexpr std::size_t asked_of_new = 4;  // one of so many, where all are new: by turns, so that
    std::size_t turn = 0;                           // traffic with a period of its own is noticed, too
    ClassifiedBatch own_batch;
    FirstSenders first_senders;
    std::uint32_t flows_max = 0;
    FlowSink* known_sink = nullptr;  // whose payload_sink is:
    PayloadSink* payload_sink = nullptr;
    const PacketInput* input = nullptr;  // of the packet being added
    std::uint64_t live = 0;
    bool any_freed = false;  // a flow has ended since all were put in their places
    // Entries that became free, so that one which a known tuple found at this number is its flow's still.
    // At ends_max it stays, nothing is believed, and the next account() forgets all tuples.
    static constexpr std::uint16_t ends_max = 0xffff;
    std::uint16_t ends = 1;
    bool made_in_order = true;  // entries by number began one after the other
    std::uint64_t last_made_ns = 0;

    // By entry number, beside `heads`, `counts` and `outers`.
    ZeroedArray<Timer> timers;
    ZeroedArray<std::uint64_t> moved_bits;
    ZeroedArray<std::uint32_t> moved_at;  // index into `moved`, where the bit is set
    ZeroedArray<Moved> moved;  // the first `moved_count`, in the order of their first packet since the tick
    ZeroedArray<CounterHalves> told;  // the first `told_count`
    std::size_t moved_count = 0;
    std::uint32_t told_count = 0;
    ZeroedArray<std::uint64_t>
        heard_bits;                    // the sink wants no more payload, or has been given as much as it gets
    std::vector<std::uint32_t> wheel;  // first of a list, by second at which something may be due

    // What the sink is being told: the first `updates_count`.
    std::vector<FlowUpdate> updates = std::vector<FlowUpdate>(updates_max);
    std::array<std::uint32_t, updates_max> update_entries;  // of each its entry
    std::size_t updates_count = 0;
    std::uint64_t now_max_ns = 0;
    std::uint64_t sink_now_ns = 0;   // what the sink was told last; never goes back
    std::uint64_t next_tick_ns = 0;  // 0: no packet yet
    std::uint64_t timers_done_second = 0;

    // Of a chunk: packets whose direction the order decides, once decided; and their outer addresses.
    std::vector<ClassifiedPacket> decided;
    std::vector<datapath::flow_outer> decided_outers;
    PacketVerdict verdict;               // of the last packet
    datapath::packet_class described{};  // scratch of make()
};

}  // namespace egresswatch
