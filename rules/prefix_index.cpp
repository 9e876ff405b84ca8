// rules/prefix_index.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/prefix_index.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace egresswatch::rules {

namespace {

unsigned __int128 number_of(const Address& address) {
    unsigned __int128 out = 0;
    for (const std::uint8_t byte : address.bytes) out = out << 8 | byte;
    return out;
}

}  // namespace

void PrefixIndex::add(std::uint32_t set, const Prefix& prefix) {
    if (prefix.is_ipv4())
        four_.push_back({prefix.base.ipv4(), prefix.last().ipv4(), set});
    else
        six_.push_back({number_of(prefix.base), number_of(prefix.last()), set});
}

void PrefixIndex::build() {
    tile(std::exchange(four_, {}), family4_, 32);
    tile(std::exchange(six_, {}), family6_, 128);
}

// Prefixes are nested or apart: a stack holds those that are open.
void PrefixIndex::tile(std::vector<Entry> entries, Family& family, unsigned bits) {
    std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
        if (a.first != b.first) return a.first < b.first;
        return a.last != b.last ? a.last > b.last : a.set < b.set;
    });
    struct Open {
        Number last;
        Place place;
    };
    std::vector<Open> open;
    auto& pieces = family.pieces;
    const auto emit = [&](Number first, Place place) {
        if (!pieces.empty() && pieces.back().first == first)
            pieces.back().place = place;
        else
            pieces.push_back({first, place});
    };
    const Number highest = bits == 128 ? ~Number{0} : (Number{1} << bits) - 1;
    const auto close = [&] {
        const Number last = open.back().last;
        open.pop_back();
        if (last != highest) emit(last + 1, open.empty() ? 0 : open.back().place);
    };
    emit(0, 0);
    for (const Entry& entry : entries) {
        while (!open.empty() && open.back().last < entry.first) close();
        const Place outer = open.empty() ? 0 : open.back().place;
        Place place = outer;
        if (!contains(outer, entry.set)) {
            place = static_cast<Place>(places_.size());
            places_.push_back({outer, entry.set});
        }
        open.push_back({entry.last, place});
        emit(entry.first, place);
    }
    while (!open.empty()) close();

    if (entries.empty()) return;
    family.by_head.resize((1u << head_bits) + 1);
    std::size_t piece = 0;
    for (std::size_t head = 0; head < family.by_head.size(); ++head) {
        const Number first = static_cast<Number>(head) << (bits - head_bits);
        while (piece + 1 < pieces.size() && (head == 1u << head_bits || pieces[piece + 1].first <= first))
            ++piece;
        family.by_head[head] = static_cast<std::uint32_t>(piece);
    }
}

PrefixIndex::Place PrefixIndex::find_in(const Family& family, Number number, unsigned bits) noexcept {
    if (family.by_head.empty()) return 0;
    const auto head = static_cast<std::size_t>(number >> (bits - head_bits));
    std::size_t low = family.by_head[head], high = family.by_head[head + 1] + 1;
    while (high - low > 1) {
        const std::size_t middle = (low + high) / 2;
        (family.pieces[middle].first <= number ? low : high) = middle;
    }
    return family.pieces[low].place;
}

PrefixIndex::Place PrefixIndex::find(const Address& address) const noexcept {
    if (empty()) return 0;
    if (address.is_ipv4()) return find_in(family4_, address.ipv4(), 32);
    const auto& bytes = address.bytes;
    const auto four = [&](std::size_t at) {
        return static_cast<std::uint32_t>(bytes[at]) << 24 | static_cast<std::uint32_t>(bytes[at + 1]) << 16 |
               static_cast<std::uint32_t>(bytes[at + 2]) << 8 | bytes[at + 3];
    };
    constexpr std::uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};  // RFC 6052
    if (std::memcmp(bytes.data(), nat64, sizeof nat64) == 0) return find_in(family4_, four(12), 32);
    if (bytes[0] == 0x20 && bytes[1] == 0x02) return find_in(family4_, four(2), 32);  // RFC 3056
    return find_in(family6_, number_of(address), 128);
}

}  // namespace egresswatch::rules
