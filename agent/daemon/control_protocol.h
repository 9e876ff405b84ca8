// agent/daemon/control_protocol.h - the control socket's language: one JSON line asks, one JSON line answers.
// SPDX-License-Identifier: Apache-2.0
//
//   {"request":"status"}   {"ok":true,"status":{...}}
//   {"request":"reload"}   {"ok":true,"reload":{...}}
//   {"request":"observe","seconds":600}   {"ok":true}: from now on flows are added up (agent/observation.h)
//   {"request":"observed"}                {"ok":true,"observed":{...}}: and that ends it
//   {"request":"explain","flow":{...}}    {"ok":true,"explanation":{...}} (agent/explain.h)
//   anything else          {"ok":false,"error":"..."}
#pragma once

#include <chrono>
#include <expected>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace egresswatch::daemon {

inline constexpr const char* control_socket_default = "/run/egresswatch/control.sock";

enum class ControlRequest { status, reload, observe, observed, explain };

// The error is a sentence for the client.
[[nodiscard]] std::expected<ControlRequest, std::string> parse_control_request(std::string_view line);
[[nodiscard]] std::string control_error(std::string_view message);  // one line, without its line feed

// The client's side: connects, asks, waits at most `timeout` for the whole answer.
[[nodiscard]] std::expected<nlohmann::json, std::string> ask_daemon(const std::string& socket_path,
                                                                    std::string_view request,
                                                                    std::chrono::milliseconds timeout);
// With further members of the request.
[[nodiscard]] std::expected<nlohmann::json, std::string> ask_daemon(const std::string& socket_path,
                                                                    std::string_view request,
                                                                    std::chrono::milliseconds timeout,
                                                                    const nlohmann::json& members);

}  // namespace egresswatch::daemon
