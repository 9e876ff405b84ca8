// agent/outputs/file_transport.cpp - records as lines: appended to a file, or on standard output.
// SPDX-License-Identifier: Apache-2.0
//
// File:   confirmed by fdatasync. A file that was renamed or removed (logrotate) is noticed before the next
// write and
//         its name opened anew. A line is whole or not there: what a full disk or a killed daemon left of one
//         is cut.
// Output: confirmed when the pipe has it. Never blocks: poll() first, then no more than PIPE_BUF bytes.
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/outputs/socket.h"

namespace egresswatch::outputs {
namespace {

constexpr std::size_t batch_bytes_max = 1 << 20;  // of one write and fdatasync
constexpr mode_t file_mode = 0640;

class FileTransport final : public Transport {
public:
    explicit FileTransport(std::string path) : path_(std::move(path)) {}

    // Also ends a line that was cut off: another writer's, or ours before a crash.
    [[nodiscard]] std::expected<void, TransportError> open() {
        file_.reset(::open(path_.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, file_mode));
        if (!file_) return std::unexpected(error_of("open", path_, errno));
        struct stat info {};
        if (::fstat(file_.get(), &info) != 0) return std::unexpected(error_of("stat", path_, errno));
        if (!S_ISREG(info.st_mode)) return std::unexpected(TransportError{path_ + " is not a regular file"});
        char last = '\n';
        if (info.st_size > 0 && ::pread(file_.get(), &last, 1, info.st_size - 1) != 1)
            return std::unexpected(error_of("read", path_, errno));
        if (last != '\n') return write_all("\n");
        return {};
    }

    [[nodiscard]] bool connecting() const noexcept override { return false; }
    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        poll_with({-1, 0, 0}, others, at_most);
    }
    [[nodiscard]] std::expected<void, TransportError> work() override { return {}; }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        if (batch_.size() >= batch_bytes_max)
            if (auto written = flush(); !written) return std::unexpected(written.error());
        batch_ += message;
        batch_ += '\n';
        ++taken_;
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override {
        if (batch_.empty()) return {};
        if (moved())
            if (auto opened = open(); !opened) return opened;
        if (auto written = write_all(batch_); !written) return written;
        if (::fdatasync(file_.get()) != 0) return std::unexpected(error_of("sync", path_, errno));
        batch_.clear();
        confirmed_ = taken_;
        return {};
    }
    // An idle output would hold on to the renamed file until it has something to write.
    [[nodiscard]] std::expected<void, TransportError> reopen() override {
        if (auto written = flush(); !written) return written;
        return open();
    }
    [[nodiscard]] std::uint64_t confirmed() override { return confirmed_; }
    [[nodiscard]] bool proves_delivery() const noexcept override { return true; }
    [[nodiscard]] bool finish(std::chrono::milliseconds) noexcept override {
        return flush().has_value() && confirmed_ == taken_;
    }

private:
    [[nodiscard]] bool moved() const {
        struct stat named {
        }, ours{};
        return ::stat(path_.c_str(), &named) != 0 || ::fstat(file_.get(), &ours) != 0 ||
               named.st_ino != ours.st_ino || named.st_dev != ours.st_dev;
    }

    [[nodiscard]] std::expected<void, TransportError> write_all(std::string_view bytes) {
        struct stat before {};
        if (::fstat(file_.get(), &before) != 0) return std::unexpected(error_of("stat", path_, errno));
        while (!bytes.empty()) {
            const auto put = ::write(file_.get(), bytes.data(), bytes.size());
            if (put < 0 && errno == EINTR) continue;
            if (put <= 0) {
                const int error = put == 0 ? ENOSPC : errno;
                // What went of it is sent again as a whole. Should this fail too, open() ends the torn line.
                (void)::ftruncate(file_.get(), before.st_size);
                return std::unexpected(error_of("write to", path_, error));
            }
            bytes.remove_prefix(static_cast<std::size_t>(put));
        }
        return {};
    }

    std::string path_;
    UniqueFd file_;
    std::string batch_;
    std::uint64_t taken_ = 0;
    std::uint64_t confirmed_ = 0;
};

class StandardOutput final : public Transport {
public:
    [[nodiscard]] bool connecting() const noexcept override { return false; }
    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        poll_with({STDOUT_FILENO, static_cast<short>(left_.empty() ? 0 : POLLOUT), 0}, others, at_most);
    }
    [[nodiscard]] std::expected<void, TransportError> work() override { return flush(); }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        if (!left_.empty()) {
            if (auto written = flush(); !written) return std::unexpected(written.error());
            if (!left_.empty()) return Taken::busy;
        }
        left_ = std::string(message) + "\n";
        ++taken_;
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override {
        while (!left_.empty()) {
            pollfd ready{STDOUT_FILENO, POLLOUT, 0};
            if (::poll(&ready, 1, 0) != 1) return {};
            const auto put =
                ::write(STDOUT_FILENO, left_.data(), std::min<std::size_t>(left_.size(), PIPE_BUF));
            if (put < 0 && (errno == EINTR || errno == EAGAIN)) return {};
            if (put < 0) return std::unexpected(error_of("write to", "standard output", errno));
            left_.erase(0, static_cast<std::size_t>(put));
        }
        return {};
    }
    [[nodiscard]] std::uint64_t confirmed() override { return left_.empty() ? taken_ : taken_ - 1; }
    [[nodiscard]] bool proves_delivery() const noexcept override { return true; }
    [[nodiscard]] bool finish(std::chrono::milliseconds timeout) noexcept override {
        const auto deadline = std::chrono::steady_clock::now() + timeout;
        while (flush() && !left_.empty() && std::chrono::steady_clock::now() < deadline)
            wait({}, std::chrono::milliseconds{50});
        return left_.empty();
    }

private:
    std::string left_;  // of the last line
    std::uint64_t taken_ = 0;
};

}  // namespace

OpenedTransport open_file(const OutputConfig& config) {
    auto transport = std::make_unique<FileTransport>(config.address);
    if (auto opened = transport->open(); !opened) return std::unexpected(opened.error());
    return transport;
}

OpenedTransport open_standard_output() {
    return std::make_unique<StandardOutput>();
}

}  // namespace egresswatch::outputs
