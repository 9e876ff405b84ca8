// capture/process/executable_hash.h - SHA-256 of executables, on a thread of its own.
//
// In:       which file a process runs, as the kernel named it.   Out: hashes, through take().
// Threads:  want() and take() from the owner; one thread reads files. It keeps CAP_SYS_PTRACE and
//           CAP_DAC_READ_SEARCH where the process has them when it starts, and no other capability: with them
//           it also reads files that are deleted or lie in another mount namespace, through /proc/PID/exe.
// Limits:   REQUESTS_MAX waiting, FILE_BYTES_MAX a file, CACHE_MAX hashes remembered.
// Fails:    with words; a hash is that of the file which the process runs, or it is none.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <expected>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "capture/ebpf/os.h"
#include "capture/process/process.h"

namespace egresswatch::capture {

class ExecutableHasher {
public:
    static constexpr std::size_t REQUESTS_MAX = 4096;
    static constexpr std::uint64_t FILE_BYTES_MAX = 1ULL << 30;
    static constexpr std::size_t CACHE_MAX = 4096;  // about 200 B each

    struct Request {
        ProcessId process;
        std::string path;  // in the process's mount namespace
        std::uint64_t inode = 0;
        std::uint32_t device = 0;  // as the kernel has it: major << 20 | minor
        bool deleted = false;
    };
    struct Result {
        ProcessId process;
        std::expected<std::string, std::string> sha256;
    };

    [[nodiscard]] static std::expected<std::unique_ptr<ExecutableHasher>, OsError> start();
    ~ExecutableHasher();
    ExecutableHasher(const ExecutableHasher&) = delete;
    ExecutableHasher& operator=(const ExecutableHasher&) = delete;

    // False: too many are waiting.
    [[nodiscard]] bool want(Request request);
    [[nodiscard]] std::vector<Result> take();
    [[nodiscard]] int fd() const noexcept { return ready_.get(); }  // readable when take() has something
    [[nodiscard]] std::uint64_t files_read() const noexcept;

private:
    struct FileVersion {
        dev_t device;
        ino_t inode;
        std::int64_t written_ns;  // mtime, which its owner may set to anything
        std::int64_t changed_ns;  // ctime, which nobody can set
        std::int64_t size;
        auto operator<=>(const FileVersion&) const = default;
    };
    ExecutableHasher() = default;
    void run();
    std::expected<std::string, std::string> hash_of(const Request& request);

    UniqueFd ready_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Request> wanted_;
    std::vector<Result> done_;
    bool stopping_ = false;
    std::uint64_t files_read_ = 0;
    std::map<FileVersion, std::string> known_;  // of the thread only
    std::thread thread_;
};

}  // namespace egresswatch::capture
