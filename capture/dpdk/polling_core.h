// capture/dpdk/polling_core.h - one core: its queues, its flow table, its counters. Nothing of it is shared.
//
// In:       bursts of its queues.   Out: updates in a ring to the owner, counters when the owner asks.
// Threads:  run() is the core's; everything else the owner's. Between them: the two rings, and words of which
//           each has one writer.
// Limits:   samples of payload, with sample_payload: as many in a stretch of packet time as the kernel
// programs
//           hand over (datapath/sample.h), payload_bytes_max of each, samples_max on their way to the owner;
//           what is beyond is counted, its flow may stay without a name.
//           The ring of updates: where it is full the core waits until the owner has taken, counted. The ring
//           of notifications (notify_max): beyond it they are left out, as Engine::notify_at allows.
// Not here: which queues (dpdk_engine.cpp), merging what two cores tell of one flow (flow_merge.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "capture/dpdk/dpdk_engine.h"
#include "capture/dpdk/packet_clock.h"
#include "classifier/payload_sample.h"

struct rte_mbuf;
struct rte_ring;

namespace egresswatch::capture {

// A queue that a core polls.
struct PolledQueue {
    std::uint16_t port = 0;  // DPDK's number
    std::uint16_t queue = 0;
    std::uint32_t interface = 0;  // index of its counters
    std::uint32_t ifindex = 0;
};

// What a core had counted at one instant.
struct CoreCounters {
    std::vector<datapath::class_totals> by_class;
    std::vector<datapath::iface_totals> by_interface;
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses{};
    std::uint64_t flow_slots = 0;
    DpdkCoreStatus status;
};

class PollingCore {
public:
    static constexpr unsigned notify_max = 4096;
    static constexpr unsigned samples_max = 1024;
    static constexpr std::uint32_t payload_bytes_max = 2048;
    // Bytes of a packet in several mbufs that are copied together where the first one is shorter. Deeper than
    // any chain of headers seen in the field; what is behind it counts as not captured.
    static constexpr std::uint32_t header_bytes_max = 1024;
    static constexpr unsigned idle_polls_max = 256;  // polls without a packet before the core sleeps
    // Packets at a time that every driver gives where it has them: a poll with fewer leaves no backlog.
    static constexpr unsigned whole_burst_max = 32;
    static constexpr long idle_sleep_ns =
        100'000;  // at 15 Mpps 1500 packets: less than the default descriptors

    [[nodiscard]] static std::expected<std::unique_ptr<PollingCore>, OsError> make(
        const DpdkConfig& config, unsigned number, unsigned cpu, std::vector<PolledQueue> queues,
        std::size_t interfaces, const PacketClock& clock);
    ~PollingCore();
    PollingCore(const PollingCore&) = delete;
    PollingCore& operator=(const PollingCore&) = delete;

    void launch(std::span<const std::byte> region);
    void ask_to_stop() noexcept { stop_.store(true, std::memory_order_relaxed); }
    [[nodiscard]] bool finished() const noexcept { return finished_.load(std::memory_order_acquire); }
    void join() noexcept;
    // Why the thread ended before its time; empty: it did not.
    [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }

    // Takes the samples that are there: after updates were taken, those of every packet that these count.
    // What name servers say is told at once, for it may be the name of another core's flow; the rest waits
    // for its turn among this core's updates, one of which may end a flow whose key has come again.
    void take_samples(PayloadSink& sink);
    // Of the updates that are not told yet, those before the next sample; without one, more than can be.
    [[nodiscard]] std::size_t updates_before_sample() const noexcept;
    void tell_sample(PayloadSink& sink) noexcept;
    void note_told(std::size_t updates) noexcept { updates_told_ += updates; }
    // Moves what is in the ring behind `to`, at most `most`; returns how many.
    std::size_t take(std::vector<FlowUpdate>& to, std::size_t most);
    // Done when the core has polled its queues anew and none gave a whole burst, or polls no more.
    void ask_to_catch_up() noexcept { catch_up_wanted_.fetch_add(1, std::memory_order_release); }
    [[nodiscard]] bool caught_up() const noexcept {
        return catch_up_done_.load(std::memory_order_acquire) >=
               catch_up_wanted_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t now_ns() const noexcept { return now_ns_.load(std::memory_order_acquire); }
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept;

    void offer_region(std::span<const std::byte> region) noexcept;
    // The core works with the region that was offered last, and has let go of the one before.
    [[nodiscard]] bool region_taken() const noexcept;
    void ask_for_counters() noexcept { counters_wanted_.fetch_add(1, std::memory_order_relaxed); }
    [[nodiscard]] bool counters_ready() const noexcept {
        return counters_done_.load(std::memory_order_acquire) ==
               counters_wanted_.load(std::memory_order_relaxed);
    }
    // Valid while counters_ready() and nobody asks again.
    [[nodiscard]] const CoreCounters& counters() const noexcept { return counters_; }

private:
    class RingSink;
    struct Notification {
        datapath::flow_key key;
        std::uint64_t bytes_out;
    };
    struct Region {
        std::span<const std::byte> block;
    };
    struct Scratch;
    struct Sample {
        PayloadSample head;   // its span is empty: the payload follows
        std::uint64_t after;  // so many updates of this core
        std::uint32_t payload_bytes;
        std::array<std::uint8_t, payload_bytes_max> payload;

        void tell(PayloadSink& sink) noexcept;
    };

    PollingCore(const DpdkConfig& config, unsigned number, unsigned cpu, std::vector<PolledQueue> queues,
                std::size_t interfaces, const PacketClock& clock);
    void run();
    [[nodiscard]] bool prepare_thread();
    [[nodiscard]] unsigned poll_once();
    void account(const PolledQueue& queue, rte_mbuf** mbufs, unsigned count);
    void describe(const PolledQueue& queue, rte_mbuf* mbuf, unsigned place, std::uint64_t now_ns);
    void serve_owner();
    void copy_counters();
    void pass_idle_time();
    void publish_time() noexcept;

    const DpdkConfig& config_;
    const unsigned number_;
    const std::vector<PolledQueue> queues_;
    const PacketClock& clock_;
    std::string trouble_;
    std::thread thread_;
    rte_ring* updates_ = nullptr;
    rte_ring* notifications_ = nullptr;
    rte_ring* samples_ = nullptr;  // with sample_payload

    // The owner's.
    std::deque<Sample> samples_taken_;
    std::uint64_t updates_told_ = 0;

    // The core's own.
    FlowTable table_;
    std::unique_ptr<RingSink> sink_;
    std::unique_ptr<Scratch> scratch_;
    DpdkCoreStatus status_;
    std::uint64_t last_ns_ = 0;
    unsigned idle_polls_ = 0;
    bool backlog_ = false;  // a queue gave a whole burst to the last poll
    int timestamp_offset_ = -1;

    // Between the two; a line each for the writers.
    alignas(64) std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> region_offered_{0};  // how often; the table itself is in region_
    Region region_;
    std::atomic<std::uint64_t> counters_wanted_{0};
    std::atomic<std::uint64_t> catch_up_wanted_{0};
    alignas(64) std::atomic<bool> finished_{false};
    std::atomic<std::uint64_t> region_in_use_{0};
    std::atomic<std::uint64_t> counters_done_{0};
    std::atomic<std::uint64_t> catch_up_done_{0};
    std::atomic<std::uint64_t> now_ns_{0};
    CoreCounters counters_;
};

}  // namespace egresswatch::capture
