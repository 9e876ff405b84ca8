// tests/support/faulty_files.h - a file layer under the real journal that can fail: short writes, errors at
// the n-th write or sync, and power loss with torn sectors. SPDX-License-Identifier: Apache-2.0
//
// The linker puts it between the product's code and libc (-Wl,--wrap=pwrite and so on, in the test's
// CMakeLists): the code under test is the one that ships. Only files below `folder` are touched. Syncs do not
// reach the disk: what would survive is kept here. Threads: any; one FaultyFiles at a time.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace egresswatch::testing {

class FaultyFiles {
public:
    static constexpr std::size_t sector_bytes = 512;

    explicit FaultyFiles(std::filesystem::path folder);
    ~FaultyFiles();
    FaultyFiles(const FaultyFiles&) = delete;
    FaultyFiles& operator=(const FaultyFiles&) = delete;

    // The n-th write from now (1: the next) and `count` - 1 behind it fail with `error`, the first of them
    // after `partial` bytes, of which it tells by a short count.
    void fail_writes(unsigned nth, int error, unsigned count, std::size_t partial = 0);
    void fail_syncs(unsigned nth, int error, unsigned count);
    void short_writes(std::size_t bytes_max);  // 0: whole again
    void heal();
    [[nodiscard]] unsigned writes() const { return writes_; }
    [[nodiscard]] unsigned syncs() const { return syncs_; }

    // What a disk may hold when the power goes now: everything synced, and of every sector written since then
    // either the old or the new state, as `chance` has it. A file whose name was never synced may be missing.
    void power_loss(const std::filesystem::path& image, std::mt19937& chance);

    // For the wrappers.
    static FaultyFiles* installed;
    ssize_t write(int fd, const void* bytes, std::size_t count, off_t at);  // at < 0: write(2)
    int sync(int fd);
    int truncate(int fd, off_t size);
    [[nodiscard]] bool ours(int fd, std::string& path) const;

private:
    struct Change {
        bool truncation = false;
        std::size_t at = 0;
        std::string bytes;
    };
    struct File {
        std::string durable;
        std::vector<Change> changes;  // since the last sync
        bool named = false;           // its folder was synced since it is there
    };

    std::filesystem::path folder_;
    std::mutex mutex_;
    std::map<std::string, File> files_;
    unsigned writes_ = 0, syncs_ = 0;
    unsigned write_fails_from_ = 0, write_fails_to_ = 0;
    int write_error_ = 0;
    std::size_t partial_ = 0;
    unsigned sync_fails_from_ = 0, sync_fails_to_ = 0;
    int sync_error_ = 0;
    std::size_t short_max_ = 0;
};

}  // namespace egresswatch::testing
