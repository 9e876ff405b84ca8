// rules/region_groups.h - which countries are in which legal group, and since when.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <set>
#include <span>
#include <string_view>

#include "classifier/region/region_spec.h"

namespace egresswatch::rules {

// In the group from `from` until the day before `until`.
struct Membership {
    const char* country;
    std::chrono::year_month_day from;
    std::chrono::year_month_day until;  // far future: still a member
};

struct RegionGroup {
    const char* name;
    const char* title;
    const char* source;
    const char* caveat;  // what membership does not mean; empty: nothing to say
    std::span<const Membership> members;
};

[[nodiscard]] std::span<const RegionGroup> region_groups() noexcept;
[[nodiscard]] const RegionGroup* find_region_group(std::string_view name) noexcept;
// Members on that day, 00:00 to 24:00 UTC.
[[nodiscard]] std::set<Country> members(const RegionGroup& group, std::chrono::year_month_day day);
// The day on which the tables below were last compared with their sources.
[[nodiscard]] std::chrono::year_month_day region_groups_reviewed() noexcept;

// ISO 3166-1 alpha-2, officially assigned, and XK (Kosovo: user-assigned, in use by the geo databases).
[[nodiscard]] bool is_country_code(std::string_view code) noexcept;
[[nodiscard]] std::span<const std::string_view> country_codes() noexcept;

}  // namespace egresswatch::rules
