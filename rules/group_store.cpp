// rules/group_store.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace egresswatch::rules {

namespace {

constexpr std::size_t entries_min = 64;

// Of a table when it is largest.
std::size_t entries_for(std::size_t groups) {
    return std::max(entries_min, std::bit_ceil(2 * groups));
}

// In small pages: most stores hold little, and clearing large ones costs more than the TLB misses that they
// spare; what a search needs is fetched ahead.
ZeroedArray<std::byte> address_space(std::size_t bytes) {
    ZeroedArray<std::byte> out(bytes);
    (void)madvise(out.data(), bytes, MADV_NOHUGEPAGE);
    return out;
}

}  // namespace

// Address space for all that the store may come to hold: the table, which grows in place, the links, and the
// slots, each of the three from a line on.
void GroupPlaces::reserve() {
    const auto lines = [](std::size_t bytes) { return (bytes + 63) & ~std::size_t{63}; };
    const std::size_t numbers = std::max<std::size_t>(groups_max_, 1) + 1;
    const std::size_t table_bytes = lines(entries_for(groups_max_) * sizeof(Entry));
    const std::size_t link_bytes = lines(numbers * sizeof(Link));
    memory_ = address_space(table_bytes + link_bytes + numbers * slot_bytes_);
    table_ = reinterpret_cast<Entry*>(memory_.data());
    links_ = reinterpret_cast<Link*>(memory_.data() + table_bytes);
    slots_ = memory_.data() + table_bytes + link_bytes;
}

void GroupPlaces::grow() {
    const std::size_t entries = slots_ == nullptr ? entries_min : 2 * (mask_ + 1);
    if (slots_ == nullptr) reserve();
    mask_ = entries - 1;
    std::fill_n(table_, entries, Entry{});
    for (Number next = oldest(); next != none; next = links_[next].newer)
        table_[free_place(links_[next].tag)] = {links_[next].tag, next};
}

}  // namespace egresswatch::rules
