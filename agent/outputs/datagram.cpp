// agent/outputs/datagram.cpp - UDP (RFC 5426), unix datagrams, journald: one message a datagram, no framing.
// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "agent/outputs/socket.h"

namespace egresswatch::outputs {
namespace {

class DatagramTransport final : public Transport {
public:
    DatagramTransport(UniqueFd socket, std::string where)
        : socket_(std::move(socket)), where_(std::move(where)) {}

    [[nodiscard]] bool connecting() const noexcept override { return false; }

    void wait(std::span<pollfd> others, std::chrono::milliseconds at_most) override {
        poll_with({socket_.get(), static_cast<short>(full_ ? POLLIN | POLLOUT : POLLIN), 0}, others,
                  no_buffers_ ? std::min(at_most, no_buffers_tick) : at_most);
    }

    [[nodiscard]] std::expected<void, TransportError> work() override {
        if (const int error = socket_error(socket_.get()); error != 0)
            return std::unexpected(error_of("send to", where_, error));
        return {};
    }

    [[nodiscard]] std::expected<Taken, TransportError> send(std::string_view message) override {
        full_ = no_buffers_ = false;
        while (::send(socket_.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            if (errno == EINTR) continue;
            full_ = errno == EAGAIN || errno == EWOULDBLOCK;
            no_buffers_ = errno == ENOBUFS;
            if (full_ || no_buffers_) return Taken::busy;
            if (errno == EMSGSIZE) return Taken::impossible;
            return std::unexpected(error_of("send to", where_, errno));
        }
        ++taken_;
        return Taken::yes;
    }

    [[nodiscard]] std::expected<void, TransportError> flush() override { return {}; }
    [[nodiscard]] std::uint64_t confirmed() override { return taken_; }  // nobody will say more
    [[nodiscard]] bool proves_delivery() const noexcept override { return false; }
    [[nodiscard]] bool finish(std::chrono::milliseconds) noexcept override {
        return socket_error(socket_.get()) == 0;
    }

private:
    // The interface's queue is full: the socket stays writable all the while, poll() would spin.
    static constexpr std::chrono::milliseconds no_buffers_tick{50};
    UniqueFd socket_;
    std::string where_;
    std::uint64_t taken_ = 0;
    bool full_ = false;
    bool no_buffers_ = false;
};

}  // namespace

OpenedTransport open_datagram(const OutputConfig& config) {
    auto connected =
        is_local_socket(config.transport) ? connect_unix(config.address) : connect_inet(config, SOCK_DGRAM);
    if (!connected) return std::unexpected(connected.error());
    return std::make_unique<DatagramTransport>(std::move(connected->socket), destination_text(config));
}

OpenedTransport open_transport(const OutputConfig& config) {
    switch (config.transport) {
        case TransportKind::unix_datagram:
        case TransportKind::udp:
        case TransportKind::journald:
            return open_datagram(config);
        case TransportKind::tcp:
        case TransportKind::tls:
            return open_stream(config);
        case TransportKind::relp:
            return open_relp(config);
        case TransportKind::file:
            return open_file(config);
        case TransportKind::standard_output:
            return open_standard_output();
        case TransportKind::http:
            return open_http(config);
    }
    return std::unexpected(TransportError{"no such transport"});
}

}  // namespace egresswatch::outputs
