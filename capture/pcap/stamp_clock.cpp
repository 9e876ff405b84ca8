// capture/pcap/stamp_clock.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/stamp_clock.h"

#include <algorithm>
#include <ctime>

namespace egresswatch::capture {
namespace {

std::uint64_t clock_ns(clockid_t clock) noexcept {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
           static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace

void StampClock::read() noexcept {
    read(clock_ns(CLOCK_REALTIME), clock_ns(CLOCK_MONOTONIC));
}

void StampClock::read(std::uint64_t wall_ns, std::uint64_t monotonic_ns) noexcept {
    const auto offset = static_cast<std::int64_t>(wall_ns) - static_cast<std::int64_t>(monotonic_ns);
    const std::int64_t step = started_ ? offset - offset_ns_ : 0;
    if (step < -static_cast<std::int64_t>(step_min_ns))
        correction_ns_ += static_cast<std::uint64_t>(-step);
    else if (step > static_cast<std::int64_t>(step_min_ns))
        correction_ns_ -= std::min(correction_ns_, static_cast<std::uint64_t>(step));
    started_ = true;
    offset_ns_ = offset;
    now_ns_ = std::max(now_ns_, wall_ns + correction_ns_);
    latest_ns_ = now_ns_ + ahead_max_ns;
}

}  // namespace egresswatch::capture
