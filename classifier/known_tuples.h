// classifier/known_tuples.h - what a classifier has found out of the five-tuples that it saw last. Internal
// to classifier/. SPDX-License-Identifier: Apache-2.0
//
// Of a plain packet (plain_packet.h) direction, class and flow key follow from its five-tuple, the direction
// that the engine knows, and the region block; so does the hash. The next packet of the same tuple finds them
// in one cache line, in place of two region lookups' worth of lines.
// Not in here: tuples whose direction depends on what came before (FirstSenders), tunnels, and whatever a
// packet says beside its five-tuple.
// Memory:  places_max lines of 64 bytes; a tuple takes the place of the one before it. Life: forget() when
// the region block changes, and where the count of ended flows is used up.
#pragma once

#include <cstddef>
#include <cstdint>

#include "classifier/datapath/layout.h"
#include "classifier/plain_packet.h"
#include "classifier/zeroed_array.h"

namespace egresswatch {

constexpr std::uint8_t sampled_always = 0xff;

// Direction and outcome of a packet as one number: where its sum stands in an InterfaceTally.
constexpr std::uint8_t outcome_bits = 3;
static_assert(datapath::OUTCOME_COUNT <= 1 << outcome_bits);
[[nodiscard]] constexpr std::uint8_t sum_of(std::uint8_t direction, std::uint8_t outcome) noexcept {
    return static_cast<std::uint8_t>(direction << outcome_bits | outcome);
}

// In the direction in which it was sent.
struct alignas(64) KnownTuple {
    datapath::flow_key key;
    std::uint64_t hash;  // table_hash() of the key; 0: it gets no flow
    // Of PlainPacket, with the given direction: see KnownTuples::word(). Zero: an empty place.
    std::uint64_t sent;
    std::uint8_t sum;  // sum_of()
    // So many of the first packets of its flow have a payload that may be wanted.
    std::uint8_t sampled;
    std::uint16_t ends;   // FlowTable::State::ends when it was found; 0: it has to be looked whether it is
                          // there
    std::uint32_t entry;  // where a flow table found its flow
    static constexpr std::uint32_t no_entry = 0xffffffff;   // it has not been found yet
    static constexpr std::uint32_t untracked = 0xfffffffe;  // it gets no flow

    [[nodiscard]] std::uint8_t direction() const noexcept { return sum >> outcome_bits; }
    [[nodiscard]] std::uint8_t outcome() const noexcept { return sum & ((1 << outcome_bits) - 1); }

    // Which end is the source is a toss-up for a CPU that guesses: no branch is made of it.
    [[nodiscard]] bool is_of(const PlainPacket& packet, std::uint64_t word) const noexcept {
        static_assert(datapath::DIRECTION_OUT == 0 && datapath::DIRECTION_IN == 1);
        const auto* local = reinterpret_cast<const std::uint8_t*>(&key);
        const std::size_t turn = std::size_t{direction()} * 16;
        const Halves differs = (load_halves(local + turn) ^ packet.source) |
                               (load_halves(local + 16 - turn) ^ packet.destination);
        return (differs[0] | differs[1] | (sent ^ word)) == 0;
    }
};
static_assert(sizeof(KnownTuple) == 64, "one cache line");

class KnownTuples {
public:
    static constexpr std::uint32_t places_max = 1u << 15;  // a power of two; 2 MiB
    static constexpr std::uint32_t no_place = 0xffffffff;

    // Never zero, and of none that was before the last forget().
    [[nodiscard]] std::uint64_t word(const PlainPacket& packet, std::uint8_t given) const noexcept {
        return packet.sent | std::uint64_t{given} << 40 | generation_;
    }
    // One multiplication, folded: most neighbours of an address or a port get places of their own. Who crowds
    // a place makes its packets cost what they cost without this.
    [[nodiscard]] KnownTuple& find(const PlainPacket& packet, std::uint64_t word) noexcept {
        const Halves both = __builtin_shufflevector(packet.source, packet.destination, 0, 2) ^
                            __builtin_shufflevector(packet.source, packet.destination, 1, 3);
        __extension__ using Product = unsigned __int128;
        const Product product =
            static_cast<Product>(both[0] ^ word ^ 0x9e3779b97f4a7c15ull) * (both[1] ^ 0xbf58476d1ce4e5b9ull);
        const auto folded = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
        return places_[folded % places_max];
    }
    [[nodiscard]] KnownTuple& operator[](std::uint32_t place) noexcept { return places_[place]; }
    [[nodiscard]] std::uint32_t place_of(const KnownTuple& tuple) const noexcept {
        return static_cast<std::uint32_t>(&tuple - places_.data());
    }
    void forget() {
        generation_ += generation_step;
        if (generation_ != 0) return;
        generation_ = generation_step;
        places_ = ZeroedArray<KnownTuple>(places_max);
    }

private:
    static constexpr std::uint64_t generation_step = std::uint64_t{1} << 48;

    std::uint64_t generation_ = generation_step;
    ZeroedArray<KnownTuple> places_{places_max};
};

}  // namespace egresswatch
