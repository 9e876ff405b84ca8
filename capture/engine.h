// capture/engine.h - the one interface of every engine: where packets come from, what it counted, what it
// lost. SPDX-License-Identifier: Apache-2.0
//
// Threads: one thread owns an engine: start(), poll(), stop() and the rest are called from it only.
// Fails:   OsError: operation, object, errno. An error of poll() is final for the engine.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/datapath/layout.h"
#include "classifier/flow_update.h"

namespace egresswatch {

class RegionTable;

namespace capture {

struct OsError {
    std::string operation;  // "attach tc program"
    std::string object;     // "eth0 egress"
    int error = 0;          // errno; 0 where the text says all
    std::string hint;       // the cure, where there is one

    [[nodiscard]] std::string to_string() const;
};

// Packets that reached an interface and were lost before the engine saw them: they are in no total. Running
// sums. The ebpf engine has none: its programs run where the packet is.
struct CaptureDrops {
    std::uint64_t buffer = 0;  // the capture buffer or receive ring was full: the engine was too slow
    std::uint64_t device = 0;  // the device or its driver gave up on them
    std::uint64_t memory = 0;  // no packet memory (DPDK mbufs)

    [[nodiscard]] std::uint64_t sum() const noexcept { return buffer + device + memory; }
};

struct InterfaceStatus {
    std::string name;
    std::uint32_t ifindex = 0;
    bool hooked = false;
    bool layer2 = true;          // false: no link header (tun, wireguard)
    std::string hook;            // "tcx", "clsact", "pcap", "file"
    std::string why_not_hooked;  // empty where hooked; otherwise the blind spot is named by this
    datapath::iface_totals totals{};
    CaptureDrops dropped{};
    // Packets longer than the MTU, seen before the host or its device segments them or after it has merged
    // them, which the engine could only count as they are: one packet, one header. Running sum.
    datapath::traffic unsegmented{};
    // False: the engine is not shown all that the driver sends (a filter; a device that it does not share
    // with the kernel), so that the driver's counters prove nothing.
    bool sees_all_sent = true;
    // Running sum of packets for which counted and sent bytes differ although nothing went around the engine:
    // drops, super-packets that the device segments, packets of which it is not sure whether they were sent.
    // A period in which it moves is not compared.
    std::uint64_t uncertain = 0;
};

struct TotalsSnapshot {
    std::vector<datapath::class_totals> by_class;  // index: class id
    std::vector<InterfaceStatus> interfaces;
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses{};
    std::uint64_t flows_live = 0;
    std::uint64_t flow_slots = 0;
};

// What one kind of engine has to say of itself, for `egresswatch status`: words and running counters by name.
struct EngineDetails {
    std::map<std::string, std::string> words;
    std::map<std::string, std::uint64_t> counters;
};

class Engine {
public:
    virtual ~Engine() = default;
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;  // "ebpf", "pcap", ...
    // Hooks up; the sink must outlive the engine. The region table must have been installed before.
    [[nodiscard]] virtual std::expected<void, OsError> start(FlowSink& sink) = 0;
    // Waits at most `timeout` for events, hands over what there is, drains the flow table when its interval
    // is due.
    [[nodiscard]] virtual std::expected<void, OsError> poll(std::chrono::milliseconds timeout) = 0;
    // Final updates (reason ended) for every flow, then unhooks everything.
    virtual void stop() noexcept = 0;
    // Swaps the region table whole: no packet is classified by half of it. Class ids are append-only over
    // reloads.
    [[nodiscard]] virtual std::expected<void, OsError> install_region(const RegionTable& table) = 0;
    // Ask for an `UpdateReason::volume` update as soon as the flow's bytes_out reaches `bytes_out`. Best
    // effort.
    virtual void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept = 0;
    [[nodiscard]] virtual TotalsSnapshot totals() const = 0;
    [[nodiscard]] virtual EngineDetails details() const { return {}; }
};

}  // namespace capture
}  // namespace egresswatch
