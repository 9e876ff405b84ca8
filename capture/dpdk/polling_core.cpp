// capture/dpdk/polling_core.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/polling_core.h"

#include <linux/capability.h>
#include <pthread.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_pause.h>
#include <rte_prefetch.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <limits>
#include <type_traits>
#include <utility>

#include "classifier/datapath/sample.h"

namespace egresswatch::capture {
namespace {

static_assert(std::is_trivially_copyable_v<FlowUpdate> && sizeof(FlowUpdate) % 4 == 0,
              "rte_ring copies elements as 32-bit words");
constexpr unsigned long TIMER_SLACK_NS = 1000;  // the default, 50 us, would make half a sleep more of each

// A thread has a set of capabilities of its own. What needed them is open; frames are parsed without any.
void give_up_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
    ::syscall(SYS_capset, &header, none);
}

std::expected<rte_ring*, OsError> make_ring(const std::string& name, unsigned element_bytes,
                                            unsigned elements) {
    rte_ring* ring = rte_ring_create_elem(name.c_str(), element_bytes, elements, SOCKET_ID_ANY,
                                          RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
    if (ring != nullptr) return ring;
    return std::unexpected(
        OsError{"make a ring", name, rte_errno, "raise memory_mb or the number of huge pages"});
}

}  // namespace

// To the owner. Where the ring is full the core waits until the owner has taken, which is counted: packets
// wait in the port's queue meanwhile, and what finds no place there is counted by the port.
class PollingCore::RingSink final : public FlowSink, public PayloadSink {
public:
    RingSink(rte_ring* ring, rte_ring* samples, DpdkCoreStatus& status)
        : ring_(ring), samples_(samples), status_(status) {}

    bool on_payload(const PayloadSample& sample) noexcept override {
        const auto window =
            static_cast<std::uint64_t>(sample.at.time_since_epoch().count()) >> datapath::SAMPLE_WINDOW_SHIFT;
        if (window != window_) {
            window_ = window;
            in_window_ = 0;
        }
        if (in_window_ == datapath::SAMPLES_A_WINDOW) {
            status_.samples_limited++;
            return true;
        }
        in_window_++;
        sample_.head = sample;
        sample_.head.payload = {};
        sample_.after = status_.updates;
        sample_.payload_bytes =
            static_cast<std::uint32_t>(std::min<std::size_t>(sample.payload.size(), payload_bytes_max));
        std::memcpy(sample_.payload.data(), sample.payload.data(), sample_.payload_bytes);
        if (rte_ring_sp_enqueue_elem(samples_, &sample_, sizeof sample_) == 0)
            status_.samples++;
        else
            status_.samples_full++;
        return true;
    }

    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
        while (!updates.empty()) {
            const unsigned told = rte_ring_sp_enqueue_burst_elem(
                ring_, updates.data(), sizeof(FlowUpdate), static_cast<unsigned>(updates.size()), nullptr);
            status_.updates += told;
            updates = updates.subspan(told);
            if (updates.empty()) return;
            status_.updates_delayed += updates.size();
            rte_pause();
            ::sched_yield();
        }
    }

private:
    rte_ring* ring_;
    rte_ring* samples_;
    DpdkCoreStatus& status_;
    std::uint64_t window_ = 0, in_window_ = 0;  // packet time, and samples in it
    Sample sample_{};
};

// One burst.
struct PollingCore::Scratch {
    std::array<rte_mbuf*, DpdkConfig::burst_max> mbufs{};
    std::vector<PacketInput> inputs;
    std::vector<std::uint8_t> copies;  // header_bytes_max for each packet of a burst
};

std::expected<std::unique_ptr<PollingCore>, OsError> PollingCore::make(const DpdkConfig& config,
                                                                       unsigned number, unsigned cpu,
                                                                       std::vector<PolledQueue> queues,
                                                                       std::size_t interfaces,
                                                                       const PacketClock& clock) {
    std::unique_ptr<PollingCore> core(
        new PollingCore(config, number, cpu, std::move(queues), interfaces, clock));
    auto updates = make_ring("ew_updates_" + std::to_string(number), sizeof(FlowUpdate), config.updates_ring);
    if (!updates) return std::unexpected(updates.error());
    core->updates_ = *updates;
    auto notifications = make_ring("ew_notify_" + std::to_string(number), sizeof(Notification), notify_max);
    if (!notifications) return std::unexpected(notifications.error());
    core->notifications_ = *notifications;
    if (config.table.sample_payload) {
        auto samples = make_ring("ew_samples_" + std::to_string(number), sizeof(Sample), samples_max);
        if (!samples) return std::unexpected(samples.error());
        core->samples_ = *samples;
    }
    core->sink_ = std::make_unique<RingSink>(core->updates_, core->samples_, core->status_);
    if (config.time == DpdkTime::device) {
        core->timestamp_offset_ = rte_mbuf_dynfield_lookup(RTE_MBUF_DYNFIELD_TIMESTAMP_NAME, nullptr);
        if (core->timestamp_offset_ < 0)
            return std::unexpected(OsError{"use the device's time", "", ENOTSUP, "write time: clock"});
    }
    return core;
}

PollingCore::PollingCore(const DpdkConfig& config, unsigned number, unsigned cpu,
                         std::vector<PolledQueue> queues, std::size_t interfaces, const PacketClock& clock)
    : config_(config),
      number_(number),
      queues_(std::move(queues)),
      clock_(clock),
      table_(config.table),
      scratch_(std::make_unique<Scratch>()) {
    status_.cpu = cpu;
    scratch_->inputs.resize(config.burst);
    scratch_->copies.resize(std::size_t{config.burst} * header_bytes_max);
    counters_.by_class.resize(datapath::CLASSES_MAX);
    counters_.by_interface.resize(interfaces);
}

PollingCore::~PollingCore() {
    join();
    rte_ring_free(updates_);
    rte_ring_free(notifications_);
    rte_ring_free(samples_);
}

// ------------------------------------------------------------------------------------------------ the owner

void PollingCore::launch(std::span<const std::byte> region) {
    table_.install_region(region);
    thread_ = std::thread([this] {
        run();
        finished_.store(true, std::memory_order_release);
    });
}

void PollingCore::join() noexcept {
    if (thread_.joinable()) thread_.join();
}

void PollingCore::Sample::tell(PayloadSink& sink) noexcept {
    head.payload = {payload.data(), payload_bytes};
    (void)sink.on_payload(head);
}

void PollingCore::take_samples(PayloadSink& sink) {
    if (samples_ == nullptr) return;
    static_assert(std::is_trivially_copyable_v<Sample> && sizeof(Sample) % 4 == 0);
    Sample sample;
    for (unsigned most = samples_max; most != 0; --most) {
        if (rte_ring_sc_dequeue_elem(samples_, &sample, sizeof sample) != 0) return;
        if (speaks_to_name_server(sample.head.key))
            sample.tell(sink);
        else
            samples_taken_.push_back(sample);
    }
}

std::size_t PollingCore::updates_before_sample() const noexcept {
    return samples_taken_.empty() ? std::numeric_limits<std::size_t>::max()
                                  : samples_taken_.front().after - updates_told_;
}

void PollingCore::tell_sample(PayloadSink& sink) noexcept {
    samples_taken_.front().tell(sink);
    samples_taken_.pop_front();
}

std::size_t PollingCore::take(std::vector<FlowUpdate>& to, std::size_t most) {
    const std::size_t before = to.size();
    const std::size_t there = std::min<std::size_t>(rte_ring_count(updates_), most);
    if (there == 0) return 0;
    to.resize(before + there);
    const unsigned taken = rte_ring_sc_dequeue_burst_elem(updates_, to.data() + before, sizeof(FlowUpdate),
                                                          static_cast<unsigned>(there), nullptr);
    to.resize(before + taken);
    return taken;
}

void PollingCore::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    const Notification wanted{key, bytes_out};
    (void)rte_ring_sp_enqueue_elem(notifications_, const_cast<Notification*>(&wanted), sizeof wanted);
}

void PollingCore::offer_region(std::span<const std::byte> region) noexcept {
    region_.block = region;
    region_offered_.fetch_add(1, std::memory_order_release);
}

bool PollingCore::region_taken() const noexcept {
    return finished() ||
           region_in_use_.load(std::memory_order_acquire) == region_offered_.load(std::memory_order_relaxed);
}

// ------------------------------------------------------------------------------------------------ the core

bool PollingCore::prepare_thread() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    ::pthread_setname_np(::pthread_self(), ("ew-poll-" + std::to_string(number_)).c_str());
    ::prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(status_.cpu, &cpus);
    if (::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus) != 0) {
        trouble_ = "CPU " + std::to_string(status_.cpu) + " cannot be used";
        return false;
    }
    // Gives the thread a number of its own, and with it its caches of the memory pools.
    if (rte_thread_register() != 0) {
        trouble_ = std::string("DPDK does not take another thread: ") + std::strerror(rte_errno);
        return false;
    }
    give_up_capabilities();
    return true;
}

void PollingCore::run() {
    if (prepare_thread()) {
        while (!stop_.load(std::memory_order_relaxed)) {
            serve_owner();
            const std::uint64_t wanted = catch_up_wanted_.load(std::memory_order_acquire);
            const unsigned packets = poll_once();
            if (!backlog_ && wanted != catch_up_done_.load(std::memory_order_relaxed))
                catch_up_done_.store(wanted, std::memory_order_release);
            if (packets != 0) {
                idle_polls_ = 0;
                continue;
            }
            pass_idle_time();
        }
    }
    catch_up_done_.store(std::numeric_limits<std::uint64_t>::max(), std::memory_order_release);
    table_.finish(*sink_);
    publish_time();
    copy_counters();
    rte_thread_unregister();
}

unsigned PollingCore::poll_once() {
    unsigned packets = 0;
    backlog_ = false;
    for (const PolledQueue& queue : queues_) {
        rte_mbuf** mbufs = scratch_->mbufs.data();
        const unsigned count = rte_eth_rx_burst(queue.port, queue.queue, mbufs, config_.burst);
        status_.polls++;
        if (count == 0) {
            status_.polls_empty++;
            continue;
        }
        account(queue, mbufs, count);
        packets += count;
        backlog_ |= count >= std::min<unsigned>(config_.burst, whole_burst_max);
    }
    return packets;
}

void PollingCore::account(const PolledQueue& queue, rte_mbuf** mbufs, unsigned count) {
    for (unsigned i = 0; i < count; ++i) rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], const void*));
    if (config_.time == DpdkTime::clock) last_ns_ = std::max(last_ns_, clock_.now_ns());
    for (unsigned i = 0; i < count; ++i) describe(queue, mbufs[i], i, last_ns_);
    table_.account({scratch_->inputs.data(), count}, *sink_);
    rte_pktmbuf_free_bulk(mbufs, count);
    status_.packets += count;
    publish_time();
}

void PollingCore::describe(const PolledQueue& queue, rte_mbuf* mbuf, unsigned place, std::uint64_t now_ns) {
    PacketInput& input = scratch_->inputs[place];
    input.bytes = {rte_pktmbuf_mtod(mbuf, const std::uint8_t*), mbuf->data_len};
    input.wire_bytes = mbuf->pkt_len;
    input.interface = queue.interface;
    input.ifindex = queue.ifindex;
    input.link = {LinkStart::ethernet, 0, 0};
    input.at_ns = now_ns;
    if (timestamp_offset_ >= 0)  // net_pcap: microseconds since the epoch
        input.at_ns = *RTE_MBUF_DYNFIELD(mbuf, timestamp_offset_, rte_mbuf_timestamp_t*) * 1000;
    if (mbuf->nb_segs == 1 && mbuf->data_len == mbuf->pkt_len) [[likely]]
        return;
    status_.segmented++;
    if (mbuf->pkt_len > header_bytes_max) status_.cut++;
    if (mbuf->data_len >= header_bytes_max) return;  // the first one is enough
    const std::uint32_t wanted = std::min(mbuf->pkt_len, header_bytes_max);
    std::uint8_t* copy = scratch_->copies.data() + std::size_t{place} * header_bytes_max;
    const void* there = rte_pktmbuf_read(mbuf, 0, wanted, copy);
    // Null: the mbufs hold less than they say. Then what the first one holds is all there is.
    if (there != nullptr) input.bytes = {static_cast<const std::uint8_t*>(there), wanted};
}

void PollingCore::serve_owner() {
    if (const std::uint64_t offered = region_offered_.load(std::memory_order_acquire);
        offered != region_in_use_.load(std::memory_order_relaxed)) {
        table_.install_region(region_.block);
        region_in_use_.store(offered, std::memory_order_release);
    }
    Notification wanted;
    while (rte_ring_sc_dequeue_elem(notifications_, &wanted, sizeof wanted) == 0)
        table_.notify_at(wanted.key, wanted.bytes_out);
    if (counters_wanted_.load(std::memory_order_relaxed) != counters_done_.load(std::memory_order_relaxed))
        copy_counters();
}

void PollingCore::copy_counters() {
    const std::uint64_t wanted = counters_wanted_.load(std::memory_order_relaxed);
    std::ranges::copy(table_.class_totals(), counters_.by_class.begin());
    const auto interfaces = table_.interface_totals();
    std::copy_n(interfaces.begin(), std::min(interfaces.size(), counters_.by_interface.size()),
                counters_.by_interface.begin());
    std::ranges::copy(table_.losses(), counters_.losses.begin());
    counters_.flow_slots = table_.slots();
    counters_.status = status_;
    counters_.status.flows_live = table_.live();
    counters_done_.store(wanted, std::memory_order_release);
}

void PollingCore::pass_idle_time() {
    if (config_.time == DpdkTime::clock) {
        last_ns_ = std::max(last_ns_, clock_.now_ns());
        table_.advance(last_ns_, *sink_);
        publish_time();
    }
    if (config_.idle == DpdkIdle::spin || ++idle_polls_ < idle_polls_max) {
        rte_pause();
        return;
    }
    status_.sleeps++;
    const timespec pause{0, idle_sleep_ns};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

void PollingCore::publish_time() noexcept {
    const auto table_ns = static_cast<std::uint64_t>(table_.now().time_since_epoch().count());
    now_ns_.store(std::max(last_ns_, table_ns), std::memory_order_release);
}

}  // namespace egresswatch::capture
