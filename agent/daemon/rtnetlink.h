// agent/daemon/rtnetlink.h - addresses and driver counters of this network namespace, asked of the kernel.
// SPDX-License-Identifier: Apache-2.0
//
// Not by /sys/class/net: under a network namespace entered by setns() sysfs still shows another namespace's
// interfaces. Every call is one dump over one socket.
// Threads: one thread per object.     Fails: OsError, retried by the caller at its next period.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "agent/unique_fd.h"
#include "capture/engine.h"
#include "classifier/address.h"

namespace egresswatch::daemon {

// What the driver of one interface counted (IFLA_STATS64), since the interface was made.
struct LinkCounters {
    std::string name;
    std::uint32_t ifindex = 0;
    std::string kind;  // "veth", "bridge", "tun"...: IFLA_INFO_KIND; empty for a physical device and loopback
    bool loopback = false;
    bool up = false;
    std::uint64_t rx_packets = 0;
    std::uint64_t tx_packets = 0;
    std::uint64_t rx_bytes = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t tx_dropped = 0;
};

class Rtnetlink {
public:
    [[nodiscard]] static std::expected<Rtnetlink, capture::OsError> open();

    [[nodiscard]] std::expected<std::vector<LinkCounters>, capture::OsError> links();
    // Every unicast address of every interface, loopback's too; sorted, without doubles.
    [[nodiscard]] std::expected<std::vector<Address>, capture::OsError> addresses();

private:
    explicit Rtnetlink(UniqueFd fd) : fd_(std::move(fd)) {}

    UniqueFd fd_;
    std::uint32_t sequence_ = 0;
};

// Tells that addresses came or went since the last call. The kernel may drop messages when we are slow
// (ENOBUFS): that counts as a change, so that nothing is missed.
class AddressWatch {
public:
    [[nodiscard]] static std::expected<AddressWatch, capture::OsError> open();
    [[nodiscard]] bool changed() noexcept;  // never blocks

private:
    explicit AddressWatch(UniqueFd fd) : fd_(std::move(fd)) {}

    UniqueFd fd_;
};

}  // namespace egresswatch::daemon
