// agent/journal/hash_file.h - the leaf hashes of one segment, kept beside it and after it.
// SPDX-License-Identifier: Apache-2.0
//
// File:    seg-<first seq, 20 digits>.hashes: a header of 4,096 bytes of text (origin of the log, index of
// the
//          first leaf, frontier of the tree in front of it), then 32 bytes for each line of the segment.
// Why:     records that retention erased stay provable, and a restart needs the last segment only.
// Threads: add() under the journal's mutex, flush() by one committer at a time; see HashWriter.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "agent/evidence/merkle.h"
#include "agent/unique_fd.h"

namespace egresswatch::journal {

inline constexpr std::size_t hash_header_bytes = 4096;
inline constexpr std::size_t hash_bytes = 32;
inline constexpr std::size_t origin_bytes_max = 255;

struct HashHeader {
    std::string origin;
    evidence::Frontier frontier;  // its size is the index of the first leaf
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static std::optional<HashHeader> parse(std::string_view text);
};

struct HashFile {
    std::uint64_t first_seq = 0;
    std::filesystem::path path;
    HashHeader header;
    std::uint64_t count = 0;  // whole hashes in it
    [[nodiscard]] std::uint64_t first_index() const noexcept { return header.frontier.size(); }
    [[nodiscard]] std::uint64_t end_index() const noexcept { return first_index() + count; }
};

[[nodiscard]] std::string hash_file_name(std::uint64_t first_seq);
[[nodiscard]] std::optional<HashFile> read_hash_file(const std::filesystem::path& path);
// Sorted by first_seq. Files whose header is damaged are left out, their names in `damaged`.
[[nodiscard]] std::vector<HashFile> list_hash_files(const std::filesystem::path& directory,
                                                    std::vector<std::string>* damaged = nullptr);
// Hashes `from` to `from + count` of the file; errno, EIO where it is shorter.
[[nodiscard]] std::expected<std::vector<evidence::Hash>, int> read_hashes(const HashFile& file,
                                                                          std::uint64_t from,
                                                                          std::uint64_t count);
// Leaf hashes of the lines in the first `bytes` of a segment.
[[nodiscard]] std::expected<std::vector<evidence::Hash>, int> hash_lines(const std::filesystem::path& segment,
                                                                         std::uint64_t bytes);
// Replaces the whole file. errno or 0.
[[nodiscard]] int write_hash_file(const std::filesystem::path& path, const HashHeader& header,
                                  const std::vector<evidence::Hash>& leaves);

// Appends to one file. What cannot be written stays in memory and is tried again.
class HashWriter {
public:
    HashWriter(std::filesystem::path path, HashHeader header);
    // Goes on behind `count` hashes that the file holds.
    HashWriter(std::filesystem::path path, HashHeader header, std::uint64_t count);

    void add(const evidence::Hash& leaf) { pending_.insert(pending_.end(), leaf.begin(), leaf.end()); }
    [[nodiscard]] std::vector<std::uint8_t> take_pending() { return std::exchange(pending_, {}); }
    // Writes `taken` behind what was taken before. errno or 0. One thread at a time.
    [[nodiscard]] int flush(std::vector<std::uint8_t> taken);
    [[nodiscard]] int sync();
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
    std::filesystem::path path_;
    HashHeader header_;
    std::vector<std::uint8_t> pending_;
    std::vector<std::uint8_t> backlog_;  // flush() failed on these
    UniqueFd fd_;
    std::uint64_t written_ = 0;  // bytes of the file, header included
};

}  // namespace egresswatch::journal
