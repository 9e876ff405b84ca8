// agent/evidence/line_source.cpp - see line_source.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/line_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace egresswatch::evidence {
namespace {

constexpr std::size_t read_bytes = 1 << 20;
constexpr std::size_t line_buffer_max = 64 << 20;  // a file without line feeds is no journal

}  // namespace

LineSource::LineSource(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    failed_ = !fd_;
    ended_ = failed_;
    if (!failed_) ::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

bool LineSource::fill() {
    if (ended_) return false;
    if (at_ != 0) {
        std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
        end_ -= at_;
        at_ = 0;
    }
    if (buffer_.size() < end_ + read_bytes) buffer_.resize(end_ + read_bytes);
    ssize_t got = 0;
    do got = ::read(fd_.get(), buffer_.data() + end_, read_bytes);
    while (got < 0 && errno == EINTR);
    if (got <= 0 || end_ > line_buffer_max) {
        failed_ = failed_ || got < 0 || end_ > line_buffer_max;
        ended_ = true;
        return false;
    }
    end_ += static_cast<std::size_t>(got);
    return true;
}

std::optional<std::string_view> LineSource::next() {
    std::size_t searched = at_;
    while (true) {
        if (const void* found =
                end_ == searched ? nullptr : std::memchr(buffer_.data() + searched, '\n', end_ - searched)) {
            const auto feed = static_cast<std::size_t>(static_cast<const char*>(found) - buffer_.data());
            const std::string_view line(buffer_.data() + at_, feed - at_);
            at_ = feed + 1;
            consumed_ += line.size() + 1;
            return line;
        }
        const std::size_t waiting = end_ - at_;
        if (!fill()) return std::nullopt;
        searched = at_ + waiting;
    }
}

}  // namespace egresswatch::evidence
