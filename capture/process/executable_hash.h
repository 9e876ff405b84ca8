// capture/process/executable_hash.h - SHA-256 of executables, on threads of its own.
//
// In:       which file a process runs, as the kernel named it, and when.   Out: hashes, through take().
// Threads:  want() and take() from the owner; THREADS, one of which reads at a time. They keep CAP_SYS_PTRACE
//           and CAP_DAC_READ_SEARCH where the process has them when it starts, and no other capability: with
//           them files are also read that are deleted or lie in another mount namespace, through
//           /proc/PID/exe. A thread that waits for a file system that does not answer is left behind, and
//           the next one goes on; files of that device are not read until it comes back.
// Clock:    steady for limits; times of files and of the kernel's news are compared by the wall clock of now.
// Limits:   REQUESTS_MAX waiting; Limits a file; with all THREADS left behind nothing is read any more;
//           CACHE_MAX results remembered, those without a hash for TRY_AGAIN_AFTER.
// Fails:    with words, counted by kind; a hash is that of the file which the process runs, unchanged since
//           the kernel told of it, or it is none.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "capture/ebpf/os.h"
#include "capture/process/process.h"

namespace egresswatch::capture {

class ExecutableHasher {
public:
    static constexpr std::size_t REQUESTS_MAX = 4096;
    static constexpr std::size_t CACHE_MAX = 4096;  // about 200 B each
    static constexpr std::size_t THREADS = 3;
    static constexpr std::chrono::seconds TRY_AGAIN_AFTER{60};

    struct Limits {
        std::uint64_t file_bytes = 512ULL << 20;
        std::chrono::milliseconds file_time{3000};
    };
    struct Request {
        ProcessId process;
        std::string path;  // in the process's mount namespace
        std::uint64_t inode = 0;
        std::uint32_t device = 0;  // as the kernel has it: major << 20 | minor
        bool deleted = false;
        std::uint64_t told_ns = 0;  // CLOCK_BOOTTIME: the process ran the file then
    };
    enum class Problem : std::uint8_t { unreachable, changed, too_large, too_slow };
    struct Failure {
        Problem problem = Problem::unreachable;
        std::string words;
    };
    using Hash = std::expected<std::string, Failure>;
    struct Result {
        ProcessId process;
        Hash sha256;
    };

    [[nodiscard]] static std::expected<std::unique_ptr<ExecutableHasher>, OsError> start(Limits limits);
    [[nodiscard]] static std::expected<std::unique_ptr<ExecutableHasher>, OsError> start() {
        return start(Limits{});
    }
    ~ExecutableHasher();
    ExecutableHasher(const ExecutableHasher&) = delete;
    ExecutableHasher& operator=(const ExecutableHasher&) = delete;

    // False: too many are waiting.
    [[nodiscard]] bool want(Request request);
    // Also where a thread is stuck, and has to be left behind: to be called now and then.
    [[nodiscard]] std::vector<Result> take();
    [[nodiscard]] int fd() const noexcept;  // readable when take() has something
    [[nodiscard]] std::uint64_t files_read() const noexcept;
    [[nodiscard]] std::size_t stuck() const noexcept;  // threads left behind now

private:
    struct Shared;  // outlives us where a thread is stuck
    explicit ExecutableHasher(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

    std::shared_ptr<Shared> shared_;
};

}  // namespace egresswatch::capture
