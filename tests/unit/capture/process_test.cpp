// tests/unit/capture/process_test.cpp - arguments, user names, hashes of executables, the cache of processes.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "capture/ebpf/sender_object.h"
#include "capture/process/command_line.h"
#include "capture/process/process_cache.h"
#include "capture/process/process_start.h"
#include "capture/process/user_names.h"
#include "tests/support/catch.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch::capture;
using namespace std::string_literals;

namespace {

using Problem = ExecutableHasher::Problem;

std::uint64_t boot_time_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

// A file as a request names it. Of a process that is not there: only its path can lead to the file. It was
// seen a second from now: what is done to the file here was done before.
ExecutableHasher::Request request_for(const std::string& path) {
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    return {{1, 0x7fffffff, 1},
            path,
            info.st_ino,
            ::major(info.st_dev) << 20 | ::minor(info.st_dev),
            false,
            boot_time_ns() + 1'000'000'000U};
}

ExecutableHasher::Result result_of(ExecutableHasher& hasher) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (std::chrono::steady_clock::now() < deadline) {
        auto results = hasher.take();  // also looks after a thread that is stuck
        REQUIRE(results.size() <= 1);
        if (!results.empty()) return results.front();
        pollfd ready{hasher.fd(), POLLIN, 0};
        (void)::poll(&ready, 1, 50);
    }
    FAIL("no hash within ten seconds");
    return {};
}

ExecutableHasher::Hash hash_of(ExecutableHasher& hasher, ExecutableHasher::Request request) {
    REQUIRE(hasher.want(std::move(request)));
    return result_of(hasher).sha256;
}

Problem problem_of(ExecutableHasher& hasher, ExecutableHasher::Request request) {
    const auto hash = hash_of(hasher, std::move(request));
    REQUIRE_FALSE(hash.has_value());
    return hash.error().problem;
}

// A file system that does not answer, as one over the network: read() of that file waits.
std::mutex stall_mutex;
std::condition_variable stall_ends;
ino_t stalled_inode = 0;
unsigned waiting_reads = 0;

void stall(ino_t inode) {
    const std::lock_guard lock(stall_mutex);
    stalled_inode = inode;
    stall_ends.notify_all();
}

Process process(std::uint32_t pid) {
    Process out;
    out.id = {1, pid, 1};
    return out;
}

}  // namespace

// The linker puts it between the product's code and libc, see tests/CMakeLists.txt.
extern "C" ssize_t __real_read(int fd, void* buffer, std::size_t bytes);
extern "C" ssize_t __wrap_read(int fd, void* buffer, std::size_t bytes);
ssize_t __wrap_read(int fd, void* buffer, std::size_t bytes) {
    struct stat info {};
    if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        std::unique_lock lock(stall_mutex);
        ++waiting_reads;
        stall_ends.wait(lock, [&] { return stalled_inode == 0 || info.st_ino != stalled_inode; });
        --waiting_reads;
    }
    return __real_read(fd, buffer, bytes);
}

TEST_CASE("arguments are shown as the configuration says", "[capture][unit]") {
    const std::string words = "rclone\0copy\0--password=secret\0-phidden\0-v\0--\0s3:bucket\0"s;
    CHECK(command_line_of(words, ArgumentPolicy::full) ==
          "rclone copy --password=secret -phidden -v -- s3:bucket");
    CHECK(command_line_of(words, ArgumentPolicy::masked) == "rclone *** --password=*** -p*** -v -- ***");
    CHECK(command_line_of(words, ArgumentPolicy::none).empty());
    // Nothing of a value may show, wherever the kernel's copy ends.
    for (std::size_t cut = 7; cut < words.size(); cut++) {
        const std::string line =
            command_line_of(std::string_view(words).substr(0, cut), ArgumentPolicy::masked);
        INFO(line);
        CHECK(line.find("sec") == std::string::npos);
        CHECK(line.find("hid") == std::string::npos);
        CHECK(line.find("s3") == std::string::npos);
    }
    CHECK(command_line_of("", ArgumentPolicy::full).empty());
    CHECK(command_line_of("x\0-pc2Vj==\0-pMy=x\0--token:abc\0--a-b\0--k v\0"s, ArgumentPolicy::masked) ==
          "x -p*** -p*** --token*** --a-b --k***");
}

TEST_CASE("user names come from the list of the host and follow it", "[capture][unit]") {
    const egresswatch::testing::TempDir directory;
    const std::string file = (directory.path() / "passwd").string();
    std::ofstream(file)
        << "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\n:x:5:5::\nbackup:x:34:34::/:\n";
    UserNames users(file);
    CHECK(users.name_of(0) == "root");
    CHECK(users.name_of(34) == "backup");
    CHECK(users.name_of(5).empty());
    CHECK(users.name_of(1000).empty());
    std::ofstream(file) << "alice:x:1000:1000::/home/alice:/bin/sh\n";
    const timespec times[2] = {{0, UTIME_OMIT}, {1'900'000'000, 0}};
    REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
    CHECK(users.name_of(1000) == "alice");
    CHECK(users.name_of(34).empty());
}

TEST_CASE("a hash is that of the file that was named, and read once", "[capture][unit]") {
    const egresswatch::testing::TempDir directory;
    const std::string file = (directory.path() / "program").string();
    std::ofstream(file) << "abc";
    auto hasher = ExecutableHasher::start();
    REQUIRE(hasher);
    // FIPS 180-2, appendix B.1.
    const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const auto request = request_for(file);
    CHECK(hash_of(**hasher, request) == abc);
    CHECK(hash_of(**hasher, request) == abc);
    CHECK((*hasher)->files_read() == 1);
    // Other contents with the same size and time: another file all the same.
    struct stat before {};
    REQUIRE(::stat(file.c_str(), &before) == 0);
    std::ofstream(file) << "abd";
    const timespec times[2] = {before.st_atim, before.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
    CHECK(hash_of(**hasher, request) != abc);
    // Another file under the path.
    std::ofstream(file + ".new") << "abc";
    REQUIRE(::rename((file + ".new").c_str(), file.c_str()) == 0);
    CHECK(!hash_of(**hasher, request).has_value());
    CHECK(hash_of(**hasher, request_for(file)) == abc);
}

TEST_CASE("the file that a process runs is read through /proc though its path is gone", "[capture][unit]") {
    struct stat info {};
    REQUIRE(::stat("/proc/self/exe", &info) == 0);
    auto hasher = ExecutableHasher::start();
    REQUIRE(hasher);
    ExecutableHasher::Request request{
        {0, static_cast<std::uint32_t>(::getpid()), 0},    "/nowhere", info.st_ino,
        ::major(info.st_dev) << 20 | ::minor(info.st_dev), true,       boot_time_ns()};
    const auto hash = hash_of(**hasher, request);
    REQUIRE(hash);
    CHECK(hash->size() == 64);
    request.inode++;
    CHECK(!hash_of(**hasher, request).has_value());
}

TEST_CASE("a file that changed after its process was seen has no hash", "[capture][unit]") {
    const egresswatch::testing::TempDir directory;
    const std::string file = (directory.path() / "program").string();
    std::ofstream(file) << "abc";
    auto hasher = ExecutableHasher::start();
    REQUIRE(hasher);
    auto request = request_for(file);
    request.told_ns = boot_time_ns() - 60'000'000'000U;  // written a minute after
    CHECK(problem_of(**hasher, request) == Problem::changed);
    // However old it says that it is.
    const timespec times[2] = {{1, 0}, {1, 0}};
    REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
    CHECK(problem_of(**hasher, request) == Problem::changed);
    CHECK((*hasher)->files_read() == 0);
    // Of a file that was read before, too.
    REQUIRE(hash_of(**hasher, request_for(file)).has_value());
    CHECK(problem_of(**hasher, request) == Problem::changed);
}

TEST_CASE("a process is the one that was told of while its start is", "[capture][unit]") {
    const auto pid = static_cast<std::uint32_t>(::getpid());
    // Field 22 of proc(5), in ticks.
    std::ifstream file("/proc/self/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(text.rfind(')') + 2));
    std::string field;
    for (int i = 3; i <= 22; i++) fields >> field;
    const std::uint64_t tick_ns = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    const std::uint64_t start = std::stoull(field) * tick_ns;
    CHECK(runs_still({start + tick_ns / 2, pid, 0}));
    CHECK_FALSE(runs_still({start + tick_ns, pid, 0}));
    CHECK_FALSE(runs_still({start, 0x7fffffff, 0}));
}

TEST_CASE("a file beyond the limits of size and time is not read, and told as such", "[capture][unit]") {
    const egresswatch::testing::TempDir directory;
    const std::string large = (directory.path() / "large").string(),
                      small = (directory.path() / "small").string();
    std::ofstream(small) << "abc";
    std::ofstream(large) << "abc";
    REQUIRE(::truncate(large.c_str(), 1 << 20) == 0);
    auto hasher = ExecutableHasher::start({.file_bytes = 3, .file_time = std::chrono::seconds(3)});
    REQUIRE(hasher);
    CHECK(problem_of(**hasher, request_for(large)) == Problem::too_large);
    CHECK(hash_of(**hasher, request_for(small)).has_value());
    auto hasty = ExecutableHasher::start({.file_bytes = 1 << 20, .file_time = std::chrono::seconds(0)});
    REQUIRE(hasty);
    CHECK(problem_of(**hasty, request_for(large)) == Problem::too_slow);
    CHECK((*hasty)->files_read() == 1);
    CHECK(problem_of(**hasty, request_for(large)) == Problem::too_slow);  // and is not tried again at once
    CHECK((*hasty)->files_read() == 1);
}

TEST_CASE("a file system that does not answer holds up its own files only", "[capture][unit]") {
    const egresswatch::testing::TempDir directory;
    const std::string dead = (directory.path() / "dead").string(),
                      other = (directory.path() / "other").string();
    std::ofstream(dead) << "abc";
    std::ofstream(other) << "abc";
    auto hasher = ExecutableHasher::start({.file_time = std::chrono::milliseconds(50)});
    REQUIRE(hasher);
    auto request = request_for(dead);
    stall(request.inode);
    CHECK(problem_of(**hasher, request) == Problem::too_slow);
    CHECK((*hasher)->stuck() == 1);
    // Everything of that device is told at once; what lies elsewhere is read by another thread.
    CHECK(problem_of(**hasher, request_for(other)) == Problem::too_slow);
    request.device = 0;  // no file is found under it, but none is waited for either
    CHECK(problem_of(**hasher, request) == Problem::unreachable);
    stall(0);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while ((*hasher)->stuck() != 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    CHECK((*hasher)->stuck() == 0);
    CHECK(hash_of(**hasher, request_for(other)).has_value());
    CHECK(problem_of(**hasher, request_for(dead)) == Problem::too_slow);  // not tried again at once
}

TEST_CASE("the cache forgets whom nobody has asked for longest", "[capture][unit]") {
    ProcessCache cache(nullptr);
    for (std::uint32_t pid = 1; pid <= ProcessCache::PROCESSES_MAX; pid++) cache.add(process(pid), 0, 0, 0);
    REQUIRE(cache.find({1, 1, 1}) != nullptr);
    cache.add(process(0x7fffffff), 0, 0, 0);
    CHECK(cache.size() == ProcessCache::PROCESSES_MAX);
    CHECK(cache.forgotten() == 1);
    CHECK(cache.find({1, 2, 1}) == nullptr);
    CHECK(cache.find({1, 1, 1}) != nullptr);
    CHECK(cache.find({2, 1, 1}) == nullptr);  // the same pid, another process
}

TEST_CASE("the root of cgroup v2 is found wherever it is mounted", "[capture][unit]") {
    CHECK(cgroup2_mount("23 28 0:21 / /proc rw - proc proc rw\n"
                        "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
                        "35 24 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n") ==
          "/sys/fs/cgroup/unified");
    CHECK(cgroup2_mount("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw").size() == 14);
    CHECK(cgroup2_mount("23 28 0:21 / /proc rw - proc proc rw\n").empty());
    CHECK(cgroup2_mount("").empty());
    CHECK(cgroup2_mount(" - cgroup2 ").find('/') == std::string::npos);
}
