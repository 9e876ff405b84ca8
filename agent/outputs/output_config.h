// agent/outputs/output_config.h - what a destination may be told.
// SPDX-License-Identifier: Apache-2.0
//
// Limits: below, each with the reason. check() tells everything that is wrong with a configuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/records/level.h"

namespace egresswatch::outputs {

using records::Level;

enum class TransportKind : std::uint8_t {
    unix_datagram,
    udp,
    tcp,
    tls,
    relp,
    file,
    standard_output,
    http,
    journald
};
// The others carry bare bodies, journald in fields of its own.
[[nodiscard]] constexpr bool is_syslog(TransportKind kind) noexcept {
    return kind <= TransportKind::relp;
}
[[nodiscard]] constexpr bool is_local_socket(TransportKind kind) noexcept {
    return kind == TransportKind::unix_datagram || kind == TransportKind::journald;
}
enum class Framing : std::uint8_t { octet_counting, lf };
enum class Bulk : std::uint8_t { lines, array };  // NDJSON, or one JSON array a request

inline constexpr std::size_t message_bytes_limit =
    8'000;                                             // rsyslog splits longer TCP messages into bogus events
inline constexpr std::size_t message_bytes_min = 480;  // RFC 5424 section 6.1: every receiver takes this
inline constexpr std::size_t message_bytes_udp = 1'024;
inline constexpr std::size_t message_bytes_stream = 4'000;

// Who the receiver must be, and who we are. Read at every connection attempt: a renewed file needs no
// restart.
struct TlsConfig {
    std::string ca_file;      // PEM; empty: the system's
    std::string server_name;  // in the certificate's subjectAltName; empty: the address
    // RFC 5425 section 4.2.2: "sha-256:AB:CD:..."; one that matches replaces chain and name.
    std::vector<std::string> fingerprints;
    std::string certificate_file;  // ours, PEM with its chain; empty: none is shown
    std::string key_file;
};

struct RateLimitConfig {
    std::uint32_t per_second = 0;  // 0: no limit
    std::uint32_t burst = 0;       // 0: 10 seconds' worth
};

inline constexpr std::size_t batch_records_default = 100;
inline constexpr std::size_t batch_records_limit = 10'000;

struct OutputConfig {
    std::string name;  // unique; [A-Za-z0-9._-]+; names the cursor file
    TransportKind transport = TransportKind::unix_datagram;
    // A path (unix socket, file), an IP address or host name (resolved at each connection attempt), a URL.
    std::string address = "/dev/log";
    std::uint16_t port = 514;
    Framing framing = Framing::octet_counting;          // TCP only; TLS counts always (RFC 5425 section 4.3)
    std::optional<TlsConfig> tls;                       // RELP with it is RELP over TLS
    std::string header_file;                            // HTTP: header lines to send, such as Authorization
    std::size_t batch_records = batch_records_default;  // HTTP
    Bulk bulk = Bulk::lines;                            // HTTP
    records::BodyKind body = records::BodyKind::ecs;
    std::size_t max_bytes = 0;   // of one message without framing; 0: 1,024 for UDP, 4,000 otherwise
    unsigned time_digits = 9;    // of a second; a syslog header has six at most
    std::uint8_t facility = 20;  // local4
    RateLimitConfig rate_limit;
    Level level_min = Level::low;  // of findings; other kinds are chosen by `kinds` alone
    bool test_findings = false;    // also those of rules with `status: test`
    std::set<std::string> kinds = {"genesis", "finding",  "policy", "gap",      "checkpoint",
                                   "key",     "recovery", "stop",   "heartbeat"};
    std::chrono::milliseconds backoff_min{500};
    std::chrono::milliseconds backoff_max{60'000};
    // What was handed over less than this long before a connection broke is sent again, where the transport
    // has no acknowledgement of the receiver's own.
    std::chrono::milliseconds resend_window{2'000};
    std::chrono::milliseconds cursor_interval{1'000};  // how often the cursor is made durable
    std::chrono::milliseconds stop_timeout{2'000};     // how long stop() waits for what is still queued
};
// "max_bytes: 9000 is above 8000 ...": everything that is wrong; empty: nothing.
[[nodiscard]] std::vector<std::string> check(const OutputConfig& config);

[[nodiscard]] std::optional<std::uint8_t> parse_facility(std::string_view name) noexcept;  // "local4" -> 20
[[nodiscard]] std::string_view transport_name(TransportKind kind) noexcept;  // "unix", "udp", ...
[[nodiscard]] std::string destination_text(const OutputConfig& config);      // "192.0.2.7:514", "/dev/log"

}  // namespace egresswatch::outputs
