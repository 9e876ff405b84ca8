// agent/journal/reader_state.h - the inside of a Reader; the journal makes those that follow it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "agent/journal/reader.h"
#include "agent/journal/segment.h"
#include "agent/journal/tail.h"
#include "agent/unique_fd.h"

namespace egresswatch::journal {

struct Reader::State {
    std::filesystem::path directory;
    std::shared_ptr<Tail> tail;  // none: a directory that nobody writes
    std::uint64_t listener = 0;
    UniqueFd event_fd;
    std::uint64_t position = 0;
    UniqueFd fd;
    std::uint64_t segment_first = 0;
    std::uint64_t offset = 0;  // in the file, behind the last line taken
    std::string buffer;        // whole lines only
    std::size_t buffer_at = 0;
    bool unread_tail = false;  // the file ended without a line feed
    std::optional<Entry> put_back;
    std::optional<Missing> missing;
    std::uint64_t damaged = 0;

    bool open_segment(const SegmentFile& file);
    void close_segment();
    std::optional<std::string> next_line();
    void take_missing(std::uint64_t first, std::uint64_t last);
    Entry deliver(Entry entry);
};

}  // namespace egresswatch::journal
