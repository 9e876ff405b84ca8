// classifier/known_tuples.h - what a classifier has found out of the five-tuples that it saw last. Internal
// to classifier/. SPDX-License-Identifier: Apache-2.0
//
// Of a plain packet (plain_packet.h) direction, class and flow key follow from its five-tuple, the direction
// that the engine knows, and the region block; so does the hash. The next packet of the same tuple finds them
// in one cache line, in place of two region lookups' worth of lines.
// Not in here: tuples whose direction depends on what came before (FirstSenders), tunnels, and whatever a
// packet says beside its five-tuple.
// Memory:  places_max lines of 64 bytes; a tuple takes the place of the one before it. Life: forget() when
// the region block changes.
#pragma once

#include <cstdint>

#include "classifier/datapath/layout.h"
#include "classifier/plain_packet.h"
#include "classifier/zeroed_array.h"

namespace egresswatch {

constexpr std::uint8_t sampled_always = 0xff;

// In the direction in which it was sent.
struct alignas(64) KnownTuple {
    datapath::flow_key key;
    std::uint64_t hash;  // of the key
    // Of PlainPacket, with the given direction: see KnownTuples::word(). Zero: an empty place.
    std::uint64_t sent;
    std::uint8_t direction;
    std::uint8_t kind;
    bool tracked;
    // So many of the first packets of its flow have a payload that may be wanted.
    std::uint8_t sampled;
    std::uint32_t entry;  // where a flow table found its flow last; it looks whether it is there still

    // Which end is the source is a toss-up for a CPU that guesses: no branch is made of it.
    [[nodiscard]] bool is_of(const PlainPacket& packet, std::uint64_t word) const noexcept {
        static_assert(datapath::DIRECTION_OUT == 0 && datapath::DIRECTION_IN == 1);
        using datapath::load64;
        const auto* local = reinterpret_cast<const std::uint8_t*>(&key);
        const std::size_t turn = std::size_t{direction} * 16;
        const std::uint8_t* source = local + turn;
        const std::uint8_t* destination = local + 16 - turn;
        return ((load64(source) ^ packet.source[0]) | (load64(source + 8) ^ packet.source[1]) |
                (load64(destination) ^ packet.destination[0]) |
                (load64(destination + 8) ^ packet.destination[1]) | (sent ^ word)) == 0;
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
    // One multiplication, folded: neighbours of an address or a port get places of their own. Who crowds a
    // place makes its packets cost what they cost without this.
    [[nodiscard]] static std::uint32_t place_of(const PlainPacket& packet, std::uint64_t word) noexcept {
        const std::uint64_t source = packet.source[0] ^ packet.source[1] ^ word ^ 0x9e3779b97f4a7c15ull;
        const std::uint64_t destination =
            packet.destination[0] * 3 ^ packet.destination[1] ^ 0xbf58476d1ce4e5b9ull;
        __extension__ using Product = unsigned __int128;
        const Product product = static_cast<Product>(source) * destination;
        const auto folded = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
        return static_cast<std::uint32_t>(folded % places_max);
    }
    [[nodiscard]] KnownTuple& operator[](std::uint32_t place) noexcept { return places_[place]; }
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
