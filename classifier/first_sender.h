// classifier/first_sender.h - which end of each conversation was seen sending first.
//
// The direction of packets that come from a file or a mirror port when nobody says which networks are local.
// A conversation is the unordered pair of (address, port) and the protocol. Kept as a 63-bit fingerprint and
// one bit: 8 bytes a conversation. Two conversations with the same fingerprint would share their direction:
// one chance in a million with five million conversations.
// Threads:  one.
// Limits:   conversations_max; beyond it the sender of each packet of a new conversation counts as the first,
// and forgotten() counts those packets. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "classifier/datapath/layout.h"

namespace egresswatch {

class FirstSenders {
public:
    static constexpr std::size_t conversations_max = std::size_t{1} << 24;  // 256 MiB at half load

    explicit FirstSenders(std::size_t limit = conversations_max) : limit_(limit), cells_(1 << 12) {}

    // True: the source of this packet sent the first packet of its conversation. Ports as in the header.
    [[nodiscard]] bool sent_first(const std::uint8_t* source, const std::uint8_t* destination,
                                  std::uint16_t source_port, std::uint16_t destination_port,
                                  std::uint8_t l4_proto);
    [[nodiscard]] std::uint64_t forgotten() const noexcept { return forgotten_; }
    [[nodiscard]] std::size_t size() const noexcept { return used_; }

private:
    void grow();

    std::size_t limit_;
    std::size_t used_ = 0;
    std::uint64_t forgotten_ = 0;
    std::vector<std::uint64_t> cells_;  // 0: free; bit 0: the higher end sent first; a power of two of them
};

}  // namespace egresswatch
