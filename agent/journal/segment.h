// agent/journal/segment.h - one file of the journal: its name, its lines, what a crash left of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/flow_update.h"

namespace egresswatch::journal {

[[nodiscard]] std::string segment_name(std::uint64_t first_seq);  // seg-00000000000000000001.jsonl
[[nodiscard]] std::optional<std::uint64_t> parse_segment_name(std::string_view name) noexcept;

struct SegmentFile {
    std::uint64_t first_seq = 0;
    std::filesystem::path path;
};
// Sorted by first_seq. Other files in the directory are not ours and left alone.
[[nodiscard]] std::vector<SegmentFile> list_segments(const std::filesystem::path& directory);

// The number in `{"seq":123,...`: the one form that the journal writes.
[[nodiscard]] std::optional<std::uint64_t> line_seq(std::string_view line) noexcept;
// The `written` time of a line; nothing where it is not one of ours.
[[nodiscard]] std::optional<Timestamp> line_written(std::string_view line) noexcept;

// The value of the first member called `name` that is a text, at any depth but never inside a text; empty
// where there is none, or where it holds escapes. No JSON is parsed: for lines of ours, whose head members
// come first.
[[nodiscard]] std::string_view text_member(std::string_view line, std::string_view name) noexcept;

struct SegmentScan {
    std::uint64_t last_seq = 0;       // 0: no complete record
    std::uint64_t valid_bytes = 0;    // end of the last complete record
    std::uint64_t file_bytes = 0;     // more than valid_bytes: a torn tail
    std::uint64_t damaged_lines = 0;  // in front of valid_bytes
    std::optional<Timestamp> last_written;
};
// Reads the whole file; every line must be JSON with a number above that of the line before. errno on
// failure.
[[nodiscard]] std::expected<SegmentScan, int> scan_segment(const SegmentFile& file);
// The same for a closed segment from its end alone: cheap, damaged_lines stays 0.
[[nodiscard]] std::expected<SegmentScan, int> scan_segment_end(const SegmentFile& file);

}  // namespace egresswatch::journal
