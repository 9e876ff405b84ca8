// agent/outputs/send_buffer.h - frames on their way into a byte stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <string>

#include "agent/outputs/socket.h"

namespace egresswatch::outputs {

// Gathers small frames for one write. Once full it takes nothing until all of it is in the stream: so it is
// empty again and again, and what went with it can be accounted for as one.
class SendBuffer {
public:
    static constexpr std::size_t bytes_max = 32 * 1024;  // a few TLS records; reached: the output waits

    [[nodiscard]] bool full() const noexcept { return bytes_.size() >= bytes_max; }
    [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
    void append(std::string_view frame) { bytes_ += frame; }

    // As much as the stream takes now.
    [[nodiscard]] std::expected<void, TransportError> write_to(ByteStream& stream) {
        while (offset_ < bytes_.size()) {
            const auto put = stream.write(std::string_view(bytes_).substr(offset_));
            if (!put) return std::unexpected(put.error());
            if (*put == 0) return {};
            offset_ += *put;
        }
        bytes_.clear();
        offset_ = 0;
        return {};
    }

private:
    std::string bytes_;
    std::size_t offset_ = 0;
};

}  // namespace egresswatch::outputs
