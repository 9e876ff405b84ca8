// capture/pcap/live_engine.h - live capture by libpcap: a mirror port, or a host where eBPF is not to be had.
//
// In:        packets of one or several interfaces, as the kernel shows them to packet sockets.
// Out:       as every engine.
// Clock:     packet time, kept going without packets (stamp_clock.h). A tick comes every second.
// Direction: of the packet where it says so (cooked captures; a frame from or to the interface's own Ethernet
//            address), else by address (FlowTableConfig::local_networks, direction_by_region).
// Threads:   one.
// Limits:    LiveOptions::buffer_bytes an interface; what finds it full is in CaptureDrops. A packet that the
//            host or its device segments later, or has merged, is seen whole: counted once, with its one
//            header, and shown as InterfaceStatus::unsegmented.
// Needs:     CAP_NET_RAW.
// Fails:     start() without that capability or with a bad filter. An interface that cannot be opened, or
//            fails, is a named blind spot and tried again every retry_interval and when its link changes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "capture/engine.h"
#include "capture/pcap/live_capture.h"
#include "classifier/flow_table.h"

namespace egresswatch::capture {

struct PcapConfig {
    std::vector<std::string> interfaces{"all-physical"};  // as EbpfConfig::interfaces
    LiveOptions live;
    FlowTableConfig table;
};

class PcapEngine final : public Engine {
public:
    static constexpr std::chrono::milliseconds retry_interval{1000};

    [[nodiscard]] static std::expected<std::unique_ptr<PcapEngine>, OsError> make(PcapConfig config);
    ~PcapEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "pcap"; }
    [[nodiscard]] std::expected<void, OsError> start(FlowSink& sink) override;
    [[nodiscard]] std::expected<void, OsError> poll(std::chrono::milliseconds timeout) override;
    void stop() noexcept override;
    [[nodiscard]] std::expected<void, OsError> install_region(const RegionTable& table) override;
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept override;
    [[nodiscard]] TotalsSnapshot totals() const override;

private:
    struct State;
    explicit PcapEngine(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::capture
