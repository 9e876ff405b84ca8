// agent/outputs/socket.h - sockets that never block, and the byte stream over one: bare or in TLS.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "agent/outputs/transport.h"
#include "agent/unique_fd.h"

namespace egresswatch::outputs {

[[nodiscard]] TransportError error_of(const std::string& operation, const std::string& where, int error);
[[nodiscard]] int socket_error(int fd) noexcept;  // SO_ERROR: 0 or errno
// Waits for `own` (its revents are not told) or one of `others`.
void poll_with(pollfd own, std::span<pollfd> others, std::chrono::milliseconds at_most);

struct Connecting {
    UniqueFd socket;
    bool done = false;  // false: wait for POLLOUT
};
[[nodiscard]] std::expected<Connecting, TransportError> connect_unix(const std::string& path);
// `type`: SOCK_STREAM or SOCK_DGRAM. Resolving a host name blocks this output's thread, and no other.
[[nodiscard]] std::expected<Connecting, TransportError> connect_inet(const OutputConfig& config, int type);

// Bytes in order, both ways. read() and write() give 0 where nothing can be done now.
class ByteStream {
public:
    virtual ~ByteStream() = default;
    [[nodiscard]] virtual int fd() const noexcept = 0;
    [[nodiscard]] virtual bool connecting() const noexcept = 0;
    // What poll() has to wait for so that advance(), or a write if one is wanted, can go on.
    [[nodiscard]] virtual short events(bool write_wanted) const noexcept = 0;
    [[nodiscard]] virtual std::expected<void, TransportError> advance() = 0;
    [[nodiscard]] virtual std::expected<std::size_t, TransportError> write(std::string_view bytes) = 0;
    // An error at the stream's end: "closed by the receiver".
    [[nodiscard]] virtual std::expected<std::size_t, TransportError> read(std::span<char> into) = 0;
    // Bytes given to the socket so far, whatever wraps ours included; and those of them that the receiver's
    // kernel has.
    [[nodiscard]] virtual std::uint64_t wire_bytes() const noexcept = 0;
    [[nodiscard]] virtual std::uint64_t wire_bytes_acknowledged() const noexcept = 0;
    // No more from us. The receiver sees the end behind the last byte.
    virtual void end() noexcept = 0;
    [[nodiscard]] virtual bool ended_by_peer() const noexcept = 0;  // cleanly, after an error of read()
};
// TLS where the configuration has it.
[[nodiscard]] std::expected<std::unique_ptr<ByteStream>, TransportError> open_byte_stream(
    const OutputConfig& config);
[[nodiscard]] std::expected<std::unique_ptr<ByteStream>, TransportError> wrap_in_tls(
    Connecting connecting, const OutputConfig& config);

// A bare TCP connection; TLS builds on it.
class TcpStream : public ByteStream {
public:
    TcpStream(Connecting connecting, std::string where)
        : socket_(std::move(connecting.socket)), where_(std::move(where)), connecting_(!connecting.done) {}
    [[nodiscard]] int fd() const noexcept override { return socket_.get(); }
    [[nodiscard]] bool connecting() const noexcept override { return connecting_; }
    [[nodiscard]] short events(bool write_wanted) const noexcept override;
    [[nodiscard]] std::expected<void, TransportError> advance() override;
    [[nodiscard]] std::expected<std::size_t, TransportError> write(std::string_view bytes) override;
    [[nodiscard]] std::expected<std::size_t, TransportError> read(std::span<char> into) override;
    [[nodiscard]] std::uint64_t wire_bytes() const noexcept override { return written_; }
    [[nodiscard]] std::uint64_t wire_bytes_acknowledged() const noexcept override;
    void end() noexcept override;
    [[nodiscard]] bool ended_by_peer() const noexcept override { return ended_; }

protected:
    UniqueFd socket_;
    std::string where_;
    bool connecting_;
    bool ended_ = false;
    std::uint64_t written_ = 0;
};

}  // namespace egresswatch::outputs
