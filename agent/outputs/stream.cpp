// agent/outputs/stream.cpp - syslog over TCP (RFC 6587: octet counting or a line feed behind each message)
// and TLS (RFC 5425: octet counting). SPDX-License-Identifier: Apache-2.0
//
// Syslog has no acknowledgement. A message counts as confirmed when the receiver's kernel has acknowledged
// the bytes that carried it; what that kernel had not yet given to the receiver dies with it, hence
// resend_window.
#include <sys/socket.h>

#include <array>
#include <deque>

#include "agent/outputs/send_buffer.h"

namespace egresswatch::outputs {
namespace {

using Clock = std::chrono::steady_clock;

class StreamTransport final : public Transport {
public:
    StreamTransport(std::unique_ptr<ByteStream> stream, Framing framing)
        : stream_(std::move(stream)), framing_(framing) {}

    [[nodiscard]] bool connecting() const noexcept override { return stream_->connecting(); }

    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        poll_with({stream_->fd(), stream_->events(!buffer_.empty()), 0}, others, at_most);
    }

    // A syslog receiver says nothing; what it says all the same is thrown away. Its closing is the news.
    [[nodiscard]] std::expected<void, TransportError> work() override {
        if (stream_->connecting()) return stream_->advance();
        if (auto written = flush(); !written) return written;
        std::array<char, 4096> ignored{};
        while (true) {
            const auto got = stream_->read(ignored);
            if (!got) return std::unexpected(got.error());
            if (*got == 0) return {};
        }
    }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        if (buffer_.full()) {
            if (auto written = flush(); !written) return std::unexpected(written.error());
            if (buffer_.full()) return Taken::busy;
        }
        if (framing_ == Framing::octet_counting) buffer_.append(std::to_string(message.size()) + " ");
        buffer_.append(message);
        if (framing_ == Framing::lf) buffer_.append("\n");
        ++taken_;
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override {
        if (auto written = buffer_.write_to(*stream_); !written) return written;
        // All that was taken is in the socket: one mark for all of it.
        if (buffer_.empty() && (marks_.empty() ? taken_ > confirmed_ : taken_ > marks_.back().taken))
            marks_.push_back({taken_, stream_->wire_bytes()});
        return {};
    }

    [[nodiscard]] std::uint64_t confirmed() override {
        if (!marks_.empty()) {
            const std::uint64_t acknowledged = stream_->wire_bytes_acknowledged();
            while (!marks_.empty() && marks_.front().wire_bytes <= acknowledged) {
                confirmed_ = marks_.front().taken;
                marks_.pop_front();
            }
        }
        return confirmed_;
    }
    [[nodiscard]] bool proves_delivery() const noexcept override { return false; }

    // A receiver that reads to the end and closes has read everything.
    [[nodiscard]] bool finish(std::chrono::milliseconds timeout) noexcept override {
        const auto deadline = Clock::now() + timeout;
        bool ending = false;
        while (true) {
            if (!buffer_.empty()) {
                if (!flush()) return false;
            } else if (!std::exchange(ending, true)) {
                stream_->end();
            }
            std::array<char, 4096> ignored{};
            const auto got = stream_->read(ignored);
            if (!got) return ending && stream_->ended_by_peer() && confirmed() == taken_;
            if (*got != 0) continue;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
            if (left.count() <= 0) return false;
            poll_with({stream_->fd(), stream_->events(!buffer_.empty()), 0}, {}, left);
        }
    }

private:
    struct Mark {
        std::uint64_t taken = 0;
        std::uint64_t wire_bytes = 0;  // behind the last byte of that many messages
    };
    std::unique_ptr<ByteStream> stream_;
    Framing framing_;
    SendBuffer buffer_;
    std::uint64_t taken_ = 0;
    std::uint64_t confirmed_ = 0;
    std::deque<Mark> marks_;
};

}  // namespace

OpenedTransport open_stream(const OutputConfig& config) {
    auto stream = open_byte_stream(config);
    if (!stream) return std::unexpected(stream.error());
    const Framing framing = config.transport == TransportKind::tls ? Framing::octet_counting : config.framing;
    return std::make_unique<StreamTransport>(std::move(*stream), framing);
}

}  // namespace egresswatch::outputs
