// agent/journal/journal.h - the append-only record of everything: memory, spool of every output, later the
// proof. SPDX-License-Identifier: Apache-2.0
//
// Files:   <directory>/seg-<first seq, 20 digits>.jsonl  one JSON object a line; seg-....hashes  the leaf
// hashes of its
//          lines (hash_file.h); `sequence`  which numbers are taken; `lock`  flock: two daemons never write
//          one journal.
// Threads: append(), commit(), status() from any thread; open, start, stop from one. Readers: one thread
// each. Clock:   Config::clock stamps `written`; packet time stands in `time`, put there by whoever made the
// record. Durable: write(2) before append() returns (survives kill -9); fdatasync within commit_interval, at
// once for
//          Urgency::immediate. A reader sees an immediate record only when it is durable, all others when
//          written.
// Fails:   an append that cannot be written returns JournalError; the caller gives findings to the outputs
// directly
//          (Output::deliver_unjournaled). A gap record follows when writing works again.
// Privileges: start() makes a thread; threads made before capabilities are dropped keep theirs, so start()
// after.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/evidence/merkle.h"
#include "agent/records/record.h"
#include "classifier/flow_update.h"

namespace egresswatch::journal {

using records::Json;

inline constexpr std::size_t line_bytes_max =
    65'535;  // without the line feed; longer records lose fields, marked `cut`
inline constexpr std::uint64_t segment_bytes_default = 64ULL << 20;
inline constexpr std::uint64_t reserve_records = 65'536;  // sequence numbers reserved on disk at a time

struct JournalError {
    std::string operation;  // "write", "open segment", "lock"
    std::string path;
    int error = 0;  // errno
    std::string hint;
    [[nodiscard]] std::string to_string() const;
};

enum class Urgency : std::uint8_t { normal, immediate };
// immediate for high and critical findings.
[[nodiscard]] Urgency urgency_of(const Json& record);

// What was found on disk, before anything is written: for whoever knows what had been signed.
struct RecoveredTree {
    std::string origin;  // of the log that the newest records belong to; empty: none that can be gone on with
    std::uint64_t size = 0;
    std::uint64_t last_seq = 0;
    // Root of the tree over the first `size` records of that log; nothing where it cannot be told.
    std::function<std::optional<evidence::Hash>(std::uint64_t size)> root_at;
};

struct NewLog {
    std::string origin;
    Json genesis;  // its first record
};

struct TreeHead {
    std::string origin;
    std::uint64_t size = 0;
    evidence::Hash root{};
    std::uint64_t last_seq = 0;
};

struct Config {
    std::filesystem::path directory;  // made if missing, mode 0750
    records::Origin origin;
    std::uint64_t segment_bytes_max = segment_bytes_default;
    bool rotate_daily = true;  // at the first record written on a new UTC day
    std::chrono::milliseconds commit_interval{1000};
    std::chrono::hours retention_age{24 * 90};  // 0: no limit
    std::uint64_t retention_bytes_max = 8ULL
                                        << 30;  // 0: no limit. Whole segments, never the one being written.
    std::uint64_t hash_bytes_max = 1ULL << 30;  // of erased segments' leaf hashes; the oldest files go
    std::function<Timestamp()> clock;           // default: the system's real-time clock
    std::string boot_id;                        // default: /proc/sys/kernel/random/boot_id
    // Whether to go on with the tree that was found (nothing) or to begin a log. Default: begins one, named
    // at random, where there is none.
    std::function<std::optional<NewLog>(const RecoveredTree&)> judge;
};

struct Status {
    std::uint64_t first_seq = 0;  // oldest kept
    std::uint64_t last_seq = 0;   // newest written; 0: none
    std::uint64_t durable_seq = 0;
    std::uint64_t segments = 0;
    std::uint64_t bytes = 0;     // of all segments
    std::uint64_t appended = 0;  // since open
    std::uint64_t commits = 0;
    std::uint64_t commit_failures = 0;
    std::uint64_t unjournaled = 0;  // appends refused since open
    std::uint64_t lines_cut = 0;    // records that lost fields to line_bytes_max
    std::uint64_t segments_deleted = 0;
    std::uint64_t records_thinned = 0;  // skipped by level to stay below the limit, see retention.cpp
    std::uint64_t hash_failures = 0;    // writes of leaf hashes that failed; they are tried again
    std::string state;                  // "ok" or "failing"
    std::string last_error;             // with time; empty: none since open
};

class Reader;

class Journal {
public:
    // Takes the lock, recovers from a crash (cuts a torn tail, writes the `recovery` record), writes
    // `genesis` into an empty journal. An error is final: the daemon cannot start without a journal unless
    // configured so.
    [[nodiscard]] static std::expected<std::unique_ptr<Journal>, JournalError> open(Config config);
    ~Journal();  // stop()
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    void start();          // the committing thread
    void stop() noexcept;  // commits, marks the end as clean, joins, releases the lock. Append `stop` before.

    // Adds `seq` and `written` in front (and `time` = written where missing), writes the line, returns its
    // number.
    std::expected<std::uint64_t, JournalError> append(const Json& record, Urgency urgency);
    std::expected<std::uint64_t, JournalError> append(const Json& record);  // urgency_of(record)

    std::expected<void, JournalError> commit();  // fdatasync now

    // Records with seq > `after`; follows the tail. `name` joins the retention's account of who has delivered
    // what: see Reader::delivered().
    [[nodiscard]] std::unique_ptr<Reader> reader(std::string name, std::uint64_t after);

    [[nodiscard]] Status status() const;
    [[nodiscard]] std::uint64_t last_seq() const noexcept;
    [[nodiscard]] TreeHead tree_head() const;  // of everything written

private:
    struct State;
    explicit Journal(std::unique_ptr<State> state) noexcept;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::journal
