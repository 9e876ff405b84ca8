// agent/daemon/conservation.h - does everything that left go through our hooks?
// SPDX-License-Identifier: Apache-2.0
//
// Two checks for each interface and coverage period:
//   balance   seen == sum of outcomes, per direction, packets and bytes: the hook lost nothing of what it
//   saw. residual  bytes the driver sent - bytes the egress hook saw: what went around the hook (AF_PACKET
//   with
//             PACKET_QDISC_BYPASS, AF_XDP, kernel-bypass).
// Like with like: a driver that is handed super-packets (TSO; veth and other virtual devices) counts
// `as_given`; one that gets segments counts `seen`; with offload on for some protocols only, something
// between. Which it was is read off the driver's own packet counter, each period, and named in the record as
// `basis`: as_given, segments, or mixed. Order of reading: driver, hook, driver. A baseline takes the later
// driver reading, a period the earlier one: packets between the readings can then only make the residual
// smaller, never raise an alarm. What waits in a queue is counted by the hook and not yet by the driver, and
// comes back later; so the alarm looks at how far the running residual climbs above its highest value of the
// last high_water_periods. Limits: packets dropped behind the hook (tx_dropped, qdisc) hide as many bytes of
// bypass, for as long as the high-water mark lasts. Tolerance: tolerance_bytes_min + 0.1 % of the hook's
// bytes, and on physical devices frame_slack_bytes a packet (padding to 60 bytes, FCS, a VLAN tag put in by
// hardware).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "agent/daemon/rtnetlink.h"
#include "capture/engine.h"

namespace egresswatch::daemon {

struct ConservationResult {
    std::string interface;
    std::uint32_t ifindex = 0;
    std::int64_t unbalanced_packets = 0;  // seen - sum of outcomes, both directions; 0 is the rule
    std::int64_t unbalanced_bytes = 0;
    bool balance_broken = false;  // not explained by packets that were in the hook at the moment of reading
    bool compared = false;        // the figures below mean something: not in the first period of an interface
    std::string basis;            // "as_given", "segments" or "mixed"
    std::uint64_t driver_packets = 0;
    std::uint64_t driver_bytes = 0;
    std::uint64_t hook_packets = 0;
    std::uint64_t hook_bytes = 0;
    std::int64_t residual_bytes = 0;  // of this period
    std::uint64_t excess_bytes = 0;   // above the high-water mark: what the tolerance is compared with
    std::uint64_t tolerance_bytes = 0;
    bool bypass_suspected = false;
};

class Conservation {
public:
    static constexpr std::uint64_t tolerance_bytes_min = 64 * 1024;
    static constexpr std::uint64_t tolerance_per_mille = 1;
    static constexpr std::uint64_t frame_slack_bytes = 24;
    static constexpr std::size_t high_water_periods = 6;  // a minute of coverage records
    // Packets that may be inside a hook while its counters are read: those of one batch on every CPU.
    static constexpr std::uint64_t in_flight_packets_per_cpu = 64;

    explicit Conservation(unsigned cpus) : in_flight_max_(in_flight_packets_per_cpu * cpus) {}

    [[nodiscard]] std::vector<ConservationResult> advance(const std::vector<LinkCounters>& driver_before,
                                                          const capture::TotalsSnapshot& totals,
                                                          const std::vector<LinkCounters>& driver_after);
    // True where every interface of the snapshot balances exactly: a reason not to read again.
    [[nodiscard]] static bool balanced(const capture::TotalsSnapshot& totals);

private:
    struct Reading {
        std::uint64_t driver_packets = 0, driver_bytes = 0;
        datapath::traffic seen{}, as_given{};
    };
    struct Interface {
        std::string name;
        bool started = false;
        Reading baseline;
        std::int64_t running = 0;       // residual since the first baseline
        std::deque<std::int64_t> past;  // values of `running`, the latest high_water_periods
        std::int64_t unbalanced_packets = 0;
        std::uint64_t uncertain = 0;  // InterfaceStatus::uncertain at the baseline
    };

    void compare(Interface& interface, const LinkCounters& driver, const datapath::iface_direction& out,
                 ConservationResult& result) const;

    std::uint64_t in_flight_max_;
    std::map<std::uint32_t, Interface> interfaces_;
};

}  // namespace egresswatch::daemon
