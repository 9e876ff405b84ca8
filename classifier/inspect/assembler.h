// classifier/inspect/assembler.h - the first bytes of a stream, put together from pieces in any order.
//
// In:      pieces with their offset: TCP segments by sequence number, CRYPTO frames of QUIC.
// Out:     what is there from the first byte on without a gap. A piece that overlaps another replaces it.
// Limits:  bytes_max from the start of the stream; pieces_max apart from each other. A piece beyond them is
//          left out, and add() says so.
// Threads: one owner. No allocation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

class Assembler {
public:
    static constexpr std::size_t bytes_max = 16384;  // a ClientHello that fills a record whole
    static constexpr std::size_t pieces_max = 32;

    bool add(std::size_t offset, ByteSpan data) noexcept;
    [[nodiscard]] ByteSpan prefix() const noexcept;
    // Takes the first bytes away: what was at `bytes` is the beginning.
    void drop(std::size_t bytes) noexcept;
    [[nodiscard]] bool empty() const noexcept { return pieces_ == 0; }
    [[nodiscard]] std::size_t held_to() const noexcept { return pieces_ == 0 ? 0 : piece_[pieces_ - 1].end; }
    void clear() noexcept { pieces_ = 0; }

private:
    struct Piece {
        std::size_t begin, end;
    };
    std::array<std::uint8_t, bytes_max> bytes_;
    std::array<Piece, pieces_max> piece_;  // by begin, apart from each other
    std::size_t pieces_ = 0;
};

// One direction of a TCP connection, by sequence number.
class StreamHead {
public:
    // `sequence` as in the header; of a segment with SYN the first byte of data has the number behind it
    // (RFC 9293 section 3.4). A capture that begins in the middle begins with the first segment that is seen.
    // False: a piece of it has no room.
    bool add(std::uint32_t sequence, bool syn, ByteSpan data) noexcept;
    [[nodiscard]] ByteSpan prefix() const noexcept { return bytes_.prefix(); }
    [[nodiscard]] bool begun() const noexcept { return begun_; }
    [[nodiscard]] bool began_with_syn() const noexcept { return syn_; }
    // Data came that lies before what was taken for the first byte: the prefix is not the beginning.
    [[nodiscard]] bool missed_start() const noexcept { return missed_start_; }
    // Where the last byte that is there lies, from the first one on.
    [[nodiscard]] std::size_t held_to() const noexcept { return bytes_.held_to(); }
    // The next `bytes` of the stream, those that are yet to come too, are of no interest. Where nothing is
    // left that has come already, what comes first behind them begins the stream anew, whether something
    // before it is missing or not.
    void skip(std::uint32_t bytes) noexcept;
    void clear() noexcept {
        bytes_.clear();
        begun_ = syn_ = missed_start_ = between_ = false;
    }

private:
    Assembler bytes_;
    std::uint32_t first_ = 0;  // sequence number of the first byte
    bool begun_ = false;
    bool syn_ = false;
    bool missed_start_ = false;
    bool between_ = false;  // nothing is held: see skip()
};

}  // namespace egresswatch::inspect
