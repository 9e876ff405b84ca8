// capture/pcap/byte_source.h - a file or a pipe as one forward stream with a look-ahead window.
// SPDX-License-Identifier: Apache-2.0
//
// A regular file's window is a piece of it mapped into memory: nothing is copied, and no more than a piece
// counts to the memory of the program at a time. Anything else is read() into a buffer. A file that shrinks
// is noticed with the next piece, and ends there; one that shrinks within the piece that is being looked at
// raises SIGBUS (mmap(2)): who opens files that others write handles it (agent/cli/replay.cpp). Threads: one.
// A window that was taken by window() stays readable, also from another thread, until it is given back. Owns:
// the file descriptor (not standard input's), the mapping, the buffer. Limits:  window_bytes of memory, more
// only while one block needs it, never above block_bytes_max; and the same for
//          each window that is held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace egresswatch::capture {

class ByteSource {
public:
    static constexpr std::size_t window_bytes = std::size_t{8} << 20;

    ByteSource() = default;
    // Takes the descriptor; closes it if `owned`.
    ByteSource(int descriptor, bool owned) noexcept;
    // Bytes in memory, which must outlive the source: for tests and fuzzers.
    explicit ByteSource(std::span<const std::uint8_t> memory) noexcept;
    ByteSource(ByteSource&& other) noexcept { *this = std::move(other); }
    ByteSource& operator=(ByteSource&& other) noexcept;
    ByteSource(const ByteSource&) = delete;
    ByteSource& operator=(const ByteSource&) = delete;
    ~ByteSource();

    // How many bytes from the current position are in the window already.
    [[nodiscard]] std::size_t buffered() const noexcept { return end_ - begin_; }
    // Makes at least `count` bytes available. Views into the window die here unless buffered() sufficed.
    // False at the end of the file or on a read error, see error().
    [[nodiscard]] bool ensure(std::size_t count);
    [[nodiscard]] const std::uint8_t* data() const noexcept { return window_ + begin_; }
    void skip(std::size_t count) noexcept { begin_ += count; }  // only what is buffered
    // Bytes from the start of the file to the current position.
    [[nodiscard]] std::uint64_t offset() const noexcept { return window_offset_ + begin_ - origin_; }
    [[nodiscard]] int error() const noexcept { return error_; }  // errno of a failed read, 0: none
    // Keeps the bytes of the present window where they are, whatever is read afterwards.
    [[nodiscard]] std::shared_ptr<const void> window() const noexcept { return holder_; }
    [[nodiscard]] bool mapped() const noexcept { return mapped_; }

private:
    void close() noexcept;
    void map_window(std::size_t count);
    void read_window(std::size_t count);

    int descriptor_ = -1;
    bool owned_ = false;
    bool at_end_ = false;
    int error_ = 0;
    bool mapped_ = false;
    std::shared_ptr<const void> holder_;  // what keeps the window: a mapping, or `buffer_`
    std::shared_ptr<std::uint8_t[]>
        buffer_;  // of what is not mapped; never cleared: nothing is read unwritten
    std::size_t buffer_bytes_ = 0;
    const std::uint8_t* window_ = nullptr;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::uint64_t window_offset_ = 0;
    std::uint64_t origin_ = 0;  // of standard input within a file
};

}  // namespace egresswatch::capture
