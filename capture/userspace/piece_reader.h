// capture/userspace/piece_reader.h - pieces of a capture file, with what keeps them in memory. Internal to
// userspace/. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "capture/pcap/file_reader.h"

namespace egresswatch::capture {

// Some packets of the file, in its order.
struct FilePiece {
    FileBatch batch;
    std::shared_ptr<const void> window;  // what they point into
    std::uint64_t bytes_read = 0;        // of the file, up to here
    std::optional<FileError> damage;     // the piece is empty, and the last one
    bool is_last = false;                // the piece is empty
};

// Threads: one at a time.
class PieceReader {
public:
    explicit PieceReader(FileReader reader) : reader_(std::move(reader)) {}
    void read(FilePiece& piece);
    [[nodiscard]] const FileReader& reader() const noexcept { return reader_; }

private:
    FileReader reader_;
};

}  // namespace egresswatch::capture
