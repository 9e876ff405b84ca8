// rules/site_clock.h - what time it is at the site, at a packet's time.
// SPDX-License-Identifier: Apache-2.0
//
// By the system's time zone database (package tzdata), read once: summer time begins and ends as it says. The
// process's own TZ plays no part, so that a replay gives the same findings wherever it runs.
// Threads: a copy for each; none of them writes what they share.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/flow_update.h"

namespace egresswatch::rules {

class SiteClock {
public:
    SiteClock() = default;  // UTC
    [[nodiscard]] static bool knows(std::string_view zone);
    // A zone that the system does not know is UTC: the reader of policies has refused it before.
    [[nodiscard]] static SiteClock of_zone(std::string_view zone);

    struct Moment {
        std::uint16_t minute;  // of the day, 0 to 1439
        std::uint8_t weekday;  // 0: Monday
    };
    [[nodiscard]] Moment at(Timestamp when) const noexcept;

private:
    struct Change {
        std::int64_t from;    // seconds since the epoch
        std::int32_t offset;  // seconds east of UTC
    };
    std::shared_ptr<const std::vector<Change>> changes_;  // ascending; null: UTC
};

}  // namespace egresswatch::rules
