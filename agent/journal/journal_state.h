// agent/journal/journal_state.h - the inside of the journal, shared by journal.cpp (writing) and recovery.cpp
// (opening). SPDX-License-Identifier: Apache-2.0
//
// Threads: everything below `mutex` is guarded by it. fdatasync runs without the mutex, so that append()
// never waits
//          for the disk's cache; `commit_mutex` keeps commits one after the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/journal/hash_file.h"
#include "agent/journal/journal.h"
#include "agent/journal/sector_file.h"
#include "agent/journal/segment.h"
#include "agent/journal/tail.h"
#include "agent/unique_fd.h"

namespace egresswatch::journal {

struct ClosedSegment {
    SegmentFile file;
    std::uint64_t last_seq = 0;
    std::uint64_t bytes = 0;
    Timestamp last_written{};
    std::shared_ptr<HashWriter> hashes = {};  // while not all of them are on the disk
    int kept_above = -1;                      // records of this importance and below were skipped
};

struct OpenSegment {
    std::shared_ptr<UniqueFd> fd;  // shared with a commit that runs
    SegmentFile file;
    std::uint64_t bytes = 0;
    Timestamp last_written{};
    std::shared_ptr<HashWriter> hashes = {};
    std::uint64_t last_seq = 0;
};

// Appends that were refused and that no gap record tells of yet. Kept in `sequence`, which needs no free
// block: a daemon that is killed while the disk is full leaves the account to the next one.
struct Refused {
    std::uint64_t records = 0;
    Timestamp from{};
    Timestamp to{};
    int error = 0;  // errno of the last one
};

struct Journal::State {
    Config config;
    std::shared_ptr<Tail> tail = std::make_shared<Tail>();
    UniqueFd lock;
    UniqueFd directory;  // to fsync names

    std::mutex commit_mutex;
    mutable std::mutex mutex;
    std::condition_variable wake;
    std::thread committer;
    bool stopping = false;
    bool closed = false;

    SectorFile sequence;
    std::uint64_t next_seq = 1;
    std::uint64_t reserved_seq = 0;  // numbers up to here may be given out: the disk knows
    std::optional<OpenSegment> segment;
    std::vector<ClosedSegment> closed_segments;       // oldest first
    std::vector<std::shared_ptr<UniqueFd>> unsynced;  // closed since the last commit
    HashHeader tree;                                  // origin and frontier, over everything written
    std::vector<std::uint8_t> nonces;                 // random bytes not used yet
    // Records that nothing may be written in front of, while the disk is full: how a log begins, what a start
    // has found, gaps of erased segments.
    std::deque<Json> owed;
    std::uint64_t hashes_trimmed_at = 0;
    bool directory_unsynced = false;
    bool write_failing = false;
    std::deque<std::uint64_t> immediate;  // written, wanted durable before they are read
    Refused refused;
    std::optional<records::Gap> doubtful;  // records behind a failed fdatasync, not told of yet
    Status status;

    // recovery.cpp
    std::expected<void, JournalError> open();
    std::expected<void, JournalError> recover(const std::vector<SegmentFile>& files, bool same_boot);
    std::expected<SegmentScan, JournalError> adopt_last(const SegmentFile& last, records::Recovery& recovery);
    std::expected<std::optional<NewLog>, JournalError> adopt_tree(std::uint64_t last_seq);
    std::expected<RecoveredTree, JournalError> recover_tree();

    // journal.cpp; all with the mutex held
    std::expected<std::uint64_t, JournalError> append_locked(const Json& record, Urgency urgency);
    std::expected<std::uint64_t, JournalError> write_record(const Json& record, Urgency urgency);
    std::expected<void, JournalError> ensure_segment(Timestamp now, std::size_t line_bytes);
    std::expected<void, JournalError> write_line(const std::string& text);
    void close_segment();
    [[nodiscard]] std::string next_nonce();
    [[nodiscard]] int store_sequence(bool clean);
    void restore_refused();
    void reserve(std::uint64_t up_to);
    void publish();
    std::expected<void, JournalError> tell_first();
    void fail(const JournalError& error);

    // Without the mutex.
    std::expected<void, JournalError> commit();
    void commit_failed(const JournalError& error, std::uint64_t from, std::uint64_t to);
    void flush_hashes();
    void run();

    // retention.cpp; without the mutex, one at a time.
    void apply_retention();
    void erase_segment(ClosedSegment old);
    [[nodiscard]] bool thin_one();
    void trim_hashes();
};

[[nodiscard]] JournalError os_error(std::string operation, const std::filesystem::path& path, int error,
                                    std::string hint = {});

}  // namespace egresswatch::journal
