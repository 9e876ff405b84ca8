// capture/process/executable_hash.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/executable_hash.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <openssl/evp.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "capture/process/process_start.h"

namespace egresswatch::capture {
namespace {

using Hasher = ExecutableHasher;
using Clock = std::chrono::steady_clock;
using Problem = Hasher::Problem;

constexpr std::size_t READ_BYTES = 256 * 1024;

std::unexpected<Hasher::Failure> failed(Problem problem, std::string words) {
    return std::unexpected(Hasher::Failure{problem, std::move(words)});
}

void keep_reading_capabilities_only() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3]{};
    if (::syscall(SYS_capget, &header, now) != 0) return;
    const std::uint32_t kept = 1U << CAP_SYS_PTRACE | 1U << CAP_DAC_READ_SEARCH;
    now[0].effective = now[0].permitted = now[0].permitted & kept;
    now[1].effective = now[1].permitted = 0;
    now[0].inheritable = now[1].inheritable = 0;
    ::syscall(SYS_capset, &header, now);
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

bool is_same_file(const struct stat& found, const Hasher::Request& request) {
    return found.st_ino == request.inode &&
           found.st_dev == ::makedev(request.device >> 20, request.device & 0xfffff);
}

std::int64_t ns_of(const timespec& time) {
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

struct FileVersion {
    dev_t device;
    ino_t inode;
    std::int64_t written_ns;  // mtime, which its owner may set to anything
    std::int64_t changed_ns;  // ctime, which nobody can set
    std::int64_t size;
    auto operator<=>(const FileVersion&) const = default;

    static FileVersion of(const struct stat& info) {
        return {info.st_dev, info.st_ino, ns_of(info.st_mtim), ns_of(info.st_ctim), info.st_size};
    }
};

// What is read now need not be what ran: others may have written into the file meanwhile, once the process
// has ended, or while it runs where the kernel (6.11) or the file system lets them. Losing its last name
// changes a file's ctime too, and nothing else of it.
bool has_changed(const struct stat& info, const Hasher::Request& request) {
    timespec wall{}, boot{}, tick{};
    // A file is stamped by a clock that may be a tick behind.
    ::clock_getres(CLOCK_REALTIME_COARSE, &tick);
    ::clock_gettime(CLOCK_REALTIME, &wall);
    ::clock_gettime(CLOCK_BOOTTIME, &boot);
    const std::int64_t told =
        static_cast<std::int64_t>(request.told_ns) + ns_of(wall) - ns_of(boot) - ns_of(tick);
    return ns_of(info.st_nlink == 0 ? info.st_mtim : info.st_ctim) > told;
}

struct FreeDigest {
    void operator()(EVP_MD_CTX* context) const noexcept { ::EVP_MD_CTX_free(context); }
};

Hasher::Hash sha256_of(int fd, const Hasher::Limits& limits) {
    const std::unique_ptr<EVP_MD_CTX, FreeDigest> digest(::EVP_MD_CTX_new());
    if (!digest || ::EVP_DigestInit_ex(digest.get(), ::EVP_sha256(), nullptr) != 1)
        return failed(Problem::unreachable, "no SHA-256");
    const auto deadline = Clock::now() + limits.file_time;
    std::vector<unsigned char> buffer(READ_BYTES);
    std::uint64_t total = 0;
    while (true) {
        const ssize_t bytes = ::read(fd, buffer.data(), buffer.size());
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0) return failed(Problem::unreachable, std::string("read: ") + std::strerror(errno));
        if (bytes == 0) break;
        total += static_cast<std::uint64_t>(bytes);
        if (total > limits.file_bytes) return failed(Problem::too_large, "too large to be read");
        if (Clock::now() >= deadline) return failed(Problem::too_slow, "could not be read in time");
        ::EVP_DigestUpdate(digest.get(), buffer.data(), static_cast<std::size_t>(bytes));
    }
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (::EVP_DigestFinal_ex(digest.get(), hash, &size) != 1)
        return failed(Problem::unreachable, "no SHA-256");
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (unsigned int i = 0; i < size; i++) {
        text += digits[hash[i] >> 4];
        text += digits[hash[i] & 15];
    }
    return text;
}

// The file that the process runs: through /proc, which also reaches deleted files and other mount namespaces,
// as long as it runs and we may; else by its path, if the same file lies there.
std::expected<UniqueFd, Hasher::Failure> open_executable(const Hasher::Request& request) {
    const std::string link = "/proc/" + std::to_string(request.process.pid) + "/exe";
    UniqueFd file(::open(link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    const int refused = file ? 0 : errno;
    struct stat found {};
    // A stacked file system (overlayfs) may show another device than the kernel has: then the inode must do.
    if (file && ::fstat(file.get(), &found) == 0 && found.st_ino == request.inode &&
        (is_same_file(found, request) || runs_still(request.process)))
        return file;
    if (!request.deleted && request.path.starts_with('/')) {
        file = UniqueFd(::open(request.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        if (file && ::fstat(file.get(), &found) == 0 && S_ISREG(found.st_mode) &&
            is_same_file(found, request))
            return file;
    }
    if (refused == EACCES || refused == EPERM)
        return failed(Problem::unreachable,
                      "not allowed to read /proc/PID/exe (needs CAP_SYS_PTRACE), and its path is not it");
    return failed(Problem::unreachable, "the process has ended, and its path is not that file");
}

// What is known of files. All threads.
class Files {
public:
    // `read`: whether the file was read.
    Hasher::Hash hash_of(const Hasher::Request& request, const Hasher::Limits& limits, bool& read);

private:
    struct Known {
        Hasher::Hash hash;
        Clock::time_point at;
    };
    std::optional<Hasher::Hash> find(const FileVersion& version);
    void keep(const FileVersion& version, const Hasher::Hash& hash);

    std::mutex mutex_;
    std::map<FileVersion, Known> known_;
};

std::optional<Hasher::Hash> Files::find(const FileVersion& version) {
    const std::lock_guard lock(mutex_);
    const auto known = known_.find(version);
    if (known == known_.end()) return std::nullopt;
    if (known->second.hash || Clock::now() - known->second.at < Hasher::TRY_AGAIN_AFTER)
        return known->second.hash;
    known_.erase(known);
    return std::nullopt;
}

void Files::keep(const FileVersion& version, const Hasher::Hash& hash) {
    const std::lock_guard lock(mutex_);
    if (known_.size() >= Hasher::CACHE_MAX) known_.clear();
    known_.insert_or_assign(version, Known{hash, Clock::now()});
}

Hasher::Hash Files::hash_of(const Hasher::Request& request, const Hasher::Limits& limits, bool& read) {
    auto file = open_executable(request);
    if (!file) return std::unexpected(std::move(file.error()));
    struct stat info {};
    if (::fstat(file->get(), &info) != 0)
        return failed(Problem::unreachable, std::string("stat: ") + std::strerror(errno));
    if (has_changed(info, request))
        return failed(Problem::changed, "changed: the file is not what it was when the process was seen");
    if (static_cast<std::uint64_t>(info.st_size) > limits.file_bytes)
        return failed(Problem::too_large, "too large to be read");
    const FileVersion version = FileVersion::of(info);
    if (auto known = find(version)) return std::move(*known);
    auto hash = sha256_of(file->get(), limits);
    read = true;
    if (::fstat(file->get(), &info) != 0 || FileVersion::of(info) != version)
        return failed(Problem::changed, "changed: the file was written to while it was read");
    keep(version, hash);
    return hash;
}

}  // namespace

struct ExecutableHasher::Shared {
    const Limits limits;
    UniqueFd ready;
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<Request> wanted;
    std::vector<Result> done;
    bool stopping = false;
    std::uint64_t files_read = 0;
    std::size_t threads = 0;           // that have not ended
    std::uint64_t turn = 0;            // of the thread that reads; one whose turn is over was left behind
    const Request* reading = nullptr;  // null: nobody reads
    Clock::time_point reading_since{};
    std::multiset<std::uint32_t> stuck_devices;  // one for each thread left behind
    Files files;

    explicit Shared(Limits l) : limits(l) {}
    void tell(Result result) {
        done.push_back(std::move(result));
        const std::uint64_t one = 1;
        (void)!::write(ready.get(), &one, sizeof one);
    }
    void run();
    void read_one(std::unique_lock<std::mutex>& lock);
    void leave_stuck_thread();
};

// One thread reads at a time; the others wait for the case that it gets stuck. They are there from the start,
// for later nobody has the capabilities any more.
void ExecutableHasher::Shared::run() {
    keep_reading_capabilities_only();
    std::unique_lock lock(mutex);
    while (true) {
        wake.wait(lock, [&] { return stopping || (reading == nullptr && !wanted.empty()); });
        if (stopping) break;
        read_one(lock);
    }
    --threads;
    wake.notify_all();
}

void ExecutableHasher::Shared::read_one(std::unique_lock<std::mutex>& lock) {
    const Request request = std::move(wanted.front());
    wanted.pop_front();
    if (stuck_devices.contains(request.device))
        return tell({request.process, failed(Problem::too_slow, "its file system does not answer")});
    const std::uint64_t mine = ++turn;
    reading = &request;
    reading_since = Clock::now();
    lock.unlock();
    bool read = false;
    Hash hash = files.hash_of(request, limits, read);
    lock.lock();
    files_read += read ? 1 : 0;
    if (mine != turn) {
        stuck_devices.erase(stuck_devices.find(request.device));
    } else {
        reading = nullptr;
        tell({request.process, std::move(hash)});
    }
    wake.notify_all();
}

// With the lock.
void ExecutableHasher::Shared::leave_stuck_thread() {
    if (reading != nullptr && Clock::now() - reading_since >= 2 * limits.file_time) {
        tell({reading->process, failed(Problem::too_slow, "its file system does not answer")});
        stuck_devices.insert(reading->device);
        reading = nullptr;
        ++turn;
        wake.notify_all();
    }
    if (stuck_devices.size() < THREADS) return;
    for (const Request& request : std::exchange(wanted, {}))
        tell({request.process, failed(Problem::too_slow, "file systems do not answer: nothing is read")});
}

std::expected<std::unique_ptr<ExecutableHasher>, OsError> ExecutableHasher::start(Limits limits) {
    auto shared = std::make_shared<Shared>(limits);
    shared->ready = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!shared->ready) return os_error("make an eventfd", "executable hashes", errno);
    shared->threads = THREADS;
    for (std::size_t i = 0; i < THREADS; ++i) std::thread([shared] { shared->run(); }).detach();
    return std::unique_ptr<ExecutableHasher>(new ExecutableHasher(std::move(shared)));
}

// Waits for threads that are not stuck, no longer than a file may take.
ExecutableHasher::~ExecutableHasher() {
    std::unique_lock lock(shared_->mutex);
    shared_->stopping = true;
    shared_->wake.notify_all();
    shared_->wake.wait_for(lock, 2 * shared_->limits.file_time,
                           [this] { return shared_->threads <= shared_->stuck_devices.size(); });
}

bool ExecutableHasher::want(Request request) {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->wanted.size() >= REQUESTS_MAX) return false;
    shared_->wanted.push_back(std::move(request));
    shared_->wake.notify_all();
    return true;
}

std::vector<ExecutableHasher::Result> ExecutableHasher::take() {
    const std::lock_guard lock(shared_->mutex);
    shared_->leave_stuck_thread();
    std::uint64_t count = 0;
    (void)!::read(shared_->ready.get(), &count, sizeof count);
    return std::exchange(shared_->done, {});
}

int ExecutableHasher::fd() const noexcept {
    return shared_->ready.get();
}

std::uint64_t ExecutableHasher::files_read() const noexcept {
    const std::lock_guard lock(shared_->mutex);
    return shared_->files_read;
}

std::size_t ExecutableHasher::stuck() const noexcept {
    const std::lock_guard lock(shared_->mutex);
    return shared_->stuck_devices.size();
}

}  // namespace egresswatch::capture
