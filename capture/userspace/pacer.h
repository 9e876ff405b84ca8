// capture/userspace/pacer.h - when the packets of a file are due at a given speed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>

namespace egresswatch::capture {

class Pacer {
public:
    using Clock = std::chrono::steady_clock;
    using PacketTime = std::chrono::sys_time<std::chrono::nanoseconds>;

    // 2: twice as fast as the packets came. Must be above 0.
    explicit Pacer(double speed) : speed_(speed) {}

    // The first packet is due at once, each other so much later as its time stamp says; an earlier one at
    // once.
    [[nodiscard]] Clock::time_point due(PacketTime captured_at, Clock::time_point now) {
        if (!begin_) begin_ = {captured_at, now};
        const std::chrono::duration<double, std::nano> after(
            static_cast<double>((captured_at - begin_->first).count()) / speed_);
        // Beyond a thousand years the clock cannot count; nobody waits so long.
        constexpr std::chrono::duration<double, std::nano> after_max = std::chrono::hours(24 * 365 * 100);
        return begin_->second +
               std::chrono::duration_cast<Clock::duration>(after < after_max ? after : after_max);
    }

private:
    double speed_;
    std::optional<std::pair<PacketTime, Clock::time_point>> begin_;
};

}  // namespace egresswatch::capture
