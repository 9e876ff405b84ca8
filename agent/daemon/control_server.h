// agent/daemon/control_server.h - the control socket: many clients, none of which can hold up the daemon.
// SPDX-License-Identifier: Apache-2.0
//
// Threads: one of its own reads requests and writes answers, all non-blocking; the daemon's loop takes the
//          requests and gives the answers, and is never made to wait by a client.
// Limits:  clients_max, request_bytes_max, and two deadlines. A client beyond them is told so and closed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/daemon/control_protocol.h"
#include "agent/unique_fd.h"
#include "capture/engine.h"

namespace egresswatch::daemon {

class ControlServer {
public:
    static constexpr std::size_t clients_max = 16;
    static constexpr std::size_t request_bytes_max = 4096;

    struct Config {
        std::string path = control_socket_default;
        std::chrono::milliseconds request_deadline{5000};  // from connect to the whole request line
        std::chrono::milliseconds answer_deadline{60000};  // from the request to the last byte of the answer
    };
    struct Pending {
        std::uint64_t client = 0;
        ControlRequest request = ControlRequest::status;
        std::string line{};  // the whole request, which is a JSON object
    };

    // Makes the socket (mode 0660, group egresswatch where there is one). A socket that another process
    // listens on is refused; one left behind is replaced.
    [[nodiscard]] static std::expected<std::unique_ptr<ControlServer>, capture::OsError> open(Config config);
    void start();  // the thread; after the capabilities are dropped, so that it has none
    ~ControlServer();
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

    [[nodiscard]] std::vector<Pending> take_requests();
    // A client that has gone meanwhile is no error.
    void answer(std::uint64_t client, std::string line);
    [[nodiscard]] std::uint64_t clients_refused() const noexcept { return refused_; }

private:
    struct Client {
        UniqueFd fd;
        std::string in;
        std::string out;
        std::chrono::steady_clock::time_point deadline;
        bool asked = false;
    };

    ControlServer(Config config, UniqueFd listener, UniqueFd wake);
    void run(const std::stop_token& stop);
    void accept_clients();
    bool serve(std::uint64_t id, Client& client, short events);
    bool read_request(std::uint64_t id, Client& client);
    static bool write_answer(Client& client);
    void move_answers();
    void wake() noexcept;

    Config config_;
    UniqueFd listener_;
    UniqueFd wake_;
    std::map<std::uint64_t, Client> clients_;  // control thread only
    std::uint64_t next_client_ = 1;
    std::atomic<std::uint64_t> refused_{0};
    std::mutex mutex_;  // guards the two below
    std::vector<Pending> requests_;
    std::vector<std::pair<std::uint64_t, std::string>> answers_;
    std::jthread thread_;
};

}  // namespace egresswatch::daemon
