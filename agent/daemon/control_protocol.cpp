// agent/daemon/control_protocol.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/control_protocol.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "agent/unique_fd.h"

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

// An answer longer than this is not one of ours: status of 4096 classes and 1024 interfaces is 2 MB.
constexpr std::size_t answer_bytes_max = 16u << 20;
constexpr std::size_t read_bytes = 65536;

constexpr std::array<std::pair<std::string_view, ControlRequest>, 5> requests{{
    {"status", ControlRequest::status},
    {"reload", ControlRequest::reload},
    {"observe", ControlRequest::observe},
    {"observed", ControlRequest::observed},
    {"explain", ControlRequest::explain},
}};
constexpr std::string_view known_requests = "known: status, reload, observe, observed, explain";

std::string system_error(const std::string& what, int error) {
    return what + ": " + std::strerror(error);
}

std::expected<UniqueFd, std::string> connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return std::unexpected("socket path " + path + " is longer than " +
                               std::to_string(sizeof address.sun_path - 1) + " bytes");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return std::unexpected(system_error("open socket", errno));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        std::string text = system_error("connect to " + path, errno);
        if (errno == ENOENT || errno == ECONNREFUSED) text += "; is egresswatchd running?";
        if (errno == EACCES) text += "; ask as root or as a member of group egresswatch";
        return std::unexpected(text);
    }
    return fd;
}

std::expected<std::string, std::string> read_line(int fd, Clock::time_point deadline) {
    std::string line;
    std::size_t filled = 0;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if (left.count() <= 0) return std::unexpected("the daemon did not answer in time");
        pollfd waiting{fd, POLLIN, 0};
        if (::poll(&waiting, 1, static_cast<int>(left.count())) <= 0) continue;
        // Not into an array: a worker of the metrics endpoint has a stack of 100 KiB in all.
        line.resize(filled + read_bytes);
        const ssize_t got = ::recv(fd, line.data() + filled, read_bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return std::unexpected(system_error("receive answer", errno));
        if (got == 0) return std::unexpected("the daemon closed the connection before its answer was whole");
        line.resize(filled + static_cast<std::size_t>(got));
        if (const auto end = line.find('\n', filled); end != std::string::npos) return line.substr(0, end);
        filled = line.size();
        if (filled > answer_bytes_max) return std::unexpected("the answer is longer than 16 MiB");
    }
}

}  // namespace

std::expected<ControlRequest, std::string> parse_control_request(std::string_view line) {
    const auto document = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (document.is_discarded()) return std::unexpected("the request is not JSON");
    if (!document.is_object()) return std::unexpected("the request is not a JSON object");
    const auto request = document.find("request");
    if (request == document.end() || !request->is_string())
        return std::unexpected("the request lacks \"request\"; " + std::string(known_requests));
    const auto& name = request->get_ref<const std::string&>();
    for (const auto& [known, which] : requests)
        if (name == known) return which;
    return std::unexpected("unknown request \"" + name.substr(0, 64) + "\"; " + std::string(known_requests));
}

std::string control_error(std::string_view message) {
    return nlohmann::json{{"ok", false}, {"error", message}}.dump(-1, ' ', false,
                                                                  nlohmann::json::error_handler_t::replace);
}

std::expected<nlohmann::json, std::string> ask_daemon(const std::string& socket_path,
                                                      std::string_view request,
                                                      std::chrono::milliseconds timeout) {
    return ask_daemon(socket_path, request, timeout, nlohmann::json::object());
}

std::expected<nlohmann::json, std::string> ask_daemon(const std::string& socket_path,
                                                      std::string_view request,
                                                      std::chrono::milliseconds timeout,
                                                      const nlohmann::json& members) {
    auto fd = connect_to(socket_path);
    if (!fd) return std::unexpected(fd.error());
    nlohmann::json document = members;
    document["request"] = request;
    const std::string line = document.dump() + "\n";
    if (::send(fd->get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
        return std::unexpected(system_error("send request", errno));
    auto answer = read_line(fd->get(), Clock::now() + timeout);
    if (!answer) return std::unexpected(answer.error());
    document = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object()) return std::unexpected("the answer is not a JSON object");
    if (!document.value("ok", false))
        return std::unexpected("the daemon refuses: " +
                               document.value("error", std::string("no reason given")));
    return document;
}

}  // namespace egresswatch::daemon
