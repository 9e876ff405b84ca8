// classifier/flow_table.h - the data path for user space: counts packets into totals and flows, hands up
// news.
// SPDX-License-Identifier: Apache-2.0
//
// In:       packets in the order of their capture, with the place where their first header is.
// Out:      totals per class and interface, losses; FlowUpdates to a FlowSink.
// Clock:    packet time. Every full second of it is a tick: flows that moved since the last one are reported,
// then
//           those that have lasted, then ended ones. Crossing notify_bytes_out is reported at once. The order
//           of updates depends on the packets alone, not on how they came in batches nor on the size of the
//           table. The sink gets at most updates_max at a time.
// Threads:  one owner.
// Limits:   slots_max and memory_max_bytes: a flow that finds no room counts to the totals and to
//           LOSS_FLOWS_FULL.
// Memory:   flow_bytes a flow and slot_bytes a slot, 1.6 to 3.2 slots a flow while it grows; for
//           conversations whose direction only the order of packets tells, see first_sender.h; and 3 MiB for
//           known tuples and their sums (known_tuples.h, tuple_sums.h), which no limit counts.
// Growing:  splits every bucket in two at once, in place, some 5 ns a flow. Who may not pause so long starts
// with
//           slots_start = slots_max.
// Not here: what a header means (datapath/), where packets come from (capture/).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "classifier/datapath/layout.h"
#include "classifier/flow_update.h"
#include "classifier/packet_classifier.h"

namespace egresswatch {

struct FlowTableConfig {
    static constexpr std::uint32_t slots_floor = 64;
    static constexpr std::uint32_t slots_ceiling = 1u << 26;
    // An entry (128), its outer addresses (32), timer (8), and for what moved since the last tick
    // its counters before (32), places in lists (12) and a bit.
    static constexpr std::uint64_t flow_bytes = 213;
    static constexpr std::uint64_t slot_bytes = 8;             // tag and number
    static constexpr std::uint64_t memory_floor = 1ull << 20;  // below: taken as this

    std::uint32_t slots_start = 1u << 12;  // powers of two
    std::uint32_t slots_max = 1u << 24;    // 8 million flows: 1.8 GB
    bool track_all = false;                // home and local flows get entries too
    std::uint64_t hash_seed = 0;
    // A flow without packets for so long ends at the next tick, and its next packet begins a new one. Zero:
    // never.
    std::chrono::seconds idle_timeout{0};
    // The same for a TCP flow that was reset, or that both ends have closed.
    std::chrono::seconds closed_timeout{0};
    // A flow that lives is told each time that it is so much older, also when its counters did not move: an
    // active update with a zero delta, which nothing else makes. Zero: never.
    std::chrono::seconds active_timeout{0};
    // See ClassifierConfig.
    std::vector<Prefix> local_networks = default_local_networks();
    bool direction_by_region = false;
    // Hands the payload of the first packets of a flow to the sink, where that is a PayloadSink, and of all
    // packets from and to name servers (port 53), whether their flow is tracked or not.
    bool sample_payload = false;
    // Flows, slots and conversations together stay below this. Zero: what slots_max says. An eighth is for
    // conversations, and up to an eighth may go unused, for slots are a power of two.
    std::uint64_t memory_max_bytes = 0;
};

// What became of the last packet: for tests, which compare packet by packet.
struct PacketVerdict {
    datapath::outcome outcome = datapath::OUTCOME_NOT_IP;
    datapath::direction direction = datapath::DIRECTION_OUT;
    datapath::flow_key key{};  // only where classified
    std::uint64_t ip_bytes = 0;
};

class FlowTable {
public:
    static constexpr std::size_t updates_max = 256;

    explicit FlowTable(FlowTableConfig config);
    FlowTable(FlowTable&&) noexcept;
    FlowTable& operator=(FlowTable&&) noexcept;
    ~FlowTable();

    // The block must outlive its use here. Flows of class ids that it does not have stay what they are. Not
    // from a sink that is being told.
    void install_region(std::span<const std::byte> block) noexcept;

    // Counts the packets, and on the way reports to the sink what ticks and volumes call for. `coming`: bytes
    // that the caller is going to read next, which are fetched from memory meanwhile.
    void account(std::span<const PacketInput> packets, FlowSink& sink,
                 std::span<const std::uint8_t> coming = {});
    // Time without packets: the ticks up to `at_ns` are due. A time before the last tick changes nothing.
    void advance(std::uint64_t at_ns, FlowSink& sink);
    // Reports what moved since the last tick; `now` is the time of the last packet.
    void drain(FlowSink& sink);
    // The last update (reason ended) of every flow, in order of first_seen and key. The table is empty then.
    void finish(FlowSink& sink);

    // The two halves of account(), for engines that classify on other cores: a classifier for one of them,
    // and what it has made of packets, in the order of the packets. Its totals are in the table's once it is
    // absorbed.
    [[nodiscard]] PacketClassifier classifier() const;
    // `packets`: those that the batch was made of.
    void account_classified(const ClassifiedBatch& batch, std::span<const PacketInput> packets,
                            FlowSink& sink);
    void absorb(PacketClassifier classifier);

    // Best effort: nothing happens where the flow has no entry or an earlier notification is due. Cheapest
    // with the key of an update while the sink has it.
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept;

    // Exact between two calls; in the middle of one, as a sink might ask, some packets ahead.
    [[nodiscard]] std::span<const datapath::class_totals> class_totals() const noexcept;  // index: class id
    [[nodiscard]] std::span<const datapath::iface_totals> interface_totals() const noexcept;
    [[nodiscard]] std::span<const std::uint64_t> losses() const noexcept;  // index: enum loss_reason
    [[nodiscard]] std::uint64_t slots() const noexcept;
    // What lies in a slot, its counts written; none, and null, where it is free.
    [[nodiscard]] std::optional<datapath::flow_entry> entry_in(std::uint32_t slot) const noexcept;
    [[nodiscard]] const datapath::flow_outer* outer_in(std::uint32_t slot) const noexcept;
    [[nodiscard]] std::uint64_t live() const noexcept;
    [[nodiscard]] std::uint64_t flows_max() const noexcept;             // what the limits allow
    [[nodiscard]] std::uint64_t directions_forgotten() const noexcept;  // see first_sender.h
    [[nodiscard]] Timestamp now() const noexcept;                       // largest packet time seen
    [[nodiscard]] PacketVerdict last_verdict() const noexcept;          // of account() only

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch
