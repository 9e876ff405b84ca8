// agent/outputs/syslog_output.h - sends journal records to one syslog receiver; one thread and one cursor
// each. SPDX-License-Identifier: Apache-2.0
//
// In:      the journal, from a durable cursor (<cursor_dir>/<name>); findings that could not be journaled,
// directly. Out:     RFC 5424 messages over a unix datagram socket, UDP or TCP (RFC 6587: octet counting or
// LF). Threads: one per output, made by start(); deliver_unjournaled() and status() from any thread, never
// blocking on the
//          network. A dead receiver costs its own thread only.
// Delivery: at least once over TCP and unix sockets as far as their nature allows (README.md), UDP is what it
// is. Limits:  unjournaled_max findings wait in memory while the receiver is away; the oldest goes, counted.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/journal/journal.h"
#include "agent/records/body.h"

namespace egresswatch::outputs {

using records::Json;
using records::Level;

enum class Transport : std::uint8_t { unix_datagram, udp, tcp };
enum class Framing : std::uint8_t { octet_counting, lf };

inline constexpr std::size_t message_bytes_limit =
    8'000;                                             // rsyslog splits longer TCP messages into bogus events
inline constexpr std::size_t message_bytes_min = 480;  // RFC 5424 section 6.1: every receiver takes this
inline constexpr std::size_t message_bytes_udp = 1'024;
inline constexpr std::size_t message_bytes_stream = 4'000;
inline constexpr std::size_t unjournaled_max = 1'024;

struct SyslogConfig {
    std::string name;  // unique; [A-Za-z0-9._-]+; names the cursor file
    Transport transport = Transport::unix_datagram;
    std::string address = "/dev/log";  // path, IP address or host name (resolved at each connection attempt)
    std::uint16_t port = 514;
    Framing framing = Framing::octet_counting;  // TCP only
    records::BodyKind body = records::BodyKind::ecs;
    std::size_t max_bytes = 0;     // of one message without framing; 0: 1,024 for UDP, 4,000 otherwise
    std::uint8_t facility = 20;    // local4
    Level level_min = Level::low;  // of findings; other kinds are chosen by `kinds` alone
    bool test_findings = false;    // also those of rules with `status: test`
    std::set<std::string> kinds = {"genesis",    "finding", "policy",   "gap",
                                   "checkpoint", "key",     "recovery", "stop"};
    std::chrono::milliseconds backoff_min{500};
    std::chrono::milliseconds backoff_max{60'000};
    // What was handed over less than this long before a connection broke is sent again.
    std::chrono::milliseconds resend_window{2'000};
    std::chrono::milliseconds cursor_interval{1'000};  // how often the cursor is made durable
    std::chrono::milliseconds stop_timeout{2'000};     // how long stop() waits for what is still queued
};
// "outputs[2].max_bytes: 9000 is above 8000 ...": everything that is wrong; empty: nothing.
[[nodiscard]] std::vector<std::string> check(const SyslogConfig& config);

[[nodiscard]] std::optional<std::uint8_t> parse_facility(std::string_view name) noexcept;  // "local4" -> 20

struct SyslogStatus {
    std::string name;
    std::string transport;    // "unix", "udp", "tcp"
    std::string destination;  // "192.0.2.7:514", "/dev/log"
    std::string state;        // "starting", "connecting", "up", "backoff", "stopped"
    std::string last_error;   // with time; empty: none
    std::uint64_t sent = 0;   // messages handed to the kernel, resent ones included
    std::uint64_t bytes = 0;
    std::uint64_t resent = 0;
    std::uint64_t filtered = 0;       // records that level or kind keep from this destination
    std::uint64_t shortened = 0;      // messages that lost optional fields to max_bytes
    std::uint64_t errors = 0;         // failed sends and connection attempts
    std::uint64_t retries = 0;        // connection attempts after the first
    std::uint64_t undeliverable = 0;  // records given up: too large for the transport, unreadable
    std::uint64_t missing = 0;        // records that retention deleted before they were delivered
    std::uint64_t unjournaled_sent = 0;
    std::uint64_t unjournaled_lost = 0;
    std::uint64_t cursor_seq = 0;   // delivered up to here
    std::uint64_t lag_records = 0;  // journal records not yet delivered
    double lag_seconds = 0;         // age of the oldest of them
};
[[nodiscard]] Json to_json(const SyslogStatus& status);

class SyslogOutput {
public:
    // The journal must outlive the output.
    SyslogOutput(SyslogConfig config, journal::Journal& journal, std::filesystem::path cursor_dir,
                 records::Origin origin);
    ~SyslogOutput();  // stop()
    SyslogOutput(const SyslogOutput&) = delete;
    SyslogOutput& operator=(const SyslogOutput&) = delete;

    [[nodiscard]] std::expected<void, journal::JournalError> start();
    void stop() noexcept;  // tries for stop_timeout to deliver what is there, makes the cursor durable

    // A finding that append() refused. Goes out ahead of the journal's records, marked unjournaled.
    void deliver_unjournaled(const Json& record);

    [[nodiscard]] SyslogStatus status() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::outputs
