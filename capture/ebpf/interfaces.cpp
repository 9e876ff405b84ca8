// capture/ebpf/interfaces.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/interfaces.h"

#include <bpf/bpf.h>
#include <linux/if_arp.h>

#include <algorithm>
#include <cerrno>
#include <set>

namespace egresswatch::capture {
namespace {

constexpr datapath::direction SIDES[] = {datapath::DIRECTION_OUT, datapath::DIRECTION_IN};
constexpr std::size_t TOTALS_WORDS = sizeof(datapath::iface_totals) / sizeof(std::uint64_t);

void add_totals(datapath::iface_totals& to, const datapath::iface_totals& what) {
    auto* words = reinterpret_cast<std::uint64_t*>(&to);
    const auto* more = reinterpret_cast<const std::uint64_t*>(&what);
    for (std::size_t i = 0; i < TOTALS_WORDS; i++) words[i] += more[i];
}

bool any_counted(const datapath::iface_totals& totals) {
    return totals.by_direction[0].seen.packets != 0 || totals.by_direction[1].seen.packets != 0;
}

}  // namespace

LinkLayer link_layer(std::uint16_t arphrd) noexcept {
    switch (arphrd) {
        case ARPHRD_ETHER:
        case ARPHRD_LOOPBACK:
            return LinkLayer::ethernet;
        case ARPHRD_NONE:  // tun, wireguard
        case ARPHRD_RAWIP:
        case ARPHRD_PPP:
        case ARPHRD_TUNNEL:  // ipip
        case ARPHRD_TUNNEL6:
        case ARPHRD_SIT:
        case ARPHRD_IPGRE:
        case ARPHRD_IP6GRE:
            return LinkLayer::bare_ip;
        default:
            return LinkLayer::unsupported;
    }
}

InterfaceSet::InterfaceSet(std::vector<std::string> patterns, AttachMode mode, const PinDir& pins,
                           Identity& identity, int iface_totals_fd)
    : patterns_(std::move(patterns)),
      mode_(mode),
      pins_(pins),
      identity_(identity),
      iface_totals_fd_(iface_totals_fd) {}

void InterfaceSet::settle(const std::vector<LinkNews>& links, const BpfObject& object) {
    std::set<std::uint32_t> present;
    for (const LinkNews& link : links) present.insert(link.ifindex);
    std::vector<std::uint32_t> vanished;
    for (const auto& [ifindex, entry] : interfaces_)
        if (!present.contains(ifindex)) vanished.push_back(ifindex);
    for (const std::uint32_t ifindex : vanished) remove(ifindex);
    // Hooks of a predecessor on interfaces that are gone or no longer asked for; their counts stay in the
    // sum.
    std::set<std::uint32_t> wanted;
    for (const LinkNews& link : links)
        if (interface_wanted(patterns_, link)) wanted.insert(link.ifindex);
    std::set<std::uint32_t> left_over;
    for (const LinkPin& pin : pins_.links()) {
        if (wanted.contains(pin.ifindex) || interfaces_.contains(pin.ifindex)) continue;
        if (remove_hook(pins_, pin)) left_over.insert(pin.ifindex);
    }
    if (!left_over.empty()) object.wait_for_programs();
    for (const std::uint32_t ifindex : left_over) retire_slot(ifindex);
    for (const LinkNews& link : links) on_news(link, object);
}

void InterfaceSet::on_news(const LinkNews& link, const BpfObject& object) {
    if (link.gone) {
        remove(link.ifindex);
        return;
    }
    const auto known = interfaces_.find(link.ifindex);
    if (known == interfaces_.end()) {
        if (interface_wanted(patterns_, link)) add(link, object);
        return;
    }
    // A renamed interface stays hooked: its traffic is what was asked for.
    known->second.name = link.name;
    if (!known->second.why_not.empty()) add(link, object);
}

void InterfaceSet::add(const LinkNews& link, const BpfObject& object) {
    Hooked entry;
    entry.name = link.name;
    entry.layer = link_layer(link.arphrd);
    if (entry.layer == LinkLayer::unsupported)
        entry.why_not = "link type " + std::to_string(link.arphrd) + " (ARPHRD) is not understood";
    else if (slot_taken(link.ifindex))
        entry.why_not = "its interface number " + std::to_string(link.ifindex) +
                        " shares a counter slot with another hooked interface";
    else if (auto hook = hook_both(link.ifindex, entry, object))
        entry.hook = *hook;
    else
        entry.why_not = hook.error().to_string();
    interfaces_[link.ifindex] = std::move(entry);
}

std::expected<std::string, OsError> InterfaceSet::hook_both(std::uint32_t ifindex, const Hooked& entry,
                                                            const BpfObject& object) {
    // Not adopted: what stands in the slot belongs to an interface that is gone.
    const std::vector<LinkPin> pinned = pins_.links();
    const auto is_here = [&](const LinkPin& pin) {
        return pin.ifindex == ifindex && pin.kind != PinKind::qdisc;
    };
    if (std::none_of(pinned.begin(), pinned.end(), is_here)) retire_slot(ifindex);
    std::string hook;
    for (const auto side : SIDES) {
        auto attached = attach_hook(pins_, mode_, ifindex, entry.name, side,
                                    object.program_fd(side, entry.layer == LinkLayer::ethernet));
        if (!attached) {
            // One side alone would make every flow look one-way.
            for (const LinkPin& pin : pins_.links())
                if (pin.ifindex == ifindex) (void)remove_hook(pins_, pin);
            return std::unexpected(attached.error());
        }
        hook = attached->hook;
        if (attached->replaced) hooks_replaced_++;
    }
    return hook;
}

std::expected<void, OsError> InterfaceSet::replace_programs(const BpfObject& object) {
    for (auto& [ifindex, entry] : interfaces_) {
        if (entry.hook.empty()) continue;
        if (auto hook = hook_both(ifindex, entry, object); !hook) {
            entry.hook.clear();
            entry.why_not = hook.error().to_string();
            return std::unexpected(hook.error());
        }
    }
    return {};
}

void InterfaceSet::remove(std::uint32_t ifindex) {
    const auto known = interfaces_.find(ifindex);
    if (known == interfaces_.end()) return;
    const bool was_hooked = !known->second.hook.empty();
    interfaces_.erase(known);
    for (const LinkPin& pin : pins_.links())
        if (pin.ifindex == ifindex) (void)remove_hook(pins_, pin);
    if (was_hooked) retire_slot(ifindex);
}

void InterfaceSet::unhook_all() noexcept {
    // Filters before the qdiscs that carry them.
    for (const bool qdiscs : {false, true})
        for (const LinkPin& pin : pins_.links())
            if ((pin.kind == PinKind::qdisc) == qdiscs) (void)remove_hook(pins_, pin);
}

bool InterfaceSet::slot_taken(std::uint32_t ifindex) const {
    return std::any_of(interfaces_.begin(), interfaces_.end(), [&](const auto& known) {
        return known.first != ifindex && !known.second.hook.empty() &&
               known.first % datapath::IFACE_SLOTS == ifindex % datapath::IFACE_SLOTS;
    });
}

datapath::iface_totals InterfaceSet::read_totals(std::uint32_t ifindex) const {
    datapath::iface_totals totals{};
    (void)sum_per_cpu(iface_totals_fd_, ifindex % datapath::IFACE_SLOTS,
                      {reinterpret_cast<std::uint64_t*>(&totals), TOTALS_WORDS});
    return totals;
}

// Moves what a slot holds to the sum of the interfaces that are gone. No program writes to it any more.
void InterfaceSet::retire_slot(std::uint32_t ifindex) {
    const datapath::iface_totals totals = read_totals(ifindex);
    if (!any_counted(totals)) return;
    add_totals(identity_.gone, totals);
    const std::uint32_t slot = ifindex % datapath::IFACE_SLOTS;
    const std::vector<std::uint64_t> zeros(TOTALS_WORDS * possible_cpus());
    (void)bpf_map_update_elem(iface_totals_fd_, &slot, zeros.data(), BPF_ANY);
}

std::vector<InterfaceStatus> InterfaceSet::status() const {
    std::vector<InterfaceStatus> all;
    for (const auto& [ifindex, entry] : interfaces_) {
        InterfaceStatus status;
        status.name = entry.name;
        status.ifindex = ifindex;
        status.hooked = !entry.hook.empty();
        status.layer2 = entry.layer == LinkLayer::ethernet;
        status.hook = entry.hook;
        status.why_not_hooked = entry.why_not;
        if (status.hooked) status.totals = read_totals(ifindex);
        all.push_back(std::move(status));
    }
    if (any_counted(identity_.gone)) {
        InterfaceStatus gone;
        gone.name = "(gone)";
        gone.why_not_hooked = "interfaces that are no more";
        gone.totals = identity_.gone;
        all.push_back(std::move(gone));
    }
    return all;
}

}  // namespace egresswatch::capture
