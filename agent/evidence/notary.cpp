// agent/evidence/notary.cpp - signing: checkpoints, the next key, the thread. Opening is in notary_open.cpp.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/notary.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace egresswatch::evidence {
namespace {

using Clock = std::chrono::steady_clock;

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

}  // namespace

Notary::~Notary() {
    stop();
}

bool Notary::fail(const std::string& error) {
    const std::lock_guard guard(mutex_);
    ++status_.failures;
    status_.state = "failing";
    status_.last_error = records::format_time(wall_clock()) + " " + error;
    return false;
}

void Notary::report(std::string rule, std::string title, std::string message, records::Json details) {
    const std::lock_guard guard(mutex_);
    events_.push_back({std::move(rule), std::move(title), std::move(message), std::move(details)});
}

std::vector<EvidenceEvent> Notary::take_events() {
    const std::lock_guard guard(mutex_);
    return std::exchange(events_, {});
}

NotaryStatus Notary::status() const {
    const std::lock_guard guard(mutex_);
    return status_;
}

// Records below the size are durable; then the fact that they are signed is; only then there is a signature.
std::optional<Note> Notary::sign_head(const journal::TreeHead& head, std::vector<std::string> extensions) {
    if (const auto committed = journal_->commit(); !committed) {
        fail(committed.error().to_string());
        return std::nullopt;
    }
    int error = signed_.write({{"origin", head.origin},
                               {"size", std::to_string(head.size)},
                               {"root", to_hex(head.root)},
                               {"generation", std::to_string(generation_)}});
    if (error == 0) error = signed_.sync();
    if (error != 0) {
        fail("write " + file("signed").string() + ": " + std::strerror(error));
        return std::nullopt;
    }
    const Checkpoint checkpoint{head.origin, head.size, head.root, std::move(extensions)};
    auto note = sign_note(checkpoint.text(), origin_, *key_);
    if (!note) fail("Ed25519: the signature failed");
    return note;
}

std::optional<StoredKey> Notary::make_next_key() {
    auto key = SigningKey::generate();
    if (!key) {
        fail("no random numbers for the next key");
        return std::nullopt;
    }
    StoredKey next{std::move(*key), generation_ + 1, wall_clock()};
    if (const int error = write_key(file("key.next"), next); error != 0) {
        fail("write " + file("key.next").string() + ": " + std::strerror(error));
        (void)destroy_file(file("key.next"));
        return std::nullopt;
    }
    return next;
}

// From the moment the link is in the chain the old key must not sign any more; it is destroyed at once.
bool Notary::take_over(StoredKey next, const Note& note) {
    auto link = parse_link(note.to_string());
    const auto stored =
        link ? store_link(*link) : std::expected<void, std::string>(std::unexpected(link.error()));
    if (!stored) {
        (void)destroy_file(file("key.next"));
        return fail(stored.error());
    }
    key_ = std::move(next.key);
    generation_ = next.generation;
    int error = destroy_file(file("key"));
    if (error == 0 && ::rename(file("key.next").c_str(), file("key").c_str()) != 0) error = errno;
    if (error == 0) error = sync_directory(config_.directory);
    const std::lock_guard guard(mutex_);
    key_since_ = Clock::now();
    status_.generation = generation_;
    status_.key_since = records::format_time(next.made);
    if (error == 0) return true;
    // The chain knows the next key already; the next start destroys the old file.
    status_.last_error =
        records::format_time(wall_clock()) + " destroy " + file("key").string() + ": " + std::strerror(error);
    ++status_.failures;
    return true;
}

bool Notary::sign_and_record(bool with_next_key) {
    const std::lock_guard one_at_a_time(sign_mutex_);
    if (unstored_) {
        if (const auto stored = store_link(*unstored_); !stored) return fail(stored.error());
        unstored_.reset();
    }
    const journal::TreeHead head = journal_->tree_head();
    if (!with_next_key && head.last_seq == checkpoint_seq_)
        return false;  // nothing but our own record is new
    std::vector<std::string> extensions;
    std::optional<StoredKey> next;
    const std::uint64_t signing_generation = generation_;
    if (with_next_key) {
        next = make_next_key();
        if (!next) return false;
        extensions = link_extensions(next->generation, next->key.public_bytes(), std::nullopt);
    }
    const auto note = sign_head(head, std::move(extensions));
    if (!note) {
        if (with_next_key) (void)destroy_file(file("key.next"));
        return false;
    }
    records::SignedHead signed_head{head.origin,        head.size,         to_base64(head.root),
                                    signing_generation, note->to_string(), {}};
    if (with_next_key) {
        if (!take_over(std::move(*next), *note)) return false;
        signed_head.verifier_key = public_key().vkey();
    }
    const auto record = with_next_key ? records::key_record(config_.origin, signed_head)
                                      : records::checkpoint_record(config_.origin, signed_head);
    const auto seq = journal_->append(record);
    {
        const std::lock_guard guard(mutex_);
        status_.size = head.size;
        status_.root = signed_head.root;
        status_.signed_at = records::format_time(wall_clock());
        ++status_.checkpoints;
    }
    if (!seq) return fail("record the checkpoint: " + seq.error().to_string());
    checkpoint_seq_ = *seq;
    const std::lock_guard guard(mutex_);
    status_.state = "ok";
    return true;
}

bool Notary::checkpoint() {
    return journal_ != nullptr && sign_and_record(false);
}

bool Notary::evolve() {
    return journal_ != nullptr && sign_and_record(true);
}

void Notary::request() {
    {
        const std::lock_guard guard(mutex_);
        requested_ = true;
    }
    wake_.notify_one();
}

void Notary::run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the daemon's own affair
    auto last = Clock::now() - config_.request_interval;
    std::unique_lock guard(mutex_);
    while (!stopping_) {
        const auto key_due = key_since_ + config_.key_interval;
        const auto wake_at = std::min(
            requested_ ? last + config_.request_interval : last + config_.checkpoint_interval, key_due);
        if (Clock::now() < wake_at) {
            // Awake earlier when asked, and for the stop.
            const bool was_requested = requested_;
            wake_.wait_until(guard, wake_at, [&] { return stopping_ || (requested_ && !was_requested); });
            continue;
        }
        requested_ = false;
        const bool key = Clock::now() >= key_due;
        guard.unlock();
        last = Clock::now();
        const bool changed = key && evolve();
        if (!key) checkpoint();
        guard.lock();
        // A change that failed is tried again at the pace of the checkpoints; those go on meanwhile.
        if (key && !changed) key_since_ = last + config_.checkpoint_interval - config_.key_interval;
    }
}

void Notary::start(journal::Journal& journal) {
    journal_ = &journal;
    thread_ = std::thread([this] { run(); });
}

void Notary::stop() noexcept {
    {
        const std::lock_guard guard(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    if (!thread_.joinable()) return;
    thread_.join();
    checkpoint();
    journal_ = nullptr;
}

}  // namespace egresswatch::evidence
