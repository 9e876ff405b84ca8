// rules/group_store.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_store.h"

#include <algorithm>

namespace egresswatch::rules {

// Twice as large: the table, and as many links and slots as it has room for. Of fresh memory the kernel gives
// what is touched, in small pages: most stores hold little, and clearing large pages costs more than the TLB
// misses that they spare; what a search needs is fetched ahead.
void GroupPlaces::grow() {
    constexpr std::size_t buckets_min = 8;
    const std::size_t buckets = slots_ == nullptr ? buckets_min : 2 * (mask_ + 1);
    const std::size_t room = bucket_groups * buckets;
    const std::size_t numbers = room + 1;  // from 1 on
    const auto take = [](auto& memory, std::size_t count) {
        memory.extend(count, memory.small_pages);
        return memory.data();
    };
    links_ = take(link_memory_, numbers);
    slots_ = take(slot_memory_, numbers * slot_bytes_);
    table_ = take(table_memory_, buckets);
    mask_ = buckets - 1;
    room_ = room;  // once there is memory for it
    std::fill_n(table_, buckets, Bucket{});
    for (Number next = oldest(); next != none; next = links_[next].newer) put_in(links_[next].tag, next);
}

}  // namespace egresswatch::rules
