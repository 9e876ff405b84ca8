// classifier/inspect/assembler.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/assembler.h"

#include <algorithm>
#include <cstring>

namespace egresswatch::inspect {

bool Assembler::add(std::size_t offset, ByteSpan data) noexcept {
    if (offset > bytes_.size()) return false;
    const bool whole = data.size() <= bytes_.size() - offset;
    if (!whole) data = data.first(bytes_.size() - offset);
    if (data.empty()) return whole;
    Piece added{offset, offset + data.size()};
    // Pieces that touch the new one become part of it.
    std::size_t first = 0;
    while (first < pieces_ && piece_[first].end < added.begin) ++first;
    std::size_t last = first;
    for (; last < pieces_ && piece_[last].begin <= added.end; ++last) {
        added.begin = std::min(added.begin, piece_[last].begin);
        added.end = std::max(added.end, piece_[last].end);
    }
    if (first == last) {
        if (pieces_ == pieces_max) return false;
        std::move_backward(piece_.begin() + first, piece_.begin() + pieces_, piece_.begin() + pieces_ + 1);
        ++pieces_;
    } else {
        std::move(piece_.begin() + last, piece_.begin() + pieces_, piece_.begin() + first + 1);
        pieces_ -= last - first - 1;
    }
    piece_[first] = added;
    std::memcpy(bytes_.data() + offset, data.data(), data.size());
    return whole;
}

ByteSpan Assembler::prefix() const noexcept {
    if (pieces_ == 0 || piece_[0].begin != 0) return {};
    return {bytes_.data(), piece_[0].end};
}

void Assembler::drop(std::size_t bytes) noexcept {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < pieces_; ++i)
        if (piece_[i].end > bytes)
            piece_[kept++] = {std::max(piece_[i].begin, bytes) - bytes, piece_[i].end - bytes};
    pieces_ = kept;
    if (kept != 0) std::memmove(bytes_.data(), bytes_.data() + bytes, piece_[kept - 1].end);
}

bool StreamHead::add(std::uint32_t sequence, bool syn, ByteSpan data) noexcept {
    if (syn) {
        // A new connection under the same ports begins anew.
        if (begun_ && first_ != sequence + 1) bytes_.clear();
        first_ = sequence + 1;
        begun_ = syn_ = true;
        between_ = false;
        return bytes_.add(0, data);  // TCP Fast Open, RFC 7413
    }
    if (data.empty()) return true;
    if (!begun_) {
        first_ = sequence;
        begun_ = true;
    }
    std::uint32_t offset = sequence - first_;
    if (offset < 0x80000000u) {
        if (between_) {
            first_ = sequence;
            offset = 0;
        }
        between_ = false;
        return bytes_.add(offset, data);
    }
    // Before the first byte: a retransmission, or the start of a capture in the middle, out of order.
    const std::uint32_t before = first_ - sequence;
    missed_start_ = true;
    if (before >= data.size()) return true;
    between_ = false;
    return bytes_.add(0, data.subspan(before));
}

void StreamHead::skip(std::uint32_t bytes) noexcept {
    bytes_.drop(bytes);
    first_ += bytes;
    between_ = bytes_.empty();
}

}  // namespace egresswatch::inspect
