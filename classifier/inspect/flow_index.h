// classifier/inspect/flow_index.h - which entry of a block belongs to a key, by the hash of the key.
//
// Open addressing with one probe after the other, half full at the most; a number that goes closes its gap,
// so that a search ends at the first free slot always.
// Memory:  8 bytes a slot, two to four slots a number.
// Threads: one owner.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace egresswatch::inspect {

class FlowIndex {
public:
    static constexpr std::uint32_t none = 0xffffffff;

    // The number with this hash of which `is_it` says so; none: there is none.
    template <typename IsIt>
    [[nodiscard]] std::uint32_t find(std::uint32_t hash, IsIt&& is_it) const {
        for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
            const Slot& slot = slots_[at];
            if (slot.number == none) return none;
            if (slot.hash == hash && is_it(slot.number)) return slot.number;
        }
    }
    // One that is not there yet.
    void add(std::uint32_t hash, std::uint32_t number);
    // One that is there.
    void remove(std::uint32_t hash, std::uint32_t number) noexcept;
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    struct Slot {
        std::uint32_t hash = 0;
        std::uint32_t number = none;
    };
    static constexpr std::size_t slots_min = 64;
    void put(Slot slot) noexcept;

    std::vector<Slot> slots_ = std::vector<Slot>(slots_min);
    std::size_t mask_ = slots_min - 1;
    std::size_t size_ = 0;
};

}  // namespace egresswatch::inspect
