// agent/outputs/connection.cpp - unix datagram, UDP and TCP. See connection.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/connection.h"

#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/unique_fd.h"

namespace egresswatch::outputs {
namespace {

constexpr int user_timeout_ms = 30'000;  // unacknowledged for so long: the connection is dead (RFC 5482)
constexpr int keepalive_idle_s = 10;
constexpr int keepalive_interval_s = 5;
constexpr int keepalive_probes = 3;

ConnectionError error_of(const std::string& operation, const std::string& where, int error) {
    return {operation + " " + where + ": " + std::strerror(error)};
}

class SocketConnection : public Connection {
public:
    SocketConnection(UniqueFd socket, std::string where, bool connecting)
        : socket_(std::move(socket)), where_(std::move(where)), connecting_(connecting) {}

    [[nodiscard]] int fd() const noexcept override { return socket_.get(); }
    [[nodiscard]] bool connecting() const noexcept override { return connecting_; }

    [[nodiscard]] std::expected<void, ConnectionError> finish() override {
        if (const int error = socket_error(); error != 0)
            return std::unexpected(error_of("connect", where_, error));
        connecting_ = false;
        return {};
    }

    [[nodiscard]] std::uint64_t unconfirmed_bytes() const noexcept override { return 0; }

    [[nodiscard]] std::expected<void, ConnectionError> check() override {
        if (const int error = socket_error(); error != 0)
            return std::unexpected(error_of("send to", where_, error));
        return {};
    }

    [[nodiscard]] bool close_and_confirm(std::chrono::milliseconds) noexcept override {
        return socket_error() == 0;
    }

protected:
    [[nodiscard]] int socket_error() const noexcept {
        int error = 0;
        socklen_t size = sizeof error;
        return ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
    }

    UniqueFd socket_;
    std::string where_;
    bool connecting_;
};

// UDP (RFC 5426) and unix datagrams: one message a datagram, no framing.
class DatagramConnection final : public SocketConnection {
public:
    using SocketConnection::SocketConnection;

    [[nodiscard]] std::string frame(std::string_view message) const override { return std::string(message); }

    [[nodiscard]] std::expected<Sent, ConnectionError> send(std::string_view frame,
                                                            std::size_t& offset) override {
        while (::send(fd(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return Sent::part;
            if (errno == EMSGSIZE) return Sent::impossible;
            return std::unexpected(error_of("send to", where_, errno));
        }
        offset = frame.size();
        return Sent::whole;
    }
};

// RFC 6587: octet counting or a line feed behind each message.
class StreamConnection final : public SocketConnection {
public:
    StreamConnection(UniqueFd socket, std::string where, bool connecting, Framing framing)
        : SocketConnection(std::move(socket), std::move(where), connecting), framing_(framing) {}

    [[nodiscard]] std::string frame(std::string_view message) const override {
        if (framing_ == Framing::octet_counting)
            return std::to_string(message.size()) + " " + std::string(message);
        return std::string(message) + "\n";
    }

    [[nodiscard]] std::expected<Sent, ConnectionError> send(std::string_view frame,
                                                            std::size_t& offset) override {
        while (offset < frame.size()) {
            const auto put =
                ::send(fd(), frame.data() + offset, frame.size() - offset, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (put < 0 && errno == EINTR) continue;
            if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Sent::part;
            if (put < 0) return std::unexpected(error_of("send to", where_, errno));
            offset += static_cast<std::size_t>(put);
        }
        return Sent::whole;
    }

    [[nodiscard]] std::uint64_t unconfirmed_bytes() const noexcept override {
        int bytes = 0;  // not sent, or sent and not acknowledged (tcp(7))
        return ::ioctl(fd(), SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
    }

    // A syslog receiver says nothing; what it says all the same is thrown away. Its closing is the news.
    [[nodiscard]] std::expected<void, ConnectionError> check() override {
        std::array<char, 4096> ignored{};
        while (true) {
            const auto got = ::recv(fd(), ignored.data(), ignored.size(), MSG_DONTWAIT);
            if (got > 0 || (got < 0 && errno == EINTR)) continue;
            if (got == 0) return std::unexpected(ConnectionError{where_ + ": closed by the receiver"});
            if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
            return std::unexpected(error_of("receive from", where_, errno));
        }
    }

    // A receiver that reads to the end and closes has read everything.
    [[nodiscard]] bool close_and_confirm(std::chrono::milliseconds timeout) noexcept override {
        if (::shutdown(fd(), SHUT_WR) != 0) return false;
        const auto deadline = std::chrono::steady_clock::now() + timeout;
        std::array<char, 4096> ignored{};
        while (true) {
            const auto got = ::recv(fd(), ignored.data(), ignored.size(), MSG_DONTWAIT);
            if (got == 0) return unconfirmed_bytes() == 0;
            if (got < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) return false;
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            pollfd wait{fd(), POLLIN, 0};
            if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) return false;
        }
    }

private:
    Framing framing_;
};

std::expected<std::unique_ptr<Connection>, ConnectionError> connect_unix(const SyslogConfig& config) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (config.address.size() >= sizeof address.sun_path)
        return std::unexpected(error_of("connect", config.address, ENAMETOOLONG));
    std::memcpy(address.sun_path, config.address.data(), config.address.size());
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return std::unexpected(error_of("open a socket for", config.address, errno));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return std::unexpected(error_of("connect", config.address, errno));
    return std::make_unique<DatagramConnection>(std::move(socket), config.address, false);
}

void set_option(int fd, int level, int option, int value) {
    (void)::setsockopt(fd, level, option, &value, sizeof value);  // a help, not a need
}

void watch_peer(int fd) {
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive_idle_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive_interval_s);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, keepalive_probes);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

std::expected<std::unique_ptr<Connection>, ConnectionError> connect_inet(const SyslogConfig& config) {
    const std::string where = destination_text(config);
    const bool tcp = config.transport == Transport::tcp;
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = tcp ? SOCK_STREAM : SOCK_DGRAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const std::string port = std::to_string(config.port);
    int failed = ::getaddrinfo(config.address.c_str(), port.c_str(), &hints, &list);
    if (failed == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
        failed = ::getaddrinfo(config.address.c_str(), port.c_str(), &hints, &list);
    }
    if (failed != 0)
        return std::unexpected(ConnectionError{"resolve " + where + ": " + ::gai_strerror(failed)});
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    ConnectionError last{where + ": no address"};
    for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
        UniqueFd socket(
            ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol));
        if (!socket) {
            last = error_of("open a socket for", where, errno);
            continue;
        }
        if (tcp) watch_peer(socket.get());
        const bool done = ::connect(socket.get(), at->ai_addr, at->ai_addrlen) == 0;
        if (!done && errno != EINPROGRESS) {
            last = error_of("connect", where, errno);
            continue;
        }
        if (!tcp) return std::make_unique<DatagramConnection>(std::move(socket), where, false);
        return std::make_unique<StreamConnection>(std::move(socket), where, !done, config.framing);
    }
    return std::unexpected(last);
}

}  // namespace

std::string destination_text(const SyslogConfig& config) {
    if (config.transport == Transport::unix_datagram) return config.address;
    const bool bracket = config.address.find(':') != std::string::npos;
    return (bracket ? "[" + config.address + "]" : config.address) + ":" + std::to_string(config.port);
}

std::expected<std::unique_ptr<Connection>, ConnectionError> connect_to(const SyslogConfig& config) {
    return config.transport == Transport::unix_datagram ? connect_unix(config) : connect_inet(config);
}

}  // namespace egresswatch::outputs
