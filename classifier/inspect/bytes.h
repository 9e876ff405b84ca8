// classifier/inspect/bytes.h - reading from a span without ever leaving it.
//
// A read beyond the end answers zero or nothing and marks the reader as failed; so a parser may read a whole
// structure and ask once. Network byte order, as all protocols of this folder have it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace egresswatch::inspect {

using ByteSpan = std::span<const std::uint8_t>;

[[nodiscard]] inline std::string_view text_of(ByteSpan bytes) noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
[[nodiscard]] inline ByteSpan bytes_of(std::string_view text) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

class Bytes {
public:
    explicit Bytes(ByteSpan bytes) noexcept : rest_(bytes) {}

    [[nodiscard]] bool ok() const noexcept { return ok_; }
    [[nodiscard]] std::size_t left() const noexcept { return rest_.size(); }
    [[nodiscard]] ByteSpan rest() const noexcept { return rest_; }

    ByteSpan take(std::size_t count) noexcept {
        if (count > rest_.size()) {
            ok_ = false;
            rest_ = {};
            return {};
        }
        const ByteSpan taken = rest_.first(count);
        rest_ = rest_.subspan(count);
        return taken;
    }
    void skip(std::size_t count) noexcept { (void)take(count); }
    std::uint8_t u8() noexcept { return static_cast<std::uint8_t>(number<1>()); }
    std::uint16_t u16() noexcept { return static_cast<std::uint16_t>(number<2>()); }
    std::uint32_t u24() noexcept { return number<3>(); }
    std::uint32_t u32() noexcept { return number<4>(); }

    // A vector with its length before it, as TLS writes them.
    ByteSpan vector8() noexcept { return take(u8()); }
    ByteSpan vector16() noexcept { return take(u16()); }

private:
    template <std::size_t Size>
    std::uint32_t number() noexcept {
        const ByteSpan taken = take(Size);
        if (taken.empty()) return 0;
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < Size; ++i) value = value << 8 | taken[i];
        return value;
    }

    ByteSpan rest_;
    bool ok_ = true;
};

// What a parser says of the first bytes of a stream.
enum class Verdict : std::uint8_t {
    match,       // this protocol, and all of what was asked for is there
    incomplete,  // this protocol so far; more bytes are needed
    other        // not this protocol, or nonsense in it
};

}  // namespace egresswatch::inspect
