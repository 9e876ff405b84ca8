// capture/ebpf/netlink.h - the interfaces of this network namespace, and news of them, by rtnetlink.
//
// Not by /sys/class/net: under `nsenter --net` that shows another namespace's interfaces.
// Threads: one.   Limits: the socket's buffer; when it overflows (ENOBUFS) everything is asked for again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "capture/ebpf/os.h"

namespace egresswatch::capture {

struct LinkNews {
    std::uint32_t ifindex = 0;
    std::string name;
    std::uint16_t arphrd = 0;               // ARPHRD_*: what the link header looks like
    std::string kind;                       // IFLA_INFO_KIND: "veth", "bridge", "tun"...; empty for hardware
    std::array<std::uint8_t, 6> address{};  // Ethernet; all zero where there is none
    std::uint32_t mtu = 0;
    bool gone = false;
};

// By name, by glob, or by "all-physical": Ethernet devices that no software driver made (no kind). Patterns
// never match the loopback; its name does.
[[nodiscard]] bool interface_wanted(const std::vector<std::string>& patterns, const LinkNews& link);

class LinkWatcher {
public:
    // Subscribes first and asks for all links then: nothing falls in between.
    [[nodiscard]] static std::expected<LinkWatcher, OsError> open();
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    // All links as they are now. `LinkNews::gone` is never set.
    [[nodiscard]] std::expected<std::vector<LinkNews>, OsError> all();
    struct News {
        std::vector<LinkNews> links;
        bool missed = false;  // the buffer overflowed: call all()
    };
    // What has arrived; does not wait.
    [[nodiscard]] std::expected<News, OsError> read();

private:
    UniqueFd fd_;
};

// Numbers by which this network namespace calls others (ip netns list-id).
class NamespaceNumbers {
public:
    struct Peers {
        std::string interface;                 // its name
        std::vector<std::int32_t> namespaces;  // at the other ends: of a veth pair, or of a bridge's ports
    };
    [[nodiscard]] static std::expected<NamespaceNumbers, OsError> open();
    // Nothing: there is no such interface.
    [[nodiscard]] std::optional<Peers> peers_of(std::uint32_t ifindex);
    // Nothing: there is no such process, or its namespace has no number here (no link leads to it).
    [[nodiscard]] std::optional<std::int32_t> of_process(std::uint32_t pid);

private:
    UniqueFd fd_;
};

// How many filters stand on the clsact qdisc of an interface, both sides; -1 where that cannot be known.
[[nodiscard]] int clsact_filters(std::uint32_t ifindex);

[[nodiscard]] std::uint64_t netns_inode();  // of this thread's network namespace

}  // namespace egresswatch::capture
