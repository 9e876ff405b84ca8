// tests/support/dpdk_rings.h - feeds net_ring devices from the process that runs the engine.
//
// Packets go round: their memory pool gives back what the engine frees to the device's own ring, so that a
// queue of 1023 packets never runs dry and nobody has to keep up with feeding it. Or they are fed once, by
// put(). SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

struct rte_mempool;
struct rte_ring;

namespace egresswatch::test {

// Runs `body` in a child process, because DPDK starts once in a process. What it returns is what went wrong.
[[nodiscard]] std::string in_own_process(const std::function<std::string()>& body);

// The ring behind receive queue `queue` of the device "net_ring<number>", once the engine has started.
[[nodiscard]] rte_ring* ring_of(unsigned number, unsigned queue);

class PacketPool {
public:
    PacketPool(const char* name, unsigned mbufs);
    // Waits until the engine has made room. In segments of `segment_bytes`; 0: in one mbuf.
    void put(rte_ring* ring, std::span<const std::uint8_t> frame, unsigned segment_bytes = 0);

private:
    rte_mempool* pool_;
};

// Fills the ring with 1023 frames that come back when they are freed; `frame(i)` makes them.
void fill_for_ever(rte_ring* ring, const char* name,
                   const std::function<std::vector<std::uint8_t>(unsigned)>& frame);

}  // namespace egresswatch::test
