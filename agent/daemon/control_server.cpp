// agent/daemon/control_server.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/control_server.h"

#include <grp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

std::unexpected<capture::OsError> failed(const char* operation, const std::string& path, int error,
                                         const char* hint = "") {
    return std::unexpected(capture::OsError{operation, path, error, hint});
}

// umask is the process's: this runs before any other thread of ours makes files.
class Umask {
public:
    explicit Umask(mode_t mask) : old_(::umask(mask)) {}
    ~Umask() { ::umask(old_); }
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;

private:
    mode_t old_;
};

std::expected<UniqueFd, capture::OsError> listen_on(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return failed("make control socket", path, ENAMETOOLONG,
                      "a unix socket's path has at most 107 bytes");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);

    UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe) return failed("make control socket", path, errno);
    if (::connect(probe.get(), generic, sizeof address) == 0 || errno == EAGAIN)
        return failed("make control socket", path, EADDRINUSE,
                      "another egresswatchd answers there; stop it first");
    struct stat info {};
    if (errno == ECONNREFUSED && ::stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode))
        ::unlink(path.c_str());

    UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener) return failed("make control socket", path, errno);
    {
        const Umask only_owner_and_group(0117);
        if (::bind(listener.get(), generic, sizeof address) != 0)
            return failed(
                "bind control socket", path, errno,
                errno == ENOENT ? "its folder does not exist; systemd's RuntimeDirectory= makes it" : "");
    }
    if (const group* group = ::getgrnam("egresswatch"); group != nullptr) {
        // Not fatal: without it only the daemon's own user and group may ask.
        [[maybe_unused]] const int ignored = ::chown(path.c_str(), static_cast<uid_t>(-1), group->gr_gid);
    }
    if (::listen(listener.get(), static_cast<int>(ControlServer::clients_max)) != 0)
        return failed("listen on control socket", path, errno);
    return listener;
}

}  // namespace

std::expected<std::unique_ptr<ControlServer>, capture::OsError> ControlServer::open(Config config) {
    auto listener = listen_on(config.path);
    if (!listener) return std::unexpected(listener.error());
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) return failed("make control socket", config.path, errno);
    return std::unique_ptr<ControlServer>(
        new ControlServer(std::move(config), std::move(*listener), std::move(wake)));
}

ControlServer::ControlServer(Config config, UniqueFd listener, UniqueFd wake_fd)
    : config_(std::move(config)), listener_(std::move(listener)), wake_(std::move(wake_fd)) {}

void ControlServer::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

ControlServer::~ControlServer() {
    thread_.request_stop();
    wake();
    if (thread_.joinable()) thread_.join();
    ::unlink(config_.path.c_str());
}

std::vector<ControlServer::Pending> ControlServer::take_requests() {
    const std::lock_guard lock(mutex_);
    return std::exchange(requests_, {});
}

void ControlServer::answer(std::uint64_t client, std::string line) {
    line += '\n';
    {
        const std::lock_guard lock(mutex_);
        answers_.emplace_back(client, std::move(line));
    }
    wake();
}

void ControlServer::wake() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored = ::write(wake_.get(), &one, sizeof one);
}

void ControlServer::run(const std::stop_token& stop) {
    std::vector<pollfd> waiting;
    std::vector<std::uint64_t> ids;
    while (!stop.stop_requested()) {
        waiting.assign({{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}});
        ids.clear();
        for (const auto& [id, client] : clients_) {
            // One that waits for its answer is not read: a flood of further bytes stays in its socket buffer.
            short events = 0;
            if (!client.asked) events |= POLLIN;
            if (!client.out.empty()) events |= POLLOUT;
            waiting.push_back({client.fd.get(), events, 0});
            ids.push_back(id);
        }
        ::poll(waiting.data(), waiting.size(), clients_.empty() ? -1 : 250);
        std::uint64_t drained = 0;
        [[maybe_unused]] const ssize_t ignored = ::read(wake_.get(), &drained, sizeof drained);
        move_answers();
        const auto now = Clock::now();
        for (std::size_t i = 0; i < ids.size(); i++) {
            Client& client = clients_.at(ids[i]);
            if (now >= client.deadline || !serve(ids[i], client, waiting[i + 2].revents))
                clients_.erase(ids[i]);
        }
        if ((waiting[0].revents & POLLIN) != 0) accept_clients();
    }
}

void ControlServer::accept_clients() {
    for (;;) {
        UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!fd) return;
        if (clients_.size() >= clients_max) {
            refused_++;
            const std::string line = control_error("too many clients at once; ask again in a moment") + "\n";
            [[maybe_unused]] const ssize_t ignored =
                ::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            continue;
        }
        Client client;
        client.fd = std::move(fd);
        client.deadline = Clock::now() + config_.request_deadline;
        clients_.emplace(next_client_++, std::move(client));
    }
}

void ControlServer::move_answers() {
    std::vector<std::pair<std::uint64_t, std::string>> answers;
    {
        const std::lock_guard lock(mutex_);
        answers.swap(answers_);
    }
    for (auto& [id, line] : answers)
        if (const auto client = clients_.find(id); client != clients_.end())
            client->second.out = std::move(line);
}

// False: the client is done with.
bool ControlServer::serve(std::uint64_t id, Client& client, short events) {
    if (!client.asked && (events & (POLLIN | POLLHUP | POLLERR)) != 0 && !read_request(id, client))
        return false;
    if (client.asked && client.out.empty()) return (events & (POLLHUP | POLLERR)) == 0;
    if (!client.out.empty()) return write_answer(client);
    return true;
}

bool ControlServer::read_request(std::uint64_t id, Client& client) {
    std::array<char, request_bytes_max + 1> buffer;
    const ssize_t got = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    client.in.append(buffer.data(), static_cast<std::size_t>(got));
    const auto end = client.in.find('\n');
    if (end == std::string::npos && client.in.size() <= request_bytes_max) return true;
    client.asked = true;
    client.deadline = Clock::now() + config_.answer_deadline;
    if (end == std::string::npos || end > request_bytes_max) {
        client.out = control_error("the request is longer than 4096 bytes") + "\n";
        return true;
    }
    std::string line = std::exchange(client.in, {}).substr(0, end);
    const auto request = parse_control_request(line);
    if (!request) {
        client.out = control_error(request.error()) + "\n";
        return true;
    }
    const std::lock_guard lock(mutex_);
    requests_.push_back({id, *request, std::move(line)});
    return true;
}

bool ControlServer::write_answer(Client& client) {
    const ssize_t sent =
        ::send(client.fd.get(), client.out.data(), client.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    client.out.erase(0, static_cast<std::size_t>(sent));
    return !client.out.empty();
}

}  // namespace egresswatch::daemon
