// agent/outputs/connection.h - one way to a receiver: a socket that never blocks. TLS and RELP will be
// further ones. SPDX-License-Identifier: Apache-2.0
//
// Threads: one.   Owns: one socket.
// Fails:   ConnectionError; the output counts it, waits and opens another connection.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>

#include "agent/outputs/syslog_output.h"

namespace egresswatch::outputs {

struct ConnectionError {
    std::string text;  // "connect 192.0.2.7:514: Connection refused"
};

enum class Sent : std::uint8_t {
    whole,
    part,        // the socket is full: wait for POLLOUT, call again with the rest
    impossible,  // this message can never go this way (larger than the transport's datagram)
};

class Connection {
public:
    virtual ~Connection() = default;
    [[nodiscard]] virtual int fd() const noexcept = 0;
    // Still on its way: wait for POLLOUT, then finish().
    [[nodiscard]] virtual bool connecting() const noexcept = 0;
    [[nodiscard]] virtual std::expected<void, ConnectionError> finish() = 0;
    // Message -> what goes into the socket.
    [[nodiscard]] virtual std::string frame(std::string_view message) const = 0;
    // `offset`: how much of the frame has gone already; moved on.
    [[nodiscard]] virtual std::expected<Sent, ConnectionError> send(std::string_view frame,
                                                                    std::size_t& offset) = 0;
    // Of the bytes handed over, those that the receiver's side has not confirmed. 0 where the transport
    // cannot say.
    [[nodiscard]] virtual std::uint64_t unconfirmed_bytes() const noexcept = 0;
    // The socket has something to say (POLLIN, POLLERR, POLLHUP): an error where the connection is over.
    [[nodiscard]] virtual std::expected<void, ConnectionError> check() = 0;
    // We are done: true when the receiver has confirmed that it took everything. Waits at most `timeout`.
    [[nodiscard]] virtual bool close_and_confirm(std::chrono::milliseconds timeout) noexcept = 0;
};

// Starts connecting. Resolving a host name blocks this output's thread, and no other.
[[nodiscard]] std::expected<std::unique_ptr<Connection>, ConnectionError> connect_to(
    const SyslogConfig& config);

[[nodiscard]] std::string destination_text(const SyslogConfig& config);  // "192.0.2.7:514", "/dev/log"

}  // namespace egresswatch::outputs
