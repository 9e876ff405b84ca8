// capture/dpdk/packet_clock.h - packet time for polling cores: never goes back, and follows the wall clock.
//
// The monotonic clock plus an offset. Where the wall clock was set forward, packet time jumps with it; where
// it was set back, packet time goes on at half speed until the wall clock has caught up. Threads: now_ns()
// any; follow() the owner.   Cost: one clock_gettime(2) by the vDSO, about 25 ns, once a burst.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

namespace egresswatch::capture {

class PacketClock {
public:
    PacketClock() { follow(read(CLOCK_MONOTONIC), read(CLOCK_REALTIME)); }

    [[nodiscard]] std::uint64_t now_ns() const noexcept {
        return static_cast<std::uint64_t>(read(CLOCK_MONOTONIC) + offset_.load(std::memory_order_relaxed));
    }
    void follow() noexcept { follow(read(CLOCK_MONOTONIC), read(CLOCK_REALTIME)); }
    // The same, told the time: for tests.
    void follow(std::int64_t monotonic_ns, std::int64_t wall_ns) noexcept {
        const std::int64_t wanted = wall_ns - monotonic_ns;
        const std::int64_t now = offset_.load(std::memory_order_relaxed);
        const std::int64_t passed = followed_ns_ == 0 ? 0 : monotonic_ns - followed_ns_;
        const bool first = followed_ns_ == 0;
        followed_ns_ = monotonic_ns;
        // An offset that shrinks by less than half of what passed leaves the sum growing.
        const std::int64_t next =
            first || wanted >= now ? wanted : (now - wanted > passed / 2 ? now - passed / 2 : wanted);
        offset_.store(next, std::memory_order_relaxed);
    }
    [[nodiscard]] std::int64_t offset_ns() const noexcept { return offset_.load(std::memory_order_relaxed); }

private:
    static std::int64_t read(clockid_t clock) noexcept {
        timespec time{};
        ::clock_gettime(clock, &time);
        return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
    }
    std::atomic<std::int64_t> offset_{0};
    std::int64_t followed_ns_ = 0;
};

}  // namespace egresswatch::capture
