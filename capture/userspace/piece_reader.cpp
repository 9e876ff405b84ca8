// capture/userspace/piece_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/piece_reader.h"

namespace egresswatch::capture {

void PieceReader::read(FilePiece& piece) {
    piece.window.reset();  // before the reader needs another one
    const auto read = reader_.next_batch(piece.batch);
    piece.bytes_read = reader_.offset();
    if (!read) piece.damage = read.error();
    piece.is_last = piece.batch.packets.empty();
    if (!piece.is_last) piece.window = reader_.window();
}

}  // namespace egresswatch::capture
