// agent/journal/reader.h - reads records in order from a sequence number, across segments, and waits at the
// tail. SPDX-License-Identifier: Apache-2.0
//
// Threads: one thread a reader.   Owns: one open segment, one eventfd.
// Fails:   a line without a number is skipped and counted, one that is torn behind its number is handed out
// as it is:
//          whoever parses it counts it (outputs as undeliverable); a deleted range is reported by `missing`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "agent/records/record.h"

namespace egresswatch::journal {

struct Tail;  // shared with the journal: how far may be read, who is to be woken

struct Entry {
    std::uint64_t seq = 0;
    std::string line;  // as it stands in the file, without the line feed
};

struct Missing {  // numbers that the reader wanted and that are not there (retention, lost in a crash)
    std::uint64_t first = 0;
    std::uint64_t last = 0;
};

class Reader {
public:
    // Reads a directory that no journal of this process writes (command line): everything complete in it.
    [[nodiscard]] static std::unique_ptr<Reader> of_directory(std::filesystem::path directory,
                                                              std::uint64_t after);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // The next record, or nothing when the visible end is reached. Never blocks.
    [[nodiscard]] std::optional<Entry> next();
    void seek(std::uint64_t after);  // go on with the first record whose seq > after; back or forth
    // Readable (POLLIN) when next() may have something new; next() rearms it. -1 for a directory reader.
    [[nodiscard]] int wake_fd() const noexcept;
    // Everything up to here has reached its destination: retention may delete it without a gap record.
    void delivered(std::uint64_t seq) noexcept;

    [[nodiscard]] std::uint64_t position() const noexcept;  // seq last returned, or sought
    [[nodiscard]] std::uint64_t visible_seq() const noexcept;
    [[nodiscard]] std::optional<Missing> take_missing();  // since the last call
    [[nodiscard]] std::uint64_t damaged_lines() const noexcept;

private:
    friend class Journal;
    struct State;
    explicit Reader(std::unique_ptr<State> state) noexcept;
    [[nodiscard]] std::optional<Entry> try_next();
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::journal
