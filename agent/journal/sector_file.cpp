// agent/journal/sector_file.cpp - see sector_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/sector_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string_view>

namespace egresswatch::journal {
namespace {

constexpr std::string_view magic = "egresswatch-sector v1";

std::uint32_t crc32(std::string_view text) {  // IEEE 802.3, reflected
    std::uint32_t crc = 0xFFFFFFFFU;
    for (const char c : text) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320U & (0U - (crc & 1U)));
    }
    return ~crc;
}

std::string crc_text(std::string_view text) {
    std::array<char, 16> out{};
    std::snprintf(out.data(), out.size(), "%08x", crc32(text));
    return out.data();
}

std::string render(const SectorFile::Fields& fields) {
    std::string out(magic);
    for (const auto& [key, value] : fields) out += " " + key + "=" + value;
    out += " crc=" + crc_text(out);
    assert(out.size() < SectorFile::bytes);
    out.resize(SectorFile::bytes - 1, ' ');
    out += '\n';
    return out;
}

bool parse(std::string_view text, SectorFile::Fields& fields) {
    const auto crc_at = text.rfind(" crc=");
    if (crc_at == std::string_view::npos || !text.starts_with(magic)) return false;
    if (text.substr(crc_at + 5, 8) != crc_text(text.substr(0, crc_at))) return false;
    auto rest = text.substr(magic.size(), crc_at - magic.size());
    while (!rest.empty()) {
        rest.remove_prefix(1);  // the space
        const auto word = rest.substr(0, rest.find(' '));
        const auto equals = word.find('=');
        if (equals == std::string_view::npos) return false;
        fields.emplace(word.substr(0, equals), word.substr(equals + 1));
        rest.remove_prefix(word.size());
    }
    return true;
}

}  // namespace

std::expected<SectorFile, int> SectorFile::open(const std::filesystem::path& path) {
    SectorFile file;
    file.fd_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
    if (!file.fd_) return std::unexpected(errno);
    std::array<char, bytes> content{};
    const auto got = ::pread(file.fd_.get(), content.data(), content.size(), 0);
    if (got < 0) return std::unexpected(errno);
    const std::string_view text(content.data(), static_cast<std::size_t>(got));
    if (text.empty()) {
        if (const int error = file.write({}); error != 0)
            return std::unexpected(error);  // takes the block now
        return file;
    }
    if (text.size() != bytes || !parse(text, file.fields_)) {
        file.fields_.clear();
        file.damaged_ = true;
    }
    return file;
}

int SectorFile::write(Fields fields) {
    const std::string text = render(fields);
    const auto put = ::pwrite(fd_.get(), text.data(), text.size(), 0);
    if (put != static_cast<ssize_t>(text.size())) return put < 0 ? errno : ENOSPC;
    fields_ = std::move(fields);
    return 0;
}

int SectorFile::sync() const {
    return ::fdatasync(fd_.get()) == 0 ? 0 : errno;
}

std::uint64_t number_field(const SectorFile::Fields& fields, const std::string& key) {
    const auto found = fields.find(key);
    if (found == fields.end()) return 0;
    std::uint64_t value = 0;
    const auto& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() ? value : 0;
}

}  // namespace egresswatch::journal
