// classifier/first_sender.h - which end of each conversation was seen sending first.
//
// The direction of packets that come from a file or a mirror port when addresses do not tell which end is
// local. A conversation is the unordered pair of (address, port) and the protocol. Kept as a 63-bit
// fingerprint and one bit: 8 bytes a conversation. Two conversations with the same fingerprint would share
// their direction: one chance in a million with five million conversations. Threads:  one; conversation()
// any. Limits:   conversations_max; beyond it the sender of each packet of a new conversation counts as the
// first,
//           and forgotten() counts those packets. 16 to 32 B a conversation, half as much again while it
//           grows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "classifier/datapath/layout.h"
#include "classifier/zeroed_array.h"

namespace egresswatch {

class FirstSenders {
public:
    static constexpr std::size_t conversations_max = std::size_t{1} << 24;  // 256 MiB at half load

    explicit FirstSenders(std::size_t limit = conversations_max) : limit_(limit), cells_(1 << 12) {}

    // What a packet is asked about by: the fingerprint, and in bit 0 whether the higher end sends. Ports as
    // in the header.
    [[nodiscard]] static std::uint64_t conversation(const std::uint8_t* source,
                                                    const std::uint8_t* destination,
                                                    std::uint16_t source_port, std::uint16_t destination_port,
                                                    std::uint8_t l4_proto) noexcept;
    void prefetch(std::uint64_t conversation) const noexcept {
        __builtin_prefetch(cells_.data() + ((conversation >> 1) & (cells_.size() - 1)));
    }
    // True: the source of this packet sent the first packet of its conversation.
    [[nodiscard]] bool sent_first(std::uint64_t conversation);
    [[nodiscard]] std::uint64_t forgotten() const noexcept { return forgotten_; }
    [[nodiscard]] std::size_t size() const noexcept { return used_; }

private:
    void grow();

    std::size_t limit_;
    std::size_t used_ = 0;
    std::uint64_t forgotten_ = 0;
    ZeroedArray<std::uint64_t> cells_;  // 0: free; bit 0: the higher end sent first; a power of two of them
};

}  // namespace egresswatch
