// agent/outputs/syslog_config.cpp - what a destination may be told, and its status as JSON.
// SPDX-License-Identifier: Apache-2.0
#include <sys/un.h>

#include <algorithm>
#include <array>

#include "agent/outputs/syslog_output.h"

namespace egresswatch::outputs {

std::optional<std::uint8_t> parse_facility(std::string_view name) noexcept {
    static constexpr std::array<std::string_view, 24> names{
        // RFC 5424 table 1, by the names of syslog.conf
        "kern",   "user",   "mail",     "daemon", "auth",   "syslog", "lpr",    "news",
        "uucp",   "cron",   "authpriv", "ftp",    "ntp",    "audit",  "alert",  "clock",
        "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7"};
    const auto* found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) return std::nullopt;
    return static_cast<std::uint8_t>(found - names.begin());
}

std::vector<std::string> check(const SyslogConfig& config) {
    std::vector<std::string> problems;
    const auto name_char = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
               c == '_' || c == '-';
    };
    if (config.name.empty() || config.name.size() > 64 || config.name.front() == '.' ||
        !std::all_of(config.name.begin(), config.name.end(), name_char))
        problems.push_back(
            "name: \"" + config.name +
            "\" must be 1 to 64 of A-Z a-z 0-9 . _ - and not begin with a dot: it names the cursor file");
    if (config.address.empty()) problems.push_back("address: missing");
    if (config.transport == Transport::unix_datagram &&
        config.address.size() >= sizeof(sockaddr_un{}.sun_path))
        problems.push_back("address: a socket path is at most 107 bytes long");
    if (config.transport != Transport::unix_datagram && config.port == 0)
        problems.push_back("port: 0 cannot be sent to");
    if (config.max_bytes != 0 &&
        (config.max_bytes < message_bytes_min || config.max_bytes > message_bytes_limit))
        problems.push_back("max_bytes: " + std::to_string(config.max_bytes) + " is not between " +
                           std::to_string(message_bytes_min) +
                           " (what RFC 5424 makes every receiver take) and " +
                           std::to_string(message_bytes_limit) + " (longer ones are split by receivers)");
    if (config.facility > 23)
        problems.push_back("facility: " + std::to_string(config.facility) + " is above 23");
    for (const auto& kind : config.kinds)
        if (!records::is_kind(kind)) problems.push_back("kinds: there is no kind \"" + kind + "\"");
    if (config.backoff_min.count() <= 0 || config.backoff_max < config.backoff_min)
        problems.push_back("backoff_min: must be above 0 and not above backoff_max");
    return problems;
}

Json to_json(const SyslogStatus& status) {
    Json out;
    out["name"] = status.name;
    out["type"] = "syslog";
    out["transport"] = status.transport;
    out["destination"] = status.destination;
    out["state"] = status.state;
    out["last_error"] = status.last_error.empty() ? Json(nullptr) : Json(status.last_error);
    out["sent"] = status.sent;
    out["bytes"] = status.bytes;
    out["resent"] = status.resent;
    out["filtered"] = status.filtered;
    out["shortened"] = status.shortened;
    out["errors"] = status.errors;
    out["retries"] = status.retries;
    out["undeliverable"] = status.undeliverable;
    out["missing"] = status.missing;
    out["unjournaled_sent"] = status.unjournaled_sent;
    out["unjournaled_lost"] = status.unjournaled_lost;
    out["cursor_seq"] = status.cursor_seq;
    out["lag_records"] = status.lag_records;
    out["lag_seconds"] = status.lag_seconds;
    return out;
}

}  // namespace egresswatch::outputs
