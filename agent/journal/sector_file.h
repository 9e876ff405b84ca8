// agent/journal/sector_file.h - a few fields in one disk sector, rewritten in place.
// SPDX-License-Identifier: Apache-2.0
//
// Why in place and not by rename: rewriting 512 bytes that exist needs no free block, so cursors and sequence
// numbers stay durable on a full disk; and one sector is written whole or not at all. A CRC finds the disk
// that disagrees. Format:  one line of text, "egresswatch-sector v1 key=value ... crc=xxxxxxxx", padded with
// spaces, line feed last. Threads: one at a time.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <map>
#include <string>

#include "agent/unique_fd.h"

namespace egresswatch::journal {

class SectorFile {
public:
    static constexpr std::size_t bytes = 512;
    using Fields = std::map<std::string, std::string>;  // keys and values without spaces, '=' or line feeds

    // Makes the file where it is missing. Content that is damaged counts as empty: `damaged()` says so.
    [[nodiscard]] static std::expected<SectorFile, int> open(const std::filesystem::path& path);
    [[nodiscard]] const Fields& fields() const noexcept { return fields_; }
    [[nodiscard]] bool damaged() const noexcept { return damaged_; }
    // Hands the sector to the kernel (survives kill -9); sync() makes it survive power loss. Both return
    // errno or 0.
    [[nodiscard]] int write(Fields fields);
    [[nodiscard]] int sync() const;

private:
    UniqueFd fd_;
    Fields fields_;
    bool damaged_ = false;
};

// 0 where the field is missing or no number.
[[nodiscard]] std::uint64_t number_field(const SectorFile::Fields& fields, const std::string& key);

}  // namespace egresswatch::journal
