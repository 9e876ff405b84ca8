// capture/dpdk/dpdk_engine.h - the engine of a tap: polling cores on DPDK ports, a flow table each.
//
// In:       frames of the ports, from mbufs, without a copy.   Out: flow updates, totals, losses.
// Threads:  one owner thread (engine.h), and one polling thread for each core, which run to completion:
// burst,
//           classify, count, free. They share nothing; news goes to the owner through one bounded ring a
//           core.
// Clock:    the monotonic clock, moved to the wall clock; or the device's timestamps (net_pcap).
// Limits:   queues_max, mbufs, flow slots a core, updates_ring. What happens at each: README.md beside this
// file. Owns:     the process's EAL: DPDK can be initialised once in a process, so one engine a process.
// Fails:    OsError with DPDK's own words and the cure; nothing half open stays behind by start().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "capture/engine.h"
#include "classifier/flow_table.h"

namespace egresswatch::capture {

enum class DpdkIdle { sleep, spin };
// How packets come to the queues. automatic: by the device's symmetric hash; where it has none, one core
// polls every queue. queues: whoever fills the queues has put both directions of a flow into one.
enum class DpdkSpread { automatic, queues };
enum class DpdkTime { clock, device };
enum class DpdkLogLevel { debug, info, warning, error };

struct DpdkConfig {
    static constexpr std::uint16_t queues_max =
        64;  // cores, too: the parts of a split flow are bits of a word
    static constexpr std::uint16_t burst_max = 512;

    // Behind what the engine sets itself (--lcores, memory, --in-memory, --no-telemetry): "--vdev=...", "-a
    // ..."
    std::vector<std::string> eal_args{};
    std::vector<std::string> ports{};  // names as DPDK has them; empty: every port that it found
    std::uint16_t queues = 1;          // of each port; queue i of every port belongs to core i
    std::vector<unsigned> cores{};     // CPU numbers, one for each queue; empty: the last ones we may run on
    std::uint32_t mbufs = 0;           // of each queue; 0: descriptors, bursts and caches, and as much again
    std::uint16_t descriptors = 4096;  // of each queue; the device may have fewer
    std::uint16_t burst = 32;
    std::uint16_t mtu = 0;  // 0: as the device has it
    bool promiscuous = true;
    bool huge_pages = true;
    std::uint32_t memory_mb = 0;  // 0: as needed
    DpdkIdle idle = DpdkIdle::sleep;
    DpdkSpread spread = DpdkSpread::automatic;
    DpdkTime time = DpdkTime::clock;
    std::uint32_t updates_ring = 1u << 15;  // updates on their way to the owner, of each core
    FlowTableConfig table{};                // of each core
    // DPDK's log, a line each; called from any thread. Empty: errors only reach OsError.
    std::function<void(DpdkLogLevel, std::string_view)> log{};
};

struct DpdkPortStatus {
    std::string name, driver;
    std::string spread;           // "one queue", "symmetric rss", "driver hash", "none"
    std::uint64_t packets = 0;    // that the device says it handed over
    std::uint64_t missed = 0;     // the device had no descriptor, or its buffer was full
    std::uint64_t errors = 0;     // the device refused the frame
    std::uint64_t no_mbufs = 0;   // times that no mbuf was left
    std::uint64_t dropped = 0;    // packets lost: of the three, what is a packet with this driver
    bool missed_is_known = true;  // false: this driver does not say what it missed
};

struct DpdkCoreStatus {
    unsigned cpu = 0;
    std::uint64_t packets = 0;
    std::uint64_t segmented = 0;  // packets in several mbufs, walked in a copy of their first bytes
    std::uint64_t cut = 0;        // of these: longer than the copy
    std::uint64_t polls = 0, polls_empty = 0, sleeps = 0;
    std::uint64_t samples = 0;          // of payload, handed to the owner
    std::uint64_t samples_limited = 0;  // more than a stretch of time may have
    std::uint64_t samples_full = 0;     // found their ring full
    // Rounds in which updates were told before this core had looked once more for payload that came earlier.
    std::uint64_t behind = 0;
    std::uint64_t updates = 0;          // handed to the owner
    std::uint64_t updates_delayed = 0;  // found the ring full and were told later
    std::uint64_t flows_live = 0;
};

struct DpdkStatus {
    std::string spread;  // what is in force: "one core", "symmetric rss", "driver hash", "as queued"
    std::vector<DpdkPortStatus> ports;
    std::vector<DpdkCoreStatus> cores;
    std::uint64_t flows_split = 0;  // flows of which two cores had a part; told as one flow
};

// Life: make(), install_region(), start(), poll()..., stop(). A second start() in one process fails.
class DpdkEngine final : public Engine {
public:
    [[nodiscard]] static std::expected<std::unique_ptr<DpdkEngine>, OsError> make(DpdkConfig config);
    ~DpdkEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "dpdk"; }
    [[nodiscard]] std::expected<void, OsError> start(FlowSink& sink) override;
    [[nodiscard]] std::expected<void, OsError> poll(std::chrono::milliseconds timeout) override;
    void stop() noexcept override;
    // Returns when no core reads the previous table any more.
    [[nodiscard]] std::expected<void, OsError> install_region(const RegionTable& table) override;
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept override;
    // Each core's counters are of one instant, between two bursts.
    [[nodiscard]] TotalsSnapshot totals() const override;
    // status(), by names: "spread", "port.NAME.missed", "core.0.packets", ...
    [[nodiscard]] EngineDetails details() const override;

    [[nodiscard]] DpdkStatus status() const;

private:
    struct State;
    explicit DpdkEngine(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::capture
