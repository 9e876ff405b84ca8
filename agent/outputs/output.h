// agent/outputs/output.h - sends journal records to one destination; one thread and one cursor each.
// SPDX-License-Identifier: Apache-2.0
//
// In:      the journal, from a durable cursor (<cursor_dir>/<name>); findings that could not be journaled,
//          directly.
// Out:     messages over a Transport (transport.h).
// Threads: one per output, made by start(); deliver_unjournaled(), reopen() and status() from any thread,
// never blocking on
//          the network. A dead receiver costs its own thread only.
// Delivery: at least once as far as the transport's nature allows (README.md), UDP is what it is.
// Limits:  unjournaled_max findings wait in memory while the receiver is away; the oldest goes, counted.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <string>

#include "agent/journal/journal.h"
#include "agent/outputs/output_config.h"

namespace egresswatch::outputs {

using records::Json;

inline constexpr std::size_t unjournaled_max = 1'024;

struct OutputStatus {
    std::string name;
    std::string type;         // "syslog", "file", "stdout", "http"
    std::string transport;    // "unix", "udp", "tcp", "tls", "relp"; the type again where there is no syslog
    std::string destination;  // "192.0.2.7:514", "/dev/log"
    std::string state;        // "starting", "connecting", "up", "backoff", "stopped"
    std::string last_error;   // with time; empty: none
    std::uint64_t sent = 0;   // messages handed to the transport, resent ones included
    std::uint64_t bytes = 0;
    std::uint64_t resent = 0;
    std::uint64_t filtered = 0;      // records that level or kind keep from this destination
    std::uint64_t shortened = 0;     // messages that lost optional fields to max_bytes
    std::uint64_t errors = 0;        // failed sends and connection attempts
    std::uint64_t retries = 0;       // connection attempts after the first
    std::uint64_t rate_limited = 0;  // records that the rate limit kept back; summaries name them
    std::uint64_t undeliverable =
        0;                      // records given up: too large for the transport, unreadable, refused alone
    std::uint64_t missing = 0;  // records that retention deleted before they were delivered
    std::uint64_t unjournaled_sent = 0;
    std::uint64_t unjournaled_lost = 0;
    std::uint64_t cursor_seq = 0;   // delivered up to here
    std::uint64_t lag_records = 0;  // journal records not yet delivered
    double lag_seconds = 0;         // age of the oldest of them
};
[[nodiscard]] Json to_json(const OutputStatus& status);

class Output {
public:
    // The journal must outlive the output.
    Output(OutputConfig config, journal::Journal& journal, std::filesystem::path cursor_dir,
           records::Origin origin);
    ~Output();  // stop()
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    [[nodiscard]] std::expected<void, journal::JournalError> start();
    void stop() noexcept;  // tries for stop_timeout to deliver what is there, makes the cursor durable

    // A finding that append() refused. Goes out ahead of the journal's records, marked unjournaled.
    void deliver_unjournaled(const Json& record);

    // Opens the receiver anew where that means something: a file that was rotated. Any thread; returns at
    // once.
    void reopen();

    [[nodiscard]] OutputStatus status() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::outputs
