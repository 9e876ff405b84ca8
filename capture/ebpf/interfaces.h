// capture/ebpf/interfaces.h - which interfaces are hooked, and why the others that were asked for are not.
//
// In:       patterns, news of links.      Out: hooks on both sides of each match; a status for each.
// Threads:  one.      Owns: slots of iface_totals, by ifindex % IFACE_SLOTS.
// Limits:   IFACE_SLOTS; of two interfaces with one slot the second is a named blind spot.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <vector>

#include "capture/ebpf/attach.h"
#include "capture/ebpf/netlink.h"
#include "capture/ebpf/object.h"
#include "capture/ebpf/pins.h"

namespace egresswatch::capture {

enum class LinkLayer { ethernet, bare_ip, unsupported };
[[nodiscard]] LinkLayer link_layer(std::uint16_t arphrd) noexcept;

class InterfaceSet {
public:
    InterfaceSet(std::vector<std::string> patterns, AttachMode mode, const PinDir& pins, Identity& identity,
                 int iface_totals_fd);

    // Makes the set agree with `links`, all that there are: hooks, adopts, and removes what is left over.
    void settle(const std::vector<LinkNews>& links, const BpfObject& object);
    void on_news(const LinkNews& link, const BpfObject& object);
    // Puts the programs of a newly loaded object in the place of the old ones.
    [[nodiscard]] std::expected<void, OsError> replace_programs(const BpfObject& object);
    void unhook_all() noexcept;

    // Hooked ones, blind spots, and one entry "(gone)" for what interfaces counted that are no more.
    [[nodiscard]] std::vector<InterfaceStatus> status() const;
    [[nodiscard]] std::uint64_t hooks_replaced() const noexcept { return hooks_replaced_; }

private:
    struct Hooked {
        std::string name;
        LinkLayer layer = LinkLayer::ethernet;
        std::string hook;
        std::string why_not;
    };
    void add(const LinkNews& link, const BpfObject& object);
    void remove(std::uint32_t ifindex);
    [[nodiscard]] std::expected<std::string, OsError> hook_both(std::uint32_t ifindex, const Hooked& entry,
                                                                const BpfObject& object);
    [[nodiscard]] bool slot_taken(std::uint32_t ifindex) const;
    [[nodiscard]] datapath::iface_totals read_totals(std::uint32_t ifindex) const;
    void retire_slot(std::uint32_t ifindex);

    std::vector<std::string> patterns_;
    AttachMode mode_;
    const PinDir& pins_;
    Identity& identity_;
    int iface_totals_fd_;
    std::map<std::uint32_t, Hooked> interfaces_;  // by ifindex; wanted ones only
    std::uint64_t hooks_replaced_ = 0;
};

}  // namespace egresswatch::capture
