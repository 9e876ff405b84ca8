// capture/userspace/piece_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/piece_reader.h"

#include <algorithm>

#include "classifier/link_type.h"

namespace egresswatch::capture {

void PieceReader::read(FilePiece& piece) {
    piece.packets_without_time = 0;
    piece.packets_out_of_order = 0;
    piece.unsupported.clear();
    piece.window.reset();  // before the reader needs another one
    const auto read = reader_.next_batch(piece.records);
    piece.bytes_read = reader_.offset();
    if (!read) piece.damage = read.error();
    piece.is_last = piece.records.empty();
    if (piece.is_last) return;
    piece.window = reader_.window();
    std::uint64_t without_time = 0;
    std::uint64_t out_of_order = 0;
    auto latest = latest_;
    for (const PacketRecord& record : piece.records) {
        without_time += record.has_time ? 0 : 1;
        out_of_order += record.captured_at < latest ? 1 : 0;
        latest = std::max(latest, record.captured_at);
    }
    latest_ = latest;
    piece.packets_without_time = without_time;
    piece.packets_out_of_order = out_of_order;
}

void prepare(FilePiece& piece) {
    piece.inputs.resize(piece.records.size());
    PacketInput* input = piece.inputs.data();
    for (const PacketRecord& record : piece.records) {
        input->bytes = record.bytes;
        input->wire_bytes = record.wire_bytes;
        input->interface = record.interface;
        input->at_ns = static_cast<std::uint64_t>(record.captured_at.time_since_epoch().count());
        input->link = locate_link_inline(record.link_type, record.bytes);
        if (input->link.start == LinkStart::not_ip && !link_type_supported(record.link_type))
            ++piece.unsupported[record.link_type];
        ++input;
    }
}

}  // namespace egresswatch::capture
