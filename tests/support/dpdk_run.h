// tests/support/dpdk_run.h - runs the DPDK engine over a capture file (net_pcap) and collects all it says.
//
// DPDK starts once in a process: each run has a child process of its own, and what it found comes back by a
// pipe. net_pcap hands over what was captured: a packet that was cut has its captured length as its length on
// the wire, and times are whole microseconds. on_wire_as_captured() makes a file say so too.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "capture/dpdk/dpdk_engine.h"
#include "classifier/region/region_table.h"

namespace egresswatch::test {

struct EngineRun {
    std::vector<FlowUpdate> updates;  // in the order in which the sink was told
    std::vector<datapath::class_totals> by_class;
    datapath::iface_totals interface {};  // the sum over the interfaces
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses{};
    std::uint64_t dropped = 0;  // packets that the device lost
    std::uint64_t flows_split = 0;
};

// The packets of `files`, one queue and one core each, in packet time. Waits until the engine has counted
// `packets` of them. The error says what went wrong in the child.
[[nodiscard]] std::expected<EngineRun, std::string> run_dpdk_over(const std::vector<std::string>& files,
                                                                  std::uint64_t packets,
                                                                  const RegionTable& region,
                                                                  const FlowTableConfig& table,
                                                                  std::uint32_t mbufs = 0);

// Writes the Ethernet packets of capture files, one behind the other, to `to`: a pcap file with microseconds
// whose packets have the length that was captured. Returns how many there were. Left out: other link types,
// packets beyond 65535 bytes, which net_pcap cannot hold, and times after 2038, which libpcap reads as before
// 1970.
[[nodiscard]] std::expected<std::uint64_t, std::string> on_wire_as_captured(
    const std::vector<std::string>& from, const std::string& to);

}  // namespace egresswatch::test
