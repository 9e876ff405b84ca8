// agent/outputs/transport.h - one way to a receiver, from the first connection attempt to its end.
// SPDX-License-Identifier: Apache-2.0
//
// Threads: one.   Blocks: only in wait() and finish(), never longer than asked; open_transport() resolves
// names. Fails:   TransportError; the output counts it, waits and opens another one.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "agent/outputs/output_config.h"

namespace egresswatch::outputs {

struct TransportError {
    std::string text;                     // "connect 192.0.2.7:514: Connection refused"
    std::chrono::seconds retry_after{0};  // the receiver's wish; 0: it has none
};

enum class Taken : std::uint8_t {
    yes,
    busy,        // not now: wait(), and offer the same message again
    impossible,  // this message can never go this way (larger than the transport's datagram)
};

class Transport {
public:
    virtual ~Transport() = default;
    [[nodiscard]] virtual bool connecting() const noexcept = 0;
    // Returns when work() has something to do, one of `others` is ready (see its revents), or time is up.
    virtual void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) = 0;
    // Goes on with what the receiver's side allows: handshake, unsent bytes, acknowledgements. An error where
    // the connection is over.
    [[nodiscard]] virtual std::expected<void, TransportError> work() = 0;
    // From here on the message is the transport's; it may wait for others to go with it until flush().
    [[nodiscard]] virtual std::expected<Taken, TransportError> send(std::string_view message) = 0;
    [[nodiscard]] virtual std::expected<void, TransportError> flush() = 0;
    // Of the messages taken, how many, from the first, are confirmed.
    [[nodiscard]] virtual std::uint64_t confirmed() = 0;
    // Of the confirmed ones, those that the receiver refused for good.
    [[nodiscard]] virtual std::uint64_t given_up() const noexcept { return 0; }
    // What confirms: true: the receiver itself; false: only its kernel, so that its death may still lose it.
    [[nodiscard]] virtual bool proves_delivery() const noexcept = 0;
    // The receiver may have been changed under the same name (SIGHUP after a rotation of files).
    [[nodiscard]] virtual std::expected<void, TransportError> reopen() { return {}; }
    // We are done: true when the receiver has confirmed that it took everything. Waits at most `timeout`.
    [[nodiscard]] virtual bool finish(std::chrono::milliseconds timeout) noexcept = 0;
};

using OpenedTransport = std::expected<std::unique_ptr<Transport>, TransportError>;
[[nodiscard]] OpenedTransport open_transport(const OutputConfig& config);

// Behind it, one file each.
[[nodiscard]] OpenedTransport open_datagram(const OutputConfig& config);
[[nodiscard]] OpenedTransport open_stream(const OutputConfig& config);  // TCP and TLS
[[nodiscard]] OpenedTransport open_relp(const OutputConfig& config);
[[nodiscard]] OpenedTransport open_file(const OutputConfig& config);
[[nodiscard]] OpenedTransport open_standard_output();
[[nodiscard]] OpenedTransport open_http(const OutputConfig& config);

}  // namespace egresswatch::outputs
