// agent/evidence/notary.h - signs the journal's tree: checkpoints, keys that evolve, and the refusal to sign
// over what was lost. SPDX-License-Identifier: Apache-2.0
//
// Files:   <directory>/key     the private key in force; overwritten, synced and unlinked when the next takes
//                              over; `key.next` while that happens
//          <directory>/keys    the chain of public keys (key_chain.h), copied to <journal>/keys for auditors
//          <directory>/signed  the size and root that were signed last, durable before the signature leaves
// Threads: open(), judge(), start(), stop() from one thread; request(), status() from any, never waiting.
//          Signing runs in a thread of its own: it waits for the disk.
// Order:   records durable -> `signed` durable -> signature -> record. A crash between any two of them leaves
// a
//          state from which nothing is ever signed twice.
// Fails:   what cannot be signed is tried again at the next interval; status says so.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/evidence/key_chain.h"
#include "agent/evidence/key_file.h"
#include "agent/journal/journal.h"
#include "agent/journal/sector_file.h"

namespace egresswatch::evidence {

struct NotaryConfig {
    std::filesystem::path directory;  // of the private key, mode 0700
    std::filesystem::path journal;    // where auditors look
    records::Origin origin;
    std::chrono::milliseconds checkpoint_interval{60'000};
    std::chrono::milliseconds key_interval{3'600'000};
    // High findings that follow each other faster share a checkpoint.
    std::chrono::milliseconds request_interval{1'000};
};

struct NotaryStatus {
    std::string origin;
    std::uint64_t size = 0;  // of the tree signed last
    std::string root;        // base64
    std::string signed_at;   // empty: nothing signed yet
    std::uint64_t generation = 0;
    std::string key_since;
    std::uint64_t checkpoints = 0;  // since start
    std::uint64_t failures = 0;
    std::string state;  // "ok", "failing"
    std::string last_error;
    std::string genesis_key;  // what `egresswatch verify --key` takes
};

// Something that the daemon reports as a finding of its own.
struct EvidenceEvent {
    std::string rule;  // "egresswatch/evidence-..."
    std::string title;
    std::string message;
    records::Json details = records::Json::object();
};

class Notary {
public:
    // Loads the keys, or makes the genesis key; finishes a change of keys that a crash interrupted.
    [[nodiscard]] static std::expected<std::unique_ptr<Notary>, std::string> open(NotaryConfig config);
    ~Notary();  // stop()
    Notary(const Notary&) = delete;
    Notary& operator=(const Notary&) = delete;

    // journal::Config::judge: goes on with the tree, or begins a new log that points at the lost one.
    [[nodiscard]] std::optional<journal::NewLog> judge(const journal::RecoveredTree& tree);

    void start(journal::Journal& journal);
    void request();        // soon: a high finding was written
    void stop() noexcept;  // a last checkpoint, then the end
    bool checkpoint();     // now, in the calling thread; false: nothing new, or it failed
    bool evolve();         // changes the key now; false: it failed, the old one stays

    [[nodiscard]] NotaryStatus status() const;
    [[nodiscard]] std::vector<EvidenceEvent> take_events();
    [[nodiscard]] bool made_genesis() const noexcept { return made_genesis_; }

private:
    explicit Notary(NotaryConfig config) : config_(std::move(config)) {}
    std::expected<void, std::string> load();
    std::expected<void, std::string> make_genesis_key();
    std::expected<void, std::string> load_key(const KeyLink& last);
    std::expected<void, std::string> copy_keys();
    std::expected<void, std::string> store_link(const KeyLink& link);
    journal::NewLog begin_log(const std::optional<PreviousLog>& previous);
    [[nodiscard]] std::optional<PreviousLog> signed_last() const;
    std::optional<Note> sign_head(const journal::TreeHead& head, std::vector<std::string> extensions);
    std::optional<StoredKey> make_next_key();
    bool take_over(StoredKey next, const Note& note);
    bool sign_and_record(bool with_next_key);
    bool fail(const std::string& error);  // false, always
    [[nodiscard]] std::filesystem::path file(std::string_view name) const { return config_.directory / name; }
    void report(std::string rule, std::string title, std::string message, records::Json details);
    void run();
    [[nodiscard]] PublicKey public_key() const { return {origin_, key_->public_bytes()}; }

    NotaryConfig config_;
    journal::Journal* journal_ = nullptr;
    std::string origin_;
    std::optional<SigningKey> key_;
    std::uint64_t generation_ = 0;
    std::string genesis_key_;
    bool made_genesis_ = false;
    std::optional<KeyLink> unstored_;  // a log's begin that the disk had no room for
    journal::SectorFile signed_;
    std::uint64_t checkpoint_seq_ = 0;  // of the last checkpoint record
    std::mutex sign_mutex_;             // one signature at a time

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    bool stopping_ = false;
    bool requested_ = false;
    NotaryStatus status_;
    std::vector<EvidenceEvent> events_;
    std::chrono::steady_clock::time_point key_since_{};
    std::thread thread_;
};

}  // namespace egresswatch::evidence
