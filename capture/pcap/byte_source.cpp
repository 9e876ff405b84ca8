// capture/pcap/byte_source.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/byte_source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace egresswatch::capture {

ByteSource::ByteSource(std::span<const std::uint8_t> memory) noexcept
    : at_end_(true), window_(memory.data()), end_(memory.size()) {}

ByteSource& ByteSource::operator=(ByteSource&& other) noexcept {
    if (this == &other) return *this;
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
    owned_ = other.owned_;
    at_end_ = other.at_end_;
    error_ = other.error_;
    buffer_ = std::move(other.buffer_);
    window_ = std::exchange(other.window_, nullptr);
    begin_ = std::exchange(other.begin_, 0);
    end_ = std::exchange(other.end_, 0);
    window_offset_ = other.window_offset_;
    return *this;
}

ByteSource::~ByteSource() {
    close();
}

void ByteSource::close() noexcept {
    if (owned_ && descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
}

bool ByteSource::ensure(std::size_t count) {
    if (buffered() >= count) return true;
    if (at_end_) return false;
    // Move the rest to the front, then fill the whole window: one memmove of a partial record a window.
    if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        window_offset_ += begin_;
        end_ -= begin_;
        begin_ = 0;
    }
    if (buffer_.size() < std::max(count, window_bytes)) buffer_.resize(std::max(count, window_bytes));
    window_ = buffer_.data();
    while (end_ < buffer_.size()) {
        const ssize_t got = ::read(descriptor_, buffer_.data() + end_, buffer_.size() - end_);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) error_ = errno;
        if (got <= 0) {
            at_end_ = true;
            break;
        }
        end_ += static_cast<std::size_t>(got);
        // A pipe gives what it has: enough is enough, so that a slow writer's packets are seen at once.
        if (end_ >= count && static_cast<std::size_t>(got) < window_bytes / 2) break;
    }
    return buffered() >= count;
}

}  // namespace egresswatch::capture
