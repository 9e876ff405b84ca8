// capture/pcap/byte_source.h - a file or a pipe as one forward stream with a look-ahead window.
// SPDX-License-Identifier: Apache-2.0
//
// read() into one buffer rather than mmap(): the same code serves pipes, and a file that shrinks while it is
// read ends early instead of raising SIGBUS. The copy costs a tenth of what a packet costs afterwards.
// Threads: one. Owns: the file descriptor (not standard input's) and the buffer.
// Limits:  window_bytes of memory, more only while one block needs it, never above block_bytes_max.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace egresswatch::capture {

class ByteSource {
public:
    static constexpr std::size_t window_bytes = std::size_t{4} << 20;

    ByteSource() = default;
    // Takes the descriptor; closes it if `owned`.
    ByteSource(int descriptor, bool owned) noexcept : descriptor_(descriptor), owned_(owned) {}
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
    [[nodiscard]] std::uint64_t offset() const noexcept { return window_offset_ + begin_; }
    [[nodiscard]] int error() const noexcept { return error_; }  // errno of a failed read, 0: none

private:
    void close() noexcept;

    int descriptor_ = -1;
    bool owned_ = false;
    bool at_end_ = false;
    int error_ = 0;
    std::vector<std::uint8_t> buffer_;
    const std::uint8_t* window_ = nullptr;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::uint64_t window_offset_ = 0;
};

}  // namespace egresswatch::capture
