// capture/ebpf/peer_namespace.h - who lives in the network namespace at the other end of a veth pair.
//
// In:      an interface, and the processes of /proc.   Out: Origin.   Threads: one.
// How:     the kernel names the namespace of a peer by a number of ours (IFLA_LINK_NETNSID), and that of a
//          process by the same (RTM_GETNSID with NETNSA_PID, net/core/net_namespace.c). The control groups of
//          the processes whose numbers are equal tell container and pod. A bridge counts as its ports:
//          packets that it passes on are the bridge's own.
// Cost:    two messages for each process of the host, some microseconds, on the thread that evaluates: at the
//          first packet of an interface, after KEPT again, and then not more often than every BETWEEN.
// Limits:  INTERFACES_MAX, of which answers are kept; at it all are forgotten, and asked for again.
// Not:     guests of a tap device, other hosts behind a physical one: of these only the interface is told.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <unordered_map>

#include "capture/process/origin.h"

namespace egresswatch::capture {

class PeerNamespaces {
public:
    static constexpr std::chrono::seconds KEPT{10};
    // Where nobody was found: who starts there comes soon.
    static constexpr std::chrono::milliseconds KEPT_EMPTY{500};
    static constexpr std::chrono::milliseconds BETWEEN{200};
    static constexpr std::size_t INTERFACES_MAX = 4096;

    // Null: there is no such interface, and none was known before. Valid until the next call.
    [[nodiscard]] const Origin* behind(std::uint32_t ifindex);

private:
    using Clock = std::chrono::steady_clock;
    struct Known {
        Origin origin;
        Clock::time_point asked{};
        bool deserted = false;  // there is a namespace, and nobody in it
    };
    std::unordered_map<std::uint32_t, Known> known_;
    Clock::time_point last_{};
};

}  // namespace egresswatch::capture
