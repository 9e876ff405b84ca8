// agent/journal/hash_file.cpp - see hash_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/hash_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <sstream>

#include "agent/journal/segment.h"

namespace egresswatch::journal {
namespace {

using evidence::Hash;

constexpr std::string_view magic = "egresswatch-hashes v1";

// errno or 0; a file that ends early is EIO.
int read_whole(int fd, void* into, std::size_t count, std::uint64_t at) {
    auto* bytes = static_cast<char*>(into);
    while (count != 0) {
        const auto got = ::pread(fd, bytes, count, static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : EIO;
        bytes += got;
        at += static_cast<std::uint64_t>(got);
        count -= static_cast<std::size_t>(got);
    }
    return 0;
}

int write_whole(int fd, const void* from, std::size_t count, std::uint64_t at) {
    const auto* bytes = static_cast<const char*>(from);
    while (count != 0) {
        const auto put = ::pwrite(fd, bytes, count, static_cast<off_t>(at));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return put < 0 ? errno : ENOSPC;
        bytes += put;
        at += static_cast<std::uint64_t>(put);
        count -= static_cast<std::size_t>(put);
    }
    return 0;
}

}  // namespace

std::string hash_file_name(std::uint64_t first_seq) {
    std::string name = segment_name(first_seq);
    name.replace(name.rfind('.'), std::string::npos, ".hashes");
    return name;
}

std::string HashHeader::text() const {
    std::string out(magic);
    out += "\norigin " + origin + "\nindex " + std::to_string(frontier.size()) + "\nfrontier";
    for (const auto& node : frontier.nodes()) out += " " + evidence::to_hex(node);
    assert(out.size() < hash_header_bytes);
    out.resize(hash_header_bytes - 1, ' ');
    out += '\n';
    return out;
}

std::optional<HashHeader> HashHeader::parse(std::string_view text) {
    if (text.size() < hash_header_bytes || !text.starts_with(magic)) return std::nullopt;
    std::istringstream in(std::string(text.substr(magic.size(), hash_header_bytes - magic.size())));
    std::string word;
    HashHeader out;
    std::uint64_t index = 0;
    if (!(in >> word >> out.origin) || word != "origin" || !(in >> word >> index) || word != "index" ||
        !(in >> word) || word != "frontier")
        return std::nullopt;
    std::vector<Hash> nodes;
    while (in >> word) {
        const auto node = evidence::hash_from_hex(word);
        if (!node) return std::nullopt;
        nodes.push_back(*node);
    }
    auto frontier = evidence::Frontier::restore(index, std::move(nodes));
    if (!frontier) return std::nullopt;
    out.frontier = std::move(*frontier);
    return out;
}

std::optional<HashFile> read_hash_file(const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    if (!name.ends_with(".hashes")) return std::nullopt;
    const auto first = parse_segment_name(name.substr(0, name.rfind('.')) + ".jsonl");
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat about {};
    std::string text(hash_header_bytes, '\0');
    if (!first || !fd || ::fstat(fd.get(), &about) != 0 ||
        read_whole(fd.get(), text.data(), text.size(), 0) != 0)
        return std::nullopt;
    auto header = HashHeader::parse(text);
    if (!header) return std::nullopt;
    HashFile file;
    file.first_seq = *first;
    file.path = path;
    file.header = std::move(*header);
    file.count = (static_cast<std::uint64_t>(about.st_size) - hash_header_bytes) / hash_bytes;
    return file;
}

std::vector<HashFile> list_hash_files(const std::filesystem::path& directory,
                                      std::vector<std::string>* damaged) {
    std::vector<HashFile> out;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        if (!name.starts_with("seg-") || !name.ends_with(".hashes")) continue;
        if (auto file = read_hash_file(entry->path()))
            out.push_back(std::move(*file));
        else if (damaged != nullptr)
            damaged->push_back(name);
    }
    std::ranges::sort(out, {}, &HashFile::first_seq);
    return out;
}

std::expected<std::vector<Hash>, int> read_hashes(const HashFile& file, std::uint64_t from,
                                                  std::uint64_t count) {
    const UniqueFd fd(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return std::unexpected(errno);
    if (from + count > file.count) return std::unexpected(EIO);
    std::vector<Hash> out(count);
    static_assert(sizeof(Hash) == hash_bytes);
    if (const int error =
            read_whole(fd.get(), out.data(), count * hash_bytes, hash_header_bytes + from * hash_bytes);
        error != 0)
        return std::unexpected(error);
    return out;
}

std::expected<std::vector<Hash>, int> hash_lines(const std::filesystem::path& segment, std::uint64_t bytes) {
    const UniqueFd fd(::open(segment.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return std::unexpected(errno);
    std::vector<Hash> out;
    std::string buffer;
    constexpr std::size_t chunk = 1 << 20;
    for (std::uint64_t at = 0; at < bytes;) {
        const std::size_t old = buffer.size();
        const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, bytes - at));
        buffer.resize(old + want);
        if (const int error = read_whole(fd.get(), buffer.data() + old, want, at); error != 0)
            return std::unexpected(error);
        at += want;
        std::size_t from = 0;
        for (std::size_t end; (end = buffer.find('\n', from)) != std::string::npos; from = end + 1)
            out.push_back(evidence::leaf_hash(std::string_view(buffer).substr(from, end - from)));
        buffer.erase(0, from);
    }
    return out;
}

int write_hash_file(const std::filesystem::path& path, const HashHeader& header,
                    const std::vector<Hash>& leaves) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    if (!fd) return errno;
    const std::string text = header.text();
    int error = write_whole(fd.get(), text.data(), text.size(), 0);
    if (error == 0) error = write_whole(fd.get(), leaves.data(), leaves.size() * hash_bytes, text.size());
    return error;
}

HashWriter::HashWriter(std::filesystem::path path, HashHeader header)
    : path_(std::move(path)), header_(std::move(header)) {
    const std::string text = header_.text();
    backlog_.assign(text.begin(), text.end());
}

HashWriter::HashWriter(std::filesystem::path path, HashHeader header, std::uint64_t count)
    : path_(std::move(path)), header_(std::move(header)), written_(hash_header_bytes + count * hash_bytes) {}

int HashWriter::flush(std::vector<std::uint8_t> taken) {
    if (backlog_.empty())
        backlog_ = std::move(taken);
    else
        backlog_.insert(backlog_.end(), taken.begin(), taken.end());
    if (backlog_.empty()) return 0;
    if (!fd_) {
        fd_.reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
        if (!fd_) return errno;
    }
    if (const int error = write_whole(fd_.get(), backlog_.data(), backlog_.size(), written_); error != 0)
        return error;
    written_ += backlog_.size();
    backlog_.clear();
    return 0;
}

int HashWriter::sync() {
    if (!fd_) fd_.reset(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd_) return errno;
    return ::fdatasync(fd_.get()) == 0 ? 0 : errno;
}

}  // namespace egresswatch::journal
