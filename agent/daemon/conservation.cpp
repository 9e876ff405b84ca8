// agent/daemon/conservation.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/conservation.h"

#include <algorithm>
#include <cstdlib>

namespace egresswatch::daemon {

namespace {

struct Imbalance {
    std::int64_t packets = 0;
    std::int64_t bytes = 0;
};

Imbalance imbalance_of(const datapath::iface_totals& totals) {
    Imbalance imbalance;
    for (const auto& direction : totals.by_direction) {
        imbalance.packets += static_cast<std::int64_t>(direction.seen.packets);
        imbalance.bytes += static_cast<std::int64_t>(direction.seen.bytes);
        for (const auto& outcome : direction.outcome) {
            imbalance.packets -= static_cast<std::int64_t>(outcome.packets);
            imbalance.bytes -= static_cast<std::int64_t>(outcome.bytes);
        }
    }
    return imbalance;
}

const LinkCounters* find_link(const std::vector<LinkCounters>& links, std::uint32_t ifindex) {
    const auto found = std::ranges::find(links, ifindex, &LinkCounters::ifindex);
    return found == links.end() ? nullptr : &*found;
}

// What a driver that sent so many packets should have counted in bytes, had nothing gone around the hook.
struct Expected {
    const char* basis = "as_given";
    datapath::traffic traffic{};
    std::uint64_t uncertain_bytes = 0;
};

Expected expect(const datapath::traffic& given, const datapath::traffic& segments,
                std::uint64_t driver_packets) {
    if (driver_packets <= given.packets || segments.packets <= given.packets) return {"as_given", given, 0};
    if (driver_packets >= segments.packets) return {"segments", segments, 0};
    // Some super-packets were segmented before the driver got them: its packets say how many headers were
    // added, and the hook how long they are on average. Which ones it were, it does not know: half a header
    // each, counted from the nearer end.
    const std::uint64_t added = driver_packets - given.packets;
    const std::uint64_t addable = segments.packets - given.packets;
    const std::uint64_t header_bytes = (segments.bytes - given.bytes) / addable;
    return {"mixed",
            {driver_packets, given.bytes + added * header_bytes},
            std::min(added, addable - added) * header_bytes / 2};
}

}  // namespace

bool Conservation::balanced(const capture::TotalsSnapshot& totals) {
    return std::ranges::all_of(totals.interfaces, [](const capture::InterfaceStatus& interface) {
        const auto imbalance = imbalance_of(interface.totals);
        return imbalance.packets == 0 && imbalance.bytes == 0;
    });
}

std::vector<ConservationResult> Conservation::advance(const std::vector<LinkCounters>& driver_before,
                                                      const capture::TotalsSnapshot& totals,
                                                      const std::vector<LinkCounters>& driver_after) {
    std::vector<ConservationResult> results;
    std::map<std::uint32_t, Interface> next;
    for (const auto& status : totals.interfaces) {
        if (!status.hooked) continue;
        Interface& interface = next[status.ifindex];
        if (auto known = interfaces_.find(status.ifindex);
            known != interfaces_.end() && known->second.name == status.name)
            interface = std::move(known->second);
        interface.name = status.name;

        ConservationResult result;
        result.interface = status.name;
        result.ifindex = status.ifindex;
        const auto imbalance = imbalance_of(status.totals);
        result.unbalanced_packets = imbalance.packets;
        result.unbalanced_bytes = imbalance.bytes;
        // A leak stays or grows; packets in flight are few and gone at the next reading.
        result.balance_broken = static_cast<std::uint64_t>(std::llabs(imbalance.packets)) > in_flight_max_ ||
                                (imbalance.packets != 0 && imbalance.packets == interface.unbalanced_packets);
        interface.unbalanced_packets = imbalance.packets;

        const auto& out = status.totals.by_direction[datapath::DIRECTION_OUT];
        const LinkCounters* before = find_link(driver_before, status.ifindex);
        const LinkCounters* after = find_link(driver_after, status.ifindex);
        const bool uncertain = !status.sees_all_sent || status.uncertain != interface.uncertain;
        interface.uncertain = status.uncertain;
        const bool went_back = interface.started && (uncertain || before == nullptr ||
                                                     before->tx_bytes < interface.baseline.driver_bytes ||
                                                     out.seen.bytes < interface.baseline.seen.bytes);
        if (interface.started && !went_back) {
            compare(interface, *before, out, result);
        } else if (after != nullptr) {
            interface = {status.name,
                         true,
                         {after->tx_packets, after->tx_bytes, out.seen, out.as_given},
                         0,
                         {0},
                         imbalance.packets,
                         status.uncertain};
        }
        results.push_back(std::move(result));
    }
    interfaces_ = std::move(next);
    return results;
}

void Conservation::compare(Interface& interface, const LinkCounters& driver,
                           const datapath::iface_direction& out, ConservationResult& result) const {
    const Reading& base = interface.baseline;
    const datapath::traffic segments{out.seen.packets - base.seen.packets, out.seen.bytes - base.seen.bytes};
    const datapath::traffic given{out.as_given.packets - base.as_given.packets,
                                  out.as_given.bytes - base.as_given.bytes};
    result.compared = true;
    result.driver_packets = driver.tx_packets - base.driver_packets;
    result.driver_bytes = driver.tx_bytes - base.driver_bytes;
    const Expected expected = expect(given, segments, result.driver_packets);
    result.basis = expected.basis;
    result.hook_packets = expected.traffic.packets;
    result.hook_bytes = expected.traffic.bytes;
    result.residual_bytes = static_cast<std::int64_t>(result.driver_bytes - result.hook_bytes);

    result.tolerance_bytes =
        tolerance_bytes_min + result.hook_bytes * tolerance_per_mille / 1000 + expected.uncertain_bytes;
    if (driver.kind.empty()) result.tolerance_bytes += result.hook_packets * frame_slack_bytes;
    interface.running += result.residual_bytes;
    const std::int64_t high_water = *std::ranges::max_element(interface.past);
    result.excess_bytes =
        interface.running > high_water ? static_cast<std::uint64_t>(interface.running - high_water) : 0;
    result.bypass_suspected = result.excess_bytes > result.tolerance_bytes;
    interface.past.push_back(interface.running);
    if (interface.past.size() > high_water_periods) interface.past.pop_front();
    interface.baseline = {driver.tx_packets, driver.tx_bytes, out.seen, out.as_given};
}

}  // namespace egresswatch::daemon
