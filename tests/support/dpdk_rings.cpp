// tests/support/dpdk_rings.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/dpdk_rings.h"

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace egresswatch::test {

namespace {

[[noreturn]] void give_up(const char* what) {
    std::fprintf(stderr, "dpdk_rings: %s: %s\n", what, rte_strerror(rte_errno));
    std::abort();
}

}  // namespace

std::string in_own_process(const std::function<std::string()>& body) {
    int ends[2];
    if (::pipe(ends) != 0) return std::string("pipe: ") + std::strerror(errno);
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child < 0) return std::string("fork: ") + std::strerror(errno);
    if (child == 0) {
        ::close(ends[0]);
        const std::string said = body();
        [[maybe_unused]] const auto written = ::write(ends[1], said.data(), said.size());
        ::_exit(said.empty() ? 0 : 1);
    }
    ::close(ends[1]);
    std::string said;
    char block[4096];
    for (ssize_t got; (got = ::read(ends[0], block, sizeof block)) != 0;)
        if (got > 0) said.append(block, static_cast<std::size_t>(got));
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0 && said.empty()) said = "the child process ended with status " + std::to_string(status);
    return said;
}

rte_ring* ring_of(unsigned number, unsigned queue) {
    const std::string name = "ETH_RXTX" + std::to_string(queue) + "_net_ring" + std::to_string(number);
    rte_ring* ring = rte_ring_lookup(name.c_str());
    if (ring == nullptr) give_up(name.c_str());
    return ring;
}

PacketPool::PacketPool(const char* name, unsigned mbufs)
    : pool_(rte_pktmbuf_pool_create(name, mbufs, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY)) {
    if (pool_ == nullptr) give_up(name);
}

void PacketPool::put(rte_ring* ring, std::span<const std::uint8_t> frame, unsigned segment_bytes) {
    rte_mbuf* first = nullptr;
    rte_mbuf* last = nullptr;
    const std::size_t step = segment_bytes == 0 ? frame.size() : segment_bytes;
    for (std::size_t at = 0; at < frame.size(); at += step) {
        rte_mbuf* mbuf = nullptr;
        while ((mbuf = rte_pktmbuf_alloc(pool_)) == nullptr) ::sched_yield();
        const std::size_t bytes = std::min(step, frame.size() - at);
        std::memcpy(rte_pktmbuf_append(mbuf, static_cast<std::uint16_t>(bytes)), frame.data() + at, bytes);
        if (first == nullptr) {
            first = mbuf;
        } else {
            last->next = mbuf;
            first->nb_segs++;
            first->pkt_len += static_cast<std::uint32_t>(bytes);
        }
        last = mbuf;
    }
    while (rte_ring_enqueue(ring, first) != 0) ::sched_yield();
}

void fill_for_ever(rte_ring* ring, const char* name,
                   const std::function<std::vector<std::uint8_t>(unsigned)>& frame) {
    constexpr unsigned packets = 1023;  // what the device's ring of 1024 holds
    rte_mempool* pool = rte_pktmbuf_pool_create_by_ops(name, packets, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                                       SOCKET_ID_ANY, "ring_sp_sc");
    if (pool == nullptr) give_up(name);
    std::vector<rte_mbuf*> mbufs(packets);
    if (rte_pktmbuf_alloc_bulk(pool, mbufs.data(), packets) != 0) give_up(name);
    for (unsigned i = 0; i < packets; ++i) {
        const auto bytes = frame(i);
        std::memcpy(rte_pktmbuf_append(mbufs[i], static_cast<std::uint16_t>(bytes.size())), bytes.data(),
                    bytes.size());
    }
    // A pool of these operations is a ring of free mbufs (drivers/mempool/ring): from now on, the device's.
    pool->pool_data = ring;
    // At once: the ring is made for one producer, and with the first packet that can be seen that is the
    // core, which gives it back.
    if (rte_ring_enqueue_bulk(ring, reinterpret_cast<void**>(mbufs.data()), packets, nullptr) != packets)
        give_up(name);
}

}  // namespace egresswatch::test
