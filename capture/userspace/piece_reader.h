// capture/userspace/piece_reader.h - pieces of a capture file, ready to be classified. Internal to
// userspace/. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "capture/pcap/file_reader.h"
#include "classifier/packet_classifier.h"

namespace egresswatch::capture {

// Some packets of the file, in its order, and what is to be said about them.
struct FilePiece {
    std::vector<PacketRecord> records;
    std::vector<PacketInput> inputs;     // of the records, once prepared
    std::shared_ptr<const void> window;  // what both point into
    std::uint64_t bytes_read = 0;        // of the file, up to here
    std::uint64_t packets_without_time = 0;
    std::uint64_t packets_out_of_order = 0;
    std::map<std::uint32_t, std::uint64_t> unsupported;  // packets by link type number
    std::optional<FileError> damage;                     // the piece is empty, and the last one
    bool is_last = false;                                // the piece is empty
};

// Threads: one at a time.
class PieceReader {
public:
    explicit PieceReader(FileReader reader) : reader_(std::move(reader)) {}
    void read(FilePiece& piece);
    [[nodiscard]] const FileReader& reader() const noexcept { return reader_; }

private:
    FileReader reader_;
    std::chrono::sys_time<std::chrono::nanoseconds> latest_{};
};

// Where each packet's first header is. Any thread.
void prepare(FilePiece& piece);

}  // namespace egresswatch::capture
