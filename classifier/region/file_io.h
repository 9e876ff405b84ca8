// classifier/region/file_io.h - the few things that compiled files need: mapping, checksum, bounded reading.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/region/region_error.h"

namespace egresswatch {

// A whole file, mapped read-only and private. Owner of the mapping; move-only.
class MappedFile {
public:
    [[nodiscard]] static std::expected<MappedFile, RegionError> open(const std::filesystem::path& path);
    MappedFile() = default;
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    ~MappedFile();

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
    [[nodiscard]] std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(data_), size_};
    }

private:
    MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {}
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

using Sha256 = std::array<std::uint8_t, 32>;
// Over the parts one after the other.
[[nodiscard]] Sha256 sha256_of(std::initializer_list<std::span<const std::byte>> parts);
[[nodiscard]] std::string hex_of(const Sha256& digest);

// Writes the parts to a new file in the same folder, fsyncs it and renames it over `path`.
[[nodiscard]] std::expected<void, RegionError> write_file_atomically(
    const std::filesystem::path& path, std::initializer_list<std::span<const std::byte>> parts);

// Numbers in host order (little-endian: datapath/types.h refuses any other), strings with their length.
class ByteWriter {
public:
    template <typename Number>
    void number(Number value) {
        const auto* from = reinterpret_cast<const std::byte*>(&value);
        bytes_.insert(bytes_.end(), from, from + sizeof value);
    }
    void string(std::string_view text) {
        number(static_cast<std::uint32_t>(text.size()));
        const auto* from = reinterpret_cast<const std::byte*>(text.data());
        bytes_.insert(bytes_.end(), from, from + text.size());
    }
    void pad_to(std::size_t alignment) {
        while (bytes_.size() % alignment != 0) bytes_.push_back(std::byte{0});
    }
    [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

// Never reads behind the end: what is missing reads as zero and clears ok().
class ByteReader {
public:
    explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}
    template <typename Number>
    [[nodiscard]] Number number() {
        Number value{};
        if (rest_.size() < sizeof value) {
            fail();
            return value;
        }
        std::memcpy(&value, rest_.data(), sizeof value);
        rest_ = rest_.subspan(sizeof value);
        return value;
    }
    [[nodiscard]] std::string string() {
        const auto length = number<std::uint32_t>();
        if (rest_.size() < length) {
            fail();
            return {};
        }
        std::string text(reinterpret_cast<const char*>(rest_.data()), length);
        rest_ = rest_.subspan(length);
        return text;
    }
    [[nodiscard]] bool ok() const noexcept { return ok_; }
    [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

private:
    void fail() {
        ok_ = false;
        rest_ = {};
    }
    std::span<const std::byte> rest_;
    bool ok_ = true;
};

}  // namespace egresswatch
