// classifier/region/geo_diff.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/geo_diff.h"

#include <algorithm>
#include <map>
#include <utility>

#include "classifier/region/special.h"
#include "classifier/region/wide_integer.h"

namespace egresswatch {

namespace {

std::uint32_t first_of(const GeoSegment4& segment) {
    return segment.first;
}
Uint128 first_of(const GeoSegment6& segment) {
    return static_cast<Uint128>(segment.high) << 64 | segment.low;
}

template <typename Number>
struct Stretch {
    Number first;
    Number last;
};

// What is compared: `within` without the special prefixes.
template <typename Number>
std::vector<Stretch<Number>> ordinary(Number first, Number last) {
    std::vector<Stretch<Number>> stretches;
    for (const auto& special : special_prefixes()) {
        if (special.prefix.is_ipv4() != (Family<Number>::bits == 32)) continue;
        const Number from = Family<Number>::number_of(special.prefix.base);
        const Number to = prefix_last(from, special.prefix.length);
        if (to < first || from > last)
            continue;  // before what is left (nested in the one before), or outside
        if (from > first) stretches.push_back({first, from - 1});
        if (to >= last) return stretches;
        first = to + 1;
    }
    stretches.push_back({first, last});
    return stretches;
}

std::uint16_t country_code(std::uint16_t code) {
    const auto country = code == 0 ? std::nullopt : country_of_code(code);
    return country ? code_of_letters((*country)[0], (*country)[1]) : std::uint16_t{0};
}

Country letters_of(std::uint16_t code) {
    if (code == 0) return {};
    return {static_cast<char>(code & 0xff), static_cast<char>(code >> 8)};
}

template <typename Number, typename Segment>
class Differ {
public:
    Differ(std::span<const Segment> before, std::span<const Segment> after, const std::set<Country>& home)
        : before_(before), after_(after), home_(home) {}

    void compare(const Stretch<Number>& stretch) {
        std::size_t b = at(before_, stretch.first);
        std::size_t a = at(after_, stretch.first);
        for (Number first = stretch.first;;) {
            const Number last = std::min({last_of(before_, b), last_of(after_, a), stretch.last});
            const auto addresses = static_cast<double>(last - first) + 1;
            moved_[{country_code(before_[b].code), country_code(after_[a].code)}] += addresses;
            if (last == stretch.last) return;
            if (last == last_of(before_, b)) b++;
            if (last == last_of(after_, a)) a++;
            first = last + 1;
        }
    }

    [[nodiscard]] GeoFamilyDiff result() const {
        GeoFamilyDiff diff;
        for (const auto& [codes, addresses] : moved_) {
            diff.addresses += addresses;
            if (codes.first == codes.second) continue;
            diff.country_moved += addresses;
            if (kind_of(codes.first) != kind_of(codes.second)) diff.class_moved += addresses;
            diff.moves.push_back({letters_of(codes.first), letters_of(codes.second), addresses});
        }
        std::ranges::stable_sort(diff.moves, std::ranges::greater{}, &GeoMove::addresses);
        return diff;
    }

private:
    static std::size_t at(std::span<const Segment> segments, Number number) {
        const auto after = std::ranges::upper_bound(segments, number, {},
                                                    [](const Segment& segment) { return first_of(segment); });
        return static_cast<std::size_t>(after - segments.begin()) - 1;
    }
    static Number last_of(std::span<const Segment> segments, std::size_t i) {
        return i + 1 < segments.size() ? first_of(segments[i + 1]) - 1 : number_max<Number>;
    }
    [[nodiscard]] datapath::region_kind kind_of(std::uint16_t code) const {
        if (code == 0) return datapath::KIND_UNKNOWN;
        return home_.contains(letters_of(code)) ? datapath::KIND_HOME : datapath::KIND_OUTSIDE;
    }

    std::span<const Segment> before_;
    std::span<const Segment> after_;
    const std::set<Country>& home_;
    std::map<std::pair<std::uint16_t, std::uint16_t>, double> moved_;
};

}  // namespace

GeoDiff diff_geo(const GeoData& before, const GeoData& after, const std::set<Country>& home) {
    Differ<std::uint32_t, GeoSegment4> four(before.segments4(), after.segments4(), home);
    for (const auto& stretch : ordinary<std::uint32_t>(0, number_max<std::uint32_t>)) four.compare(stretch);
    Differ<Uint128, GeoSegment6> six(before.segments6(), after.segments6(), home);
    const Uint128 global_first = Uint128{1} << 125;  // 2000::/3
    for (const auto& stretch : ordinary<Uint128>(global_first, prefix_last(global_first, 3)))
        six.compare(stretch);
    return {four.result(), six.result()};
}

}  // namespace egresswatch
