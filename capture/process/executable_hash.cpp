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
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

namespace egresswatch::capture {
namespace {

constexpr std::size_t READ_BYTES = 256 * 1024;

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

// Field 22 of /proc/PID/stat: start of the process in ticks, behind a command that may contain anything but
// ends at the last parenthesis (proc(5)).
bool runs_still(const ProcessId& process) {
    const std::string path = "/proc/" + std::to_string(process.pid) + "/stat";
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[1024];
    const ssize_t bytes = file ? ::read(file.get(), text, sizeof text) : -1;
    if (bytes <= 0) return false;
    std::string_view rest(text, static_cast<std::size_t>(bytes));
    rest.remove_prefix(std::min(rest.rfind(')') + 1, rest.size()));
    for (int field = 2; field < 22; field++) {
        const auto space = rest.find(' ');
        if (space == std::string_view::npos) return false;
        rest.remove_prefix(space + 1);
    }
    std::uint64_t ticks = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
    const auto tick_ns = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    return ticks == process.start_ns / tick_ns;
}

bool is_same_file(const struct stat& found, const ExecutableHasher::Request& request) {
    return found.st_ino == request.inode &&
           found.st_dev == ::makedev(request.device >> 20, request.device & 0xfffff);
}

struct FreeDigest {
    void operator()(EVP_MD_CTX* context) const noexcept { ::EVP_MD_CTX_free(context); }
};

std::expected<std::string, std::string> sha256_of(int fd) {
    const std::unique_ptr<EVP_MD_CTX, FreeDigest> digest(::EVP_MD_CTX_new());
    if (!digest || ::EVP_DigestInit_ex(digest.get(), ::EVP_sha256(), nullptr) != 1)
        return std::unexpected("no SHA-256");
    std::vector<unsigned char> buffer(READ_BYTES);
    std::uint64_t total = 0;
    while (true) {
        const ssize_t bytes = ::read(fd, buffer.data(), buffer.size());
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0) return std::unexpected(std::string("read: ") + std::strerror(errno));
        if (bytes == 0) break;
        total += static_cast<std::uint64_t>(bytes);
        if (total > ExecutableHasher::FILE_BYTES_MAX) return std::unexpected("the file is larger than 1 GiB");
        ::EVP_DigestUpdate(digest.get(), buffer.data(), static_cast<std::size_t>(bytes));
    }
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (::EVP_DigestFinal_ex(digest.get(), hash, &size) != 1) return std::unexpected("no SHA-256");
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
std::expected<UniqueFd, std::string> open_executable(const ExecutableHasher::Request& request) {
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
        return std::unexpected(
            "not allowed to read /proc/PID/exe (needs CAP_SYS_PTRACE), and its path is not it");
    return std::unexpected("the process has ended, and its path is not that file");
}

}  // namespace

std::expected<std::unique_ptr<ExecutableHasher>, OsError> ExecutableHasher::start() {
    std::unique_ptr<ExecutableHasher> hasher(new ExecutableHasher);
    hasher->ready_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!hasher->ready_) return os_error("make an eventfd", "executable hashes", errno);
    hasher->thread_ = std::thread([self = hasher.get()] { self->run(); });
    return hasher;
}

ExecutableHasher::~ExecutableHasher() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
}

bool ExecutableHasher::want(Request request) {
    {
        const std::lock_guard lock(mutex_);
        if (wanted_.size() >= REQUESTS_MAX) return false;
        wanted_.push_back(std::move(request));
    }
    wake_.notify_one();
    return true;
}

std::vector<ExecutableHasher::Result> ExecutableHasher::take() {
    std::uint64_t count = 0;
    (void)!::read(ready_.get(), &count, sizeof count);
    const std::lock_guard lock(mutex_);
    return std::exchange(done_, {});
}

std::uint64_t ExecutableHasher::files_read() const noexcept {
    const std::lock_guard lock(mutex_);
    return files_read_;
}

void ExecutableHasher::run() {
    keep_reading_capabilities_only();
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !wanted_.empty(); });
        if (stopping_) return;
        const Request request = std::move(wanted_.front());
        wanted_.pop_front();
        lock.unlock();
        Result result{request.process, hash_of(request)};
        lock.lock();
        done_.push_back(std::move(result));
        const std::uint64_t one = 1;
        (void)!::write(ready_.get(), &one, sizeof one);
    }
}

std::expected<std::string, std::string> ExecutableHasher::hash_of(const Request& request) {
    auto file = open_executable(request);
    if (!file) return std::unexpected(file.error());
    struct stat info {};
    if (::fstat(file->get(), &info) != 0)
        return std::unexpected(std::string("stat: ") + std::strerror(errno));
    const auto ns = [](const timespec& time) { return time.tv_sec * 1'000'000'000LL + time.tv_nsec; };
    const FileVersion version{info.st_dev, info.st_ino, ns(info.st_mtim), ns(info.st_ctim), info.st_size};
    if (const auto known = known_.find(version); known != known_.end()) return known->second;
    auto hash = sha256_of(file->get());
    {
        const std::lock_guard lock(mutex_);
        files_read_++;
    }
    if (!hash) return hash;
    if (known_.size() >= CACHE_MAX) known_.clear();
    known_.emplace(version, *hash);
    return hash;
}

}  // namespace egresswatch::capture
