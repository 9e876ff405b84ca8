// classifier/first_sender.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/first_sender.h"

#include <cstring>
#include <utility>

namespace egresswatch {
namespace {

std::uint64_t load(const std::uint8_t* at) noexcept {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// Both halves of a 128-bit product: every bit of the result depends on every bit of the operands.
std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
    __extension__ typedef unsigned __int128 Wide;
    const Wide product = Wide{a} * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

std::uint64_t fingerprint(const std::uint8_t* low, const std::uint8_t* high, std::uint64_t rest) noexcept {
    // Odd constants out of the digits of pi; their only duty is to have no structure.
    constexpr std::uint64_t k0 = 0x243f6a8885a308d3, k1 = 0x13198a2e03707345, k2 = 0xa4093822299f31d1,
                            k3 = 0x082efa98ec4e6c89, k4 = 0x452821e638d01377;
    const std::uint64_t first = fold(load(low) ^ k0, load(low + 8) ^ k1);
    const std::uint64_t second = fold(load(high) ^ k2, load(high + 8) ^ k3);
    const std::uint64_t hash = fold(fold(first ^ rest, second ^ k4), k0 ^ rest) & ~std::uint64_t{1};
    return hash != 0 ? hash : 2;  // 0 marks a free cell
}

}  // namespace

std::uint64_t FirstSenders::conversation(const std::uint8_t* source, const std::uint8_t* destination,
                                         std::uint16_t source_port, std::uint16_t destination_port,
                                         std::uint8_t l4_proto) noexcept {
    const int order = std::memcmp(source, destination, 16);
    const bool source_is_high = order > 0 || (order == 0 && source_port > destination_port);
    const std::uint64_t low_port = source_is_high ? destination_port : source_port;
    const std::uint64_t high_port = source_is_high ? source_port : destination_port;
    return fingerprint(source_is_high ? destination : source, source_is_high ? source : destination,
                       low_port | high_port << 16 | std::uint64_t{l4_proto} << 32) |
           (source_is_high ? 1 : 0);
}

bool FirstSenders::sent_first(std::uint64_t conversation) {
    const std::size_t mask = cells_.size() - 1;
    std::size_t at = (conversation >> 1) & mask;
    for (; cells_[at] != 0; at = (at + 1) & mask)
        if ((cells_[at] >> 1) == (conversation >> 1)) return cells_[at] == conversation;
    if (used_ >= limit_) {
        ++forgotten_;
        return true;
    }
    cells_[at] = conversation;
    if (++used_ * 2 > cells_.size()) grow();
    return true;
}

void FirstSenders::grow() {
    ZeroedArray<std::uint64_t> larger(cells_.size() * 2);
    const std::size_t mask = larger.size() - 1;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
        if (cells_[i] == 0) continue;
        std::size_t at = (cells_[i] >> 1) & mask;
        while (larger[at] != 0) at = (at + 1) & mask;
        larger[at] = cells_[i];
    }
    cells_ = std::move(larger);
}

}  // namespace egresswatch
