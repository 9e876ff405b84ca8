// tests/unit/agent/daemon_control_test.cpp - the control socket: its language, and clients that mean no good.
// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/daemon/control_protocol.h"
#include "agent/daemon/control_server.h"
#include "agent/unique_fd.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using namespace std::chrono_literals;
using daemon::ControlRequest;
using daemon::ControlServer;

namespace {

class Folder {
public:
    Folder() {
        char name[] = "/tmp/ew-control-XXXXXX";
        path_ = ::mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    [[nodiscard]] std::string socket() const { return path_ / "control.sock"; }

private:
    std::filesystem::path path_;
};

std::unique_ptr<ControlServer> serve(ControlServer::Config config) {
    auto server = ControlServer::open(std::move(config));
    if (!server) FAIL(server.error().to_string());
    (*server)->start();
    return std::move(*server);
}

UniqueFd connect_raw(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

// Everything until the server closes; the receive timeout is the deadline.
std::string read_all(int fd) {
    std::string out;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
        out.append(buffer, static_cast<std::size_t>(got));
    return out;
}

// Answers every request with `line`, as the daemon's loop does, until it dies.
class Loop {
public:
    Loop(ControlServer& server, std::string line)
        : thread_([&server, line = std::move(line)](const std::stop_token& stop) {
              while (!stop.stop_requested()) {
                  for (const auto& pending : server.take_requests()) server.answer(pending.client, line);
                  std::this_thread::sleep_for(1ms);
              }
          }) {}

private:
    std::jthread thread_;
};

}  // namespace

TEST_CASE("a request is a JSON object that names what it asks for", "[daemon][control]") {
    CHECK(daemon::parse_control_request(R"({"request":"status"})") == ControlRequest::status);
    CHECK(daemon::parse_control_request(R"({"request":"reload","x":1})") == ControlRequest::reload);
    CHECK(daemon::parse_control_request("").error() == "the request is not JSON");
    CHECK(daemon::parse_control_request("[]").error() == "the request is not a JSON object");
    CHECK(daemon::parse_control_request("{}").error() ==
          "the request lacks \"request\"; known: status, reload, observe, observed, explain");
    CHECK(daemon::parse_control_request(R"({"request":7})").error() ==
          "the request lacks \"request\"; known: status, reload, observe, observed, explain");
    CHECK(daemon::parse_control_request(R"({"request":"stop"})").error() ==
          "unknown request \"stop\"; known: status, reload, observe, observed, explain");
}

TEST_CASE("a client asks and gets its answer", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket()});
    const Loop loop(*server, R"({"ok":true,"status":{"pid":7}})");
    const auto answer = daemon::ask_daemon(folder.socket(), "status", 5s);
    REQUIRE(answer);
    CHECK((*answer)["status"]["pid"] == 7);
    const auto refused = daemon::ask_daemon(folder.socket(), "dance", 5s);
    REQUIRE(!refused);
    CHECK(refused.error() ==
          "the daemon refuses: unknown request \"dance\"; known: status, reload, observe, observed, explain");
}

TEST_CASE("a long answer is read by a thread with a small stack, as the workers of the metrics endpoint are",
          "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket()});
    const std::string pad(1 << 20, 'x');
    const Loop loop(*server, R"({"ok":true,"status":{"pad":")" + pad + R"("}})");
    struct Asked {
        std::string path, pad;
    } asked{folder.socket(), {}};
    pthread_attr_t attributes;
    REQUIRE(::pthread_attr_init(&attributes) == 0);
    REQUIRE(::pthread_attr_setstacksize(&attributes, 65536) == 0);
    pthread_t thread{};
    REQUIRE(::pthread_create(
                &thread, &attributes,
                [](void* given) -> void* {
                    auto* mine = static_cast<Asked*>(given);
                    if (const auto answer = daemon::ask_daemon(mine->path, "status", 5s))
                        mine->pad = (*answer)["status"]["pad"];
                    return nullptr;
                },
                &asked) == 0);
    ::pthread_join(thread, nullptr);
    ::pthread_attr_destroy(&attributes);
    CHECK(asked.pad == pad);
}

TEST_CASE("the socket is for owner and group only", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket()});
    struct stat info {};
    REQUIRE(::stat(folder.socket().c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0660);
}

TEST_CASE("a socket left behind is replaced, one that answers is not", "[daemon][control]") {
    const Folder folder;
    {
        UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        folder.socket().copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    const auto server = serve({.path = folder.socket()});
    const auto second = ControlServer::open({.path = folder.socket()});
    REQUIRE(!second);
    CHECK(second.error().hint == "another egresswatchd answers there; stop it first");
}

TEST_CASE("no daemon, no folder: the client says so", "[daemon][control]") {
    const auto answer = daemon::ask_daemon("/nonexistent/control.sock", "status", 1s);
    REQUIRE(!answer);
    CHECK(answer.error().find("is egresswatchd running?") != std::string::npos);
    const auto server = ControlServer::open({.path = "/nonexistent/control.sock"});
    REQUIRE(!server);
    CHECK(server.error().error == ENOENT);
}

TEST_CASE("an endless request is cut off", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket()});
    const UniqueFd client = connect_raw(folder.socket());
    const std::string flood(64 * 1024, 'x');
    [[maybe_unused]] const auto ignored = ::send(client.get(), flood.data(), flood.size(), MSG_NOSIGNAL);
    CHECK(read_all(client.get()).find("longer than 4096 bytes") != std::string::npos);
    CHECK(server->take_requests().empty());
}

TEST_CASE("a client that says nothing is closed at its deadline", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket(), .request_deadline = 100ms});
    const UniqueFd client = connect_raw(folder.socket());
    CHECK(read_all(client.get()).empty());
}

TEST_CASE("a client that does not read its answer is closed, and others are served meanwhile",
          "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket(), .answer_deadline = 300ms});
    // More than any socket buffer holds.
    const Loop loop(*server, R"({"ok":true,"fill":")" + std::string(4u << 20, 'x') + "\"}");
    const UniqueFd deaf = connect_raw(folder.socket());
    const std::string line = "{\"request\":\"status\"}\n";
    REQUIRE(::send(deaf.get(), line.data(), line.size(), 0) == static_cast<ssize_t>(line.size()));
    CHECK(daemon::ask_daemon(folder.socket(), "status", 5s));
    std::this_thread::sleep_for(600ms);  // twice its deadline: what follows is what was buffered before
    CHECK(read_all(deaf.get()).size() < (4u << 20));
}

TEST_CASE("clients beyond the limit are told and counted, and room comes back", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket(), .request_deadline = 400ms});
    std::vector<UniqueFd> clients;
    for (std::size_t i = 0; i < ControlServer::clients_max; i++)
        clients.push_back(connect_raw(folder.socket()));
    const UniqueFd one_more = connect_raw(folder.socket());
    CHECK(read_all(one_more.get()).find("too many clients") != std::string::npos);
    CHECK(server->clients_refused() == 1);
    for (const auto& client : clients) CHECK(read_all(client.get()).empty());  // their deadline
    const Loop loop(*server, R"({"ok":true})");
    CHECK(daemon::ask_daemon(folder.socket(), "status", 5s));
}

TEST_CASE("many requests at once are each answered", "[daemon][control]") {
    const Folder folder;
    const auto server = serve({.path = folder.socket()});
    const Loop loop(*server, R"({"ok":true})");
    std::atomic<int> answered = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 8; i++)
            clients.emplace_back([&] {
                for (int j = 0; j < 20; j++)
                    answered += daemon::ask_daemon(folder.socket(), "status", 5s).has_value();
            });
    }
    CHECK(answered == 160);
}
