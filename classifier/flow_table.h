// classifier/flow_table.h - the data path for user space: counts packets into totals and flows, hands up
// news.
//
// In:       packets in the order of their capture, with the place where their first header is.
// Out:      totals per class and interface, losses; FlowUpdates to a FlowSink.
// Clock:    packet time. Every full second of it is a tick: flows that moved since the last one are reported,
//           idle ones ended. Crossing notify_bytes_out is reported at once. The order of updates depends on
//           the packets alone, not on how they came in batches nor on the size of the table.
// Threads:  one owner.
// Limits:   slots_max: a flow that finds no slot in a table that may not grow counts to the totals and to
//           LOSS_FLOWS_FULL. Memory: about 210 B a slot, at most half of the slots in use while it grows.
// Not here: what a header means (datapath/), where packets come from (capture/).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"
#include "classifier/flow_update.h"
#include "classifier/link_type.h"

namespace egresswatch {

struct FlowTableConfig {
    static constexpr std::uint32_t slots_floor = 64;
    static constexpr std::uint32_t slots_ceiling = 1u << 26;  // 14 GB

    std::uint32_t slots_start = 1u << 12;  // powers of two
    std::uint32_t slots_max = 1u << 24;    // at most 3.5 GB, and only with 8 million flows at once
    bool track_all = false;                // home and local flows get entries too
    std::uint64_t hash_seed = 0;
    // A flow without packets for so long ends at the next tick, and its next packet begins a new one. Zero:
    // never.
    std::chrono::seconds idle_timeout{0};
    // Addresses of our end. Where these do not decide (empty; both ends; neither), the carrier's addresses of
    // a tunnelled packet are asked, then who was seen sending first.
    std::vector<Prefix> local_networks{};
};

struct PacketInput {
    std::span<const std::uint8_t> bytes;  // captured part, from the link header on
    std::uint32_t wire_bytes = 0;
    std::uint32_t interface = 0;  // index of its counters, see interface_totals()
    std::uint32_t ifindex = 0;    // as FlowUpdate::ifindex
    std::uint64_t at_ns = 0;      // since the epoch
    LinkPlace link;
    std::uint8_t direction = 2;  // enum direction, or 2: by address
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
    explicit FlowTable(FlowTableConfig config);
    FlowTable(FlowTable&&) noexcept;
    FlowTable& operator=(FlowTable&&) noexcept;
    ~FlowTable();

    // The block must outlive its use here. Flows of class ids that it does not have stay what they are.
    void install_region(std::span<const std::byte> block) noexcept;

    // Counts the packets, and on the way reports to the sink what ticks and volumes call for.
    void account(std::span<const PacketInput> packets, FlowSink& sink);
    // Time without packets: the ticks up to `at_ns` are due. A time before the last tick changes nothing.
    void advance(std::uint64_t at_ns, FlowSink& sink);
    // Reports what moved since the last tick; `now` is the time of the last packet.
    void drain(FlowSink& sink);
    // The last update (reason ended) of every flow, in order of first_seen and key. The table is empty then.
    void finish(FlowSink& sink);

    // Best effort: nothing happens where the flow has no entry or an earlier notification is due.
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept;

    [[nodiscard]] std::span<const datapath::class_totals> class_totals() const noexcept;  // index: class id
    [[nodiscard]] std::span<const datapath::iface_totals> interface_totals() const noexcept;
    [[nodiscard]] std::span<const std::uint64_t> losses() const noexcept;          // index: enum loss_reason
    [[nodiscard]] std::span<const datapath::flow_entry> entries() const noexcept;  // all slots
    [[nodiscard]] std::span<const datapath::flow_outer> outers() const noexcept;
    [[nodiscard]] std::uint64_t live() const noexcept;
    [[nodiscard]] std::uint64_t directions_forgotten() const noexcept;  // see first_sender.h
    [[nodiscard]] Timestamp now() const noexcept;                       // largest packet time seen
    [[nodiscard]] PacketVerdict last_verdict() const noexcept;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch
