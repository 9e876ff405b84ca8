// tests/support/faulty_files.cpp - see faulty_files.h.
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/faulty_files.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>

// The linker's names: __real_x is libc's x, and who calls x gets __wrap_x.
extern "C" {
ssize_t __real_pwrite(int fd, const void* bytes, std::size_t count, off_t at);
ssize_t __real_write(int fd, const void* bytes, std::size_t count);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_ftruncate(int fd, off_t size);

ssize_t __wrap_pwrite(int fd, const void* bytes, std::size_t count, off_t at) {
    using egresswatch::testing::FaultyFiles;
    std::string path;
    if (FaultyFiles::installed == nullptr || !FaultyFiles::installed->ours(fd, path))
        return __real_pwrite(fd, bytes, count, at);
    return FaultyFiles::installed->write(fd, bytes, count, at);
}
ssize_t __wrap_write(int fd, const void* bytes, std::size_t count) {
    using egresswatch::testing::FaultyFiles;
    std::string path;
    if (FaultyFiles::installed == nullptr || !FaultyFiles::installed->ours(fd, path))
        return __real_write(fd, bytes, count);
    return FaultyFiles::installed->write(fd, bytes, count, -1);
}
int __wrap_fdatasync(int fd) {
    using egresswatch::testing::FaultyFiles;
    std::string path;
    if (FaultyFiles::installed == nullptr || !FaultyFiles::installed->ours(fd, path))
        return __real_fdatasync(fd);
    return FaultyFiles::installed->sync(fd);
}
int __wrap_fsync(int fd) {
    using egresswatch::testing::FaultyFiles;
    std::string path;
    if (FaultyFiles::installed == nullptr || !FaultyFiles::installed->ours(fd, path)) return __real_fsync(fd);
    return FaultyFiles::installed->sync(fd);
}
int __wrap_ftruncate(int fd, off_t size) {
    using egresswatch::testing::FaultyFiles;
    std::string path;
    if (FaultyFiles::installed == nullptr || !FaultyFiles::installed->ours(fd, path))
        return __real_ftruncate(fd, size);
    return FaultyFiles::installed->truncate(fd, size);
}
}

namespace egresswatch::testing {

FaultyFiles* FaultyFiles::installed = nullptr;

FaultyFiles::FaultyFiles(std::filesystem::path folder) : folder_(std::move(folder)) {
    installed = this;
}
FaultyFiles::~FaultyFiles() {
    installed = nullptr;
}

bool FaultyFiles::ours(int fd, std::string& path) const {
    std::array<char, 4096> target{};
    const auto length =
        ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target.data(), target.size());
    if (length <= 0) return false;
    path.assign(target.data(), static_cast<std::size_t>(length));
    return path.starts_with(folder_.native());
}

void FaultyFiles::fail_writes(unsigned nth, int error, unsigned count, std::size_t partial) {
    const std::lock_guard guard(mutex_);
    write_fails_from_ = writes_ + nth;
    write_fails_to_ = write_fails_from_ + count;
    write_error_ = error;
    partial_ = partial;
}
void FaultyFiles::fail_syncs(unsigned nth, int error, unsigned count) {
    const std::lock_guard guard(mutex_);
    sync_fails_from_ = syncs_ + nth;
    sync_fails_to_ = sync_fails_from_ + count;
    sync_error_ = error;
}
void FaultyFiles::short_writes(std::size_t bytes_max) {
    const std::lock_guard guard(mutex_);
    short_max_ = bytes_max;
}
void FaultyFiles::heal() {
    const std::lock_guard guard(mutex_);
    write_fails_to_ = sync_fails_to_ = 0;
    short_max_ = 0;
}

ssize_t FaultyFiles::write(int fd, const void* bytes, std::size_t count, off_t at) {
    const std::lock_guard guard(mutex_);
    std::string path;
    (void)ours(fd, path);
    ++writes_;
    if (writes_ >= write_fails_from_ && writes_ < write_fails_to_) {
        if (writes_ != write_fails_from_ || partial_ == 0 || partial_ >= count) {
            errno = write_error_;
            return -1;
        }
        count = partial_;
    }
    if (short_max_ != 0) count = std::min(count, short_max_);
    const off_t where = at >= 0 ? at : ::lseek(fd, 0, SEEK_END);
    const auto put = at >= 0 ? __real_pwrite(fd, bytes, count, at) : __real_write(fd, bytes, count);
    if (put > 0)
        files_[path].changes.push_back(
            {false, static_cast<std::size_t>(where),
             std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(put))});
    return put;
}

namespace {
void put_at(std::string& content, std::size_t at, std::string_view bytes) {
    if (content.size() < at + bytes.size()) content.resize(at + bytes.size(), '\0');
    content.replace(at, bytes.size(), bytes);
}
}  // namespace

int FaultyFiles::sync(int fd) {
    const std::lock_guard guard(mutex_);
    ++syncs_;
    if (syncs_ >= sync_fails_from_ && syncs_ < sync_fails_to_) {
        errno = sync_error_;
        return -1;
    }
    std::string path;
    (void)ours(fd, path);
    if (std::filesystem::is_directory(path)) {
        for (auto& [name, file] : files_) file.named = true;
        return 0;
    }
    File& file = files_[path];
    for (const auto& change : file.changes) {
        if (change.truncation)
            file.durable.resize(change.at, '\0');
        else
            put_at(file.durable, change.at, change.bytes);
    }
    file.changes.clear();
    return 0;
}

int FaultyFiles::truncate(int fd, off_t size) {
    const std::lock_guard guard(mutex_);
    std::string path;
    (void)ours(fd, path);
    const int result = __real_ftruncate(fd, size);
    if (result == 0) files_[path].changes.push_back({true, static_cast<std::size_t>(size), {}});
    return result;
}

void FaultyFiles::power_loss(const std::filesystem::path& image, std::mt19937& chance) {
    const std::lock_guard guard(mutex_);
    std::bernoulli_distribution coin;
    for (const auto& [name, file] : files_) {
        if (!std::filesystem::exists(name)) continue;  // removed again
        if (!file.named && coin(chance)) continue;
        std::string content = file.durable;
        for (const auto& change : file.changes) {
            if (change.truncation) {
                if (coin(chance)) content.resize(change.at, '\0');
                continue;
            }
            for (std::size_t at = change.at; at < change.at + change.bytes.size();) {
                const std::size_t end =
                    std::min(change.at + change.bytes.size(), (at / sector_bytes + 1) * sector_bytes);
                if (coin(chance))
                    put_at(content, at, std::string_view(change.bytes).substr(at - change.at, end - at));
                at = end;
            }
        }
        const auto to = image / std::filesystem::path(name).lexically_relative(folder_);
        std::filesystem::create_directories(to.parent_path());
        std::ofstream(to, std::ios::binary) << content;
    }
}

}  // namespace egresswatch::testing
