// classifier/tuple_sums.h - what packets of tuples that come again and again add up to. Internal to
// classifier/. SPDX-License-Identifier: Apache-2.0
//
// Where few flows send most of the packets, each of these packets would add to the same totals and the same
// entry. They add to a sum beside their tuple (known_tuples.h) in its place, and totals and entry are touched
// once for all (FlowTable::State::account_repeats()).
// Memory:  one for each place of KnownTuples, 1 MiB; written where tuples repeat.   Life: every sum that is
// begun is settled before anything else may ask its flow, its class or the clock.
#pragma once

#include <cstdint>

namespace egresswatch {

struct TupleSum {
    std::uint64_t bytes_left;  // of IP, before there is a volume to tell; counts down
    std::uint64_t frame_bytes;
    std::uint64_t last_ns;  // the latest
    std::uint32_t packets;  // 0: none is begun
    std::uint8_t tcp_flags;
    std::uint8_t telling_flags;  // a packet with one of these says more than that it is one more
};
static_assert(sizeof(TupleSum) == 32);

}  // namespace egresswatch
