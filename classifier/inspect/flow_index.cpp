// classifier/inspect/flow_index.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/flow_index.h"

#include <utility>

namespace egresswatch::inspect {

void FlowIndex::put(Slot slot) noexcept {
    std::size_t at = slot.hash & mask_;
    while (slots_[at].number != none) at = (at + 1) & mask_;
    slots_[at] = slot;
}

void FlowIndex::add(std::uint32_t hash, std::uint32_t number) {
    if (2 * (size_ + 1) > slots_.size()) {
        const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(2 * slots_.size()));
        mask_ = slots_.size() - 1;
        for (const Slot& slot : old)
            if (slot.number != none) put(slot);
    }
    put({hash, number});
    ++size_;
}

void FlowIndex::remove(std::uint32_t hash, std::uint32_t number) noexcept {
    std::size_t gap = hash & mask_;
    while (slots_[gap].number != number) gap = (gap + 1) & mask_;
    // What lies behind moves into the gap, unless that is before the place where its search begins.
    for (std::size_t at = (gap + 1) & mask_; slots_[at].number != none; at = (at + 1) & mask_) {
        const std::size_t home = slots_[at].hash & mask_;
        if (((at - home) & mask_) < ((at - gap) & mask_)) continue;
        slots_[gap] = slots_[at];
        gap = at;
    }
    slots_[gap].number = none;
    --size_;
}

}  // namespace egresswatch::inspect
