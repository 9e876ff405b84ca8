// rules/group_store.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_store.h"

#include <linux/mman.h>  // MADV_COLLAPSE
#include <sys/mman.h>

namespace egresswatch::rules {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

}  // namespace

ZeroedArray<std::byte> GroupPlaces::address_space(std::size_t bytes) {
    if (bytes <= huge_page) return ZeroedArray<std::byte>(bytes);
    // Whole huge pages: then the kernel aligns it to one.
    ZeroedArray<std::byte> out((bytes + huge_page - 1) & ~(huge_page - 1));
    (void)madvise(out.data(), huge_page, MADV_NOHUGEPAGE);
    return out;
}

void GroupPlaces::gather(ZeroedArray<std::byte>& memory) noexcept {
    if (memory.size() <= huge_page) return;
    // Where the kernel cannot (before 6.1), or has none, it stays in small pages.
    (void)madvise(memory.data(), huge_page, MADV_HUGEPAGE);
    (void)madvise(memory.data(), huge_page, MADV_COLLAPSE);
}

}  // namespace egresswatch::rules
