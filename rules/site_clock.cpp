// rules/site_clock.cpp - the only file that knows the date library.
// SPDX-License-Identifier: Apache-2.0
#include "rules/site_clock.h"

#include <date/tz.h>

#include <algorithm>
#include <exception>

namespace egresswatch::rules {

namespace {

// Packet times that a policy can be asked about: as values.cpp permits dates.
constexpr int year_first = 1950, year_last = 2200;

const date::time_zone* find_zone(std::string_view name) {
    try {
        return date::locate_zone(std::string(name));
    } catch (const std::exception&) {
        return nullptr;
    }
}

std::int64_t seconds_of(Timestamp when) {
    return std::chrono::floor<std::chrono::seconds>(when).time_since_epoch().count();
}

}  // namespace

bool SiteClock::knows(std::string_view zone) {
    // The library opens a file of that name below the system's directory of zones.
    const auto letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' ||
               c == '_' || c == '-' || c == '+';
    };
    return !zone.empty() && zone.size() <= 64 && std::ranges::all_of(zone, letter) && zone[0] != '/' &&
           find_zone(zone) != nullptr;
}

SiteClock SiteClock::of_zone(std::string_view zone) {
    SiteClock out;
    const date::time_zone* found = zone.empty() ? nullptr : find_zone(zone);
    if (found == nullptr) return out;
    auto changes = std::make_shared<std::vector<Change>>();
    try {
        const date::sys_seconds end{date::sys_days(date::year(year_last) / 12 / 31)};
        date::sys_seconds at{date::sys_days(date::year(year_first) / 1 / 1)};
        while (at < end) {
            const date::sys_info info = found->get_info(at);
            changes->push_back(
                {at.time_since_epoch().count(), static_cast<std::int32_t>(info.offset.count())});
            if (info.end <= at) break;
            at = info.end;
        }
    } catch (const std::exception&) {
        return out;
    }
    out.changes_ = std::move(changes);
    return out;
}

SiteClock::Moment SiteClock::at(Timestamp when) const noexcept {
    std::int64_t local = seconds_of(when);
    if (changes_ && !changes_->empty()) {
        const auto after = std::ranges::upper_bound(*changes_, local, {}, &Change::from);
        local += after == changes_->begin() ? changes_->front().offset : std::prev(after)->offset;
    }
    constexpr std::int64_t day = 86'400;
    const std::int64_t days = local >= 0 ? local / day : (local - day + 1) / day;
    const std::int64_t second = local - days * day;
    // 1 January 1970 was a Thursday.
    const std::int64_t weekday = ((days + 3) % 7 + 7) % 7;
    return {static_cast<std::uint16_t>(second / 60), static_cast<std::uint8_t>(weekday)};
}

}  // namespace egresswatch::rules
