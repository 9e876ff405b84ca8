// agent/metrics/endpoint.h - GET /metrics for Prometheus, by prometheus-cpp's exposer.
// SPDX-License-Identifier: Apache-2.0
//
// Threads: the exposer's two. Each scrape asks the daemon over its control socket, as `egresswatch status`
//          does: no state is shared with the loop, and a loop that hangs shows as egresswatch_answers 0.
// Limits:  answer_timeout; the control socket's own (ControlServer::clients_max).
// Fails:   the address cannot be listened on: the daemon does not start, as with every other mistake in its
//          configuration.
#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <string>

namespace egresswatch::metrics {

inline constexpr std::chrono::seconds answer_timeout{5};  // half of Prometheus' default for a scrape

class Endpoint {
public:
    // `listen`: "127.0.0.1:9847", "[::1]:9847".
    [[nodiscard]] static std::expected<std::unique_ptr<Endpoint>, std::string> open(
        const std::string& listen, std::string control_socket);
    ~Endpoint();
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

private:
    struct State;
    explicit Endpoint(std::unique_ptr<State> state) noexcept;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::metrics
