// capture/pcap/byte_source.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/byte_source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace egresswatch::capture {
namespace {

constexpr std::uint64_t page_bytes_max = 65536;  // a multiple of every page size that Linux has here

}  // namespace

ByteSource::ByteSource(int descriptor, bool owned) noexcept : descriptor_(descriptor), owned_(owned) {
    struct stat status {};
    mapped_ = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    if (!mapped_) return;
    // Standard input may stand in the middle of a file.
    const off_t at = lseek(descriptor, 0, SEEK_CUR);
    if (at > 0) window_offset_ = static_cast<std::uint64_t>(at);
    origin_ = window_offset_;
}

ByteSource::ByteSource(std::span<const std::uint8_t> memory) noexcept
    : at_end_(true), window_(memory.data()), end_(memory.size()) {}

ByteSource& ByteSource::operator=(ByteSource&& other) noexcept {
    if (this == &other) return *this;
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
    owned_ = other.owned_;
    at_end_ = other.at_end_;
    error_ = other.error_;
    mapped_ = other.mapped_;
    holder_ = std::move(other.holder_);
    buffer_ = std::move(other.buffer_);
    buffer_bytes_ = std::exchange(other.buffer_bytes_, 0);
    window_ = std::exchange(other.window_, nullptr);
    begin_ = std::exchange(other.begin_, 0);
    end_ = std::exchange(other.end_, 0);
    window_offset_ = other.window_offset_;
    origin_ = other.origin_;
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
    if (mapped_)
        map_window(count);
    else
        read_window(count);
    return buffered() >= count;
}

void ByteSource::map_window(std::size_t count) {
    struct stat status {};
    if (fstat(descriptor_, &status) != 0) {
        error_ = errno;
        at_end_ = true;
        return;
    }
    const std::uint64_t position = window_offset_ + begin_;
    const std::uint64_t size = std::max(static_cast<std::uint64_t>(status.st_size), position);
    const std::uint64_t start = position / page_bytes_max * page_bytes_max;
    const std::uint64_t length = std::min<std::uint64_t>(
        size - start, std::max<std::uint64_t>(window_bytes, position - start + count));
    window_ = nullptr;
    begin_ = end_ = 0;
    window_offset_ = position;
    holder_.reset();
    if (size == position) return;
    void* mapped =
        mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, descriptor_, static_cast<off_t>(start));
    if (mapped == MAP_FAILED) {
        error_ = errno;
        at_end_ = true;
        return;
    }
    holder_ = std::shared_ptr<const void>(mapped, [length](void* memory) { munmap(memory, length); });
    // The disk reads the next piece while this one is worked on.
    (void)posix_fadvise(descriptor_, static_cast<off_t>(start + length), window_bytes, POSIX_FADV_WILLNEED);
    window_ = static_cast<const std::uint8_t*>(mapped);
    window_offset_ = start;
    begin_ = static_cast<std::size_t>(position - start);
    end_ = static_cast<std::size_t>(length);
}

void ByteSource::read_window(std::size_t count) {
    const std::size_t rest = buffered();
    const std::size_t wanted = std::max(count, window_bytes);
    window_offset_ += begin_;
    // Move the rest to the front, then fill the whole window: one memmove of a partial record a window. Into
    // another buffer where somebody still looks at this one, or it is too small.
    holder_.reset();
    if (buffer_ == nullptr || buffer_.use_count() > 1 || buffer_bytes_ < wanted) {
        auto larger = std::make_shared_for_overwrite<std::uint8_t[]>(wanted);
        if (rest > 0) std::memcpy(larger.get(), window_ + begin_, rest);
        buffer_ = std::move(larger);
        buffer_bytes_ = wanted;
    } else if (rest > 0) {
        std::memmove(buffer_.get(), window_ + begin_, rest);
    }
    holder_ = std::shared_ptr<const void>(buffer_, buffer_.get());
    window_ = buffer_.get();
    begin_ = 0;
    end_ = rest;
    while (end_ < buffer_bytes_) {
        const ssize_t got = ::read(descriptor_, buffer_.get() + end_, buffer_bytes_ - end_);
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
}

}  // namespace egresswatch::capture
