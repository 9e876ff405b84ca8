// rules/prefix_index.h - which of the policy's sets of prefixes an address is in. Immutable once built.
// SPDX-License-Identifier: Apache-2.0
//
// The region table gives every combination of lists a class, and has room for CLASSES_MAX classes. Prefixes
// that rules and allow entries write in place are looked up here instead, so that ten thousand of them need
// no class. Cost: a search in the addresses' first 16 bits, then a binary search: about 10 ns; 24 bytes a
// prefix.
#pragma once

#include <cstdint>
#include <vector>

#include "classifier/address.h"

namespace egresswatch::rules {

class PrefixIndex {
public:
    // A place in the tree of nested prefixes: 0 is outside of all of them.
    using Place = std::uint32_t;

    void add(std::uint32_t set, const Prefix& prefix);
    void build();

    [[nodiscard]] bool empty() const noexcept { return places_.size() <= 1; }
    // Addresses that stand for an IPv4 address are looked up as that one, as the region table does.
    [[nodiscard]] Place find(const Address& address) const noexcept;
    [[nodiscard]] bool contains(Place place, std::uint32_t set) const noexcept {
        for (; place != 0; place = places_[place].outer)
            if (places_[place].set == set) return true;
        return false;
    }
    // Calls visit(set) for every set that the place is in, each once.
    template <typename Visit>
    void each_set(Place place, Visit visit) const {
        for (; place != 0; place = places_[place].outer) visit(places_[place].set);
    }

private:
    using Number = unsigned __int128;
    struct Entry {
        Number first, last;
        std::uint32_t set;
    };
    struct Node {
        Place outer;
        std::uint32_t set;
    };
    struct Piece {
        Number first;
        Place place;
    };
    struct Family {
        std::vector<Piece> pieces;           // ascending; the first starts at 0
        std::vector<std::uint32_t> by_head;  // of the upper 16 bits: the first piece that may hold them
    };
    static constexpr unsigned head_bits = 16;

    void tile(std::vector<Entry> entries, Family& family, unsigned bits);
    [[nodiscard]] static Place find_in(const Family& family, Number number, unsigned bits) noexcept;

    std::vector<Entry> four_, six_;  // until build()
    std::vector<Node> places_{1};
    Family family4_, family6_;
};

}  // namespace egresswatch::rules
