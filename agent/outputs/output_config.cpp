// agent/outputs/output_config.cpp - what a destination may be told, and its status as JSON.
// SPDX-License-Identifier: Apache-2.0
#include <sys/un.h>

#include <algorithm>
#include <array>

#include "agent/outputs/output.h"
#include "agent/outputs/tls.h"

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

std::string_view transport_name(TransportKind kind) noexcept {
    static constexpr std::array<std::string_view, 9> names{"unix", "udp",    "tcp",  "tls",     "relp",
                                                           "file", "stdout", "http", "journald"};
    return names[static_cast<std::size_t>(kind)];
}

std::string destination_text(const OutputConfig& config) {
    if (config.transport == TransportKind::standard_output) return "standard output";
    if (is_local_socket(config.transport) || !is_syslog(config.transport)) return config.address;
    const bool bracket = config.address.find(':') != std::string::npos;
    return (bracket ? "[" + config.address + "]" : config.address) + ":" + std::to_string(config.port);
}

namespace {

void check_tls(const OutputConfig& config, std::vector<std::string>& problems) {
    const TlsConfig& tls = *config.tls;
    if (config.transport != TransportKind::tls && config.transport != TransportKind::relp &&
        config.transport != TransportKind::http)
        problems.push_back("tls: only the transports tls and relp and the type http have it");
    if (config.transport == TransportKind::http && !tls.server_name.empty())
        problems.push_back("tls.server_name: it is the one in the URL");
    for (const auto& text : tls.fingerprints)
        if (const auto pin = parse_fingerprint(text); !pin)
            problems.push_back("tls.fingerprints: \"" + text + "\" " + pin.error());
    if (!tls.fingerprints.empty() && (!tls.ca_file.empty() || !tls.server_name.empty()))
        problems.push_back(
            "tls.fingerprints: a pinned certificate is not checked against ca_file and server_name");
    if (tls.certificate_file.empty() != tls.key_file.empty())
        problems.push_back("tls: certificate_file and key_file go together");
}

}  // namespace

std::vector<std::string> check(const OutputConfig& config) {
    std::vector<std::string> problems;
    if (config.tls)
        check_tls(config, problems);
    else if (config.transport == TransportKind::tls)
        problems.push_back("tls: missing; `tls: {}` trusts the certificates of the system");
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
    if (is_local_socket(config.transport) && config.address.size() >= sizeof(sockaddr_un{}.sun_path))
        problems.push_back("address: a socket path is at most 107 bytes long");
    if (config.transport == TransportKind::http && !config.address.starts_with("https://") &&
        !config.address.starts_with("http://"))
        problems.push_back("url: must begin with https:// or http://");
    if (config.transport == TransportKind::http && !records::is_json(config.body))
        problems.push_back("body: http carries JSON, write ecs or ocsf");
    if (config.transport != TransportKind::unix_datagram && is_syslog(config.transport) && config.port == 0)
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

Json to_json(const OutputStatus& status) {
    Json out;
    out["name"] = status.name;
    out["type"] = status.type;
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
    out["rate_limited"] = status.rate_limited;
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
