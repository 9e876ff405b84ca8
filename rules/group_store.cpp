// rules/group_store.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_store.h"

#include <linux/mman.h>  // MADV_COLLAPSE
#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace egresswatch::rules {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t entries_min = 64;

// Of a table when it is largest.
std::size_t entries_for(std::size_t groups) {
    return std::max(entries_min, std::bit_ceil(2 * groups));
}

// Most stores hold little: what comes first is in small pages, ...
ZeroedArray<std::byte> address_space(std::size_t bytes) {
    if (bytes <= huge_page) return ZeroedArray<std::byte>(bytes);
    // Whole huge pages: then the kernel aligns it to one.
    ZeroedArray<std::byte> out((bytes + huge_page - 1) & ~(huge_page - 1));
    (void)madvise(out.data(), huge_page, MADV_NOHUGEPAGE);
    return out;
}

// ... until the table is as large as it gets: every search of a large store is a page of its own.
void gather(ZeroedArray<std::byte>& memory) {
    if (memory.size() <= huge_page) return;
    // Where the kernel cannot (before 6.1), or has none, it stays in small pages.
    (void)madvise(memory.data(), huge_page, MADV_HUGEPAGE);
    (void)madvise(memory.data(), huge_page, MADV_COLLAPSE);
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
    if (entries == entries_for(groups_max_)) gather(memory_);
}

}  // namespace egresswatch::rules
