// capture/pcap/stamp_clock.h - the time of live packets, kept going when somebody sets the clock back.
// SPDX-License-Identifier: Apache-2.0
//
// Packets are stamped with the wall clock. A flow table whose time had reached 12:00 would hold back its
// updates for an hour if the clock were set to 11:00 then. So the two clocks of the system are compared: a
// step back of the wall clock is added to later stamps until a step forward takes it off again. Smaller
// changes, as time synchronisation makes, pass as they are.
// Threads: one.
#pragma once

#include <cstdint>

namespace egresswatch::capture {

class StampClock {
public:
    static constexpr std::uint64_t step_min_ns = 500'000'000;     // what counts as a step
    static constexpr std::uint64_t ahead_max_ns = 1'000'000'000;  // how far a stamp may lie before the clock

    // Both clocks now, in ns; once a pass is enough.
    void read(std::uint64_t wall_ns, std::uint64_t monotonic_ns) noexcept;
    void read() noexcept;  // of the system

    // The packet time of a stamp: with the correction, and never far ahead of the clock, where a device with
    // a clock of its own, or a stamp from before the step, would drag time along.
    [[nodiscard]] std::uint64_t of_stamp(std::uint64_t stamp_ns) const noexcept {
        const std::uint64_t corrected = stamp_ns + correction_ns_;
        return corrected < latest_ns_ ? corrected : latest_ns_;
    }
    // What a packet would be stamped that comes now. Never goes back.
    [[nodiscard]] std::uint64_t now() const noexcept { return now_ns_; }

private:
    std::uint64_t correction_ns_ = 0;
    std::uint64_t now_ns_ = 0;
    std::uint64_t latest_ns_ = ahead_max_ns;
    std::int64_t offset_ns_ = 0;  // wall clock less monotonic clock
    bool started_ = false;
};

}  // namespace egresswatch::capture
