// agent/outputs/socket.cpp - see socket.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/socket.h"

#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace egresswatch::outputs {
namespace {

constexpr int user_timeout_ms = 30'000;  // unacknowledged for so long: the connection is dead (RFC 5482)
constexpr int keepalive_idle_s = 10;
constexpr int keepalive_interval_s = 5;
constexpr int keepalive_probes = 3;

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

}  // namespace

TransportError error_of(const std::string& operation, const std::string& where, int error) {
    return {operation + " " + where + ": " + std::strerror(error)};
}

int socket_error(int fd) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

void poll_with(pollfd own, std::span<pollfd> others, std::chrono::milliseconds at_most) {
    std::array<pollfd, 4> all{own};
    const std::size_t count = std::min(others.size(), all.size() - 1);
    std::copy_n(others.begin(), count, all.begin() + 1);
    ::poll(all.data(), count + 1, static_cast<int>(at_most.count()));
    std::copy_n(all.begin() + 1, count, others.begin());
}

std::expected<Connecting, TransportError> connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return std::unexpected(error_of("connect", path, ENAMETOOLONG));
    std::memcpy(address.sun_path, path.data(), path.size());
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return std::unexpected(error_of("open a socket for", path, errno));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return std::unexpected(error_of("connect", path, errno));
    return Connecting{std::move(socket), true};
}

std::expected<Connecting, TransportError> connect_inet(const OutputConfig& config, int type) {
    const std::string where = destination_text(config);
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = type;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const std::string port = std::to_string(config.port);
    int failed = ::getaddrinfo(config.address.c_str(), port.c_str(), &hints, &list);
    if (failed == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
        failed = ::getaddrinfo(config.address.c_str(), port.c_str(), &hints, &list);
    }
    if (failed != 0)
        return std::unexpected(TransportError{"resolve " + where + ": " + ::gai_strerror(failed)});
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    TransportError last{where + ": no address"};
    for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
        UniqueFd socket(
            ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol));
        if (!socket) {
            last = error_of("open a socket for", where, errno);
            continue;
        }
        if (type == SOCK_STREAM) watch_peer(socket.get());
        const bool done = ::connect(socket.get(), at->ai_addr, at->ai_addrlen) == 0;
        if (done || errno == EINPROGRESS) return Connecting{std::move(socket), done};
        last = error_of("connect", where, errno);
    }
    return std::unexpected(last);
}

std::expected<std::unique_ptr<ByteStream>, TransportError> open_byte_stream(const OutputConfig& config) {
    auto connecting = connect_inet(config, SOCK_STREAM);
    if (!connecting) return std::unexpected(connecting.error());
    if (config.tls) return wrap_in_tls(std::move(*connecting), config);
    return std::make_unique<TcpStream>(std::move(*connecting), destination_text(config));
}

short TcpStream::events(bool write_wanted) const noexcept {
    return static_cast<short>(POLLIN | (connecting_ || write_wanted ? POLLOUT : 0));
}

std::expected<void, TransportError> TcpStream::advance() {
    if (!connecting_) return {};
    pollfd ready{fd(), POLLOUT, 0};
    if (::poll(&ready, 1, 0) != 1) return {};
    if (const int error = socket_error(fd()); error != 0)
        return std::unexpected(error_of("connect", where_, error));
    connecting_ = false;
    return {};
}

std::expected<std::size_t, TransportError> TcpStream::write(std::string_view bytes) {
    while (true) {
        const auto put = ::send(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0) {
            written_ += static_cast<std::uint64_t>(put);
            return static_cast<std::size_t>(put);
        }
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
        return std::unexpected(error_of("send to", where_, errno));
    }
}

std::expected<std::size_t, TransportError> TcpStream::read(std::span<char> into) {
    while (true) {
        const auto got = ::recv(fd(), into.data(), into.size(), MSG_DONTWAIT);
        if (got > 0) return static_cast<std::size_t>(got);
        if (got == 0) {
            ended_ = true;
            return std::unexpected(TransportError{where_ + ": closed by the receiver"});
        }
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
        return std::unexpected(error_of("receive from", where_, errno));
    }
}

std::uint64_t TcpStream::wire_bytes_acknowledged() const noexcept {
    int waiting = 0;  // not sent, or sent and not acknowledged (tcp(7))
    if (::ioctl(fd(), SIOCOUTQ, &waiting) != 0 || waiting < 0) return 0;
    const std::uint64_t all = wire_bytes();
    return all - std::min(all, static_cast<std::uint64_t>(waiting));
}

void TcpStream::end() noexcept {
    (void)::shutdown(fd(), SHUT_WR);
}

}  // namespace egresswatch::outputs
