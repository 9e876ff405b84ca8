// agent/journal/journal.cpp - writing: append, group commit, rotation, retention. See journal.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/journal.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "agent/journal/journal_state.h"
#include "agent/journal/line.h"
#include "agent/journal/reader_state.h"

namespace egresswatch::journal {
namespace {

Timestamp real_time() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

std::string this_boot() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string id;
    std::getline(file, id);
    return id.empty() ? "unknown" : id;
}

}  // namespace

std::string JournalError::to_string() const {
    std::string out = operation + " " + path + ": " + std::strerror(error);
    if (!hint.empty()) out += "; " + hint;
    return out;
}

Urgency urgency_of(const Json& record) {
    return records::level_of(record) >= records::Level::high ? Urgency::immediate : Urgency::normal;
}

Journal::Journal(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

Journal::~Journal() {
    stop();
}

std::expected<std::unique_ptr<Journal>, JournalError> Journal::open(Config config) {
    auto state = std::make_unique<State>();
    if (!config.clock) config.clock = real_time;
    if (config.boot_id.empty()) config.boot_id = this_boot();
    state->config = std::move(config);
    state->status.state = "ok";
    if (auto opened = state->open(); !opened) return std::unexpected(opened.error());
    return std::unique_ptr<Journal>(new Journal(std::move(state)));
}

// ---- append
// -------------------------------------------------------------------------------------------------------

std::expected<std::uint64_t, JournalError> Journal::append(const Json& record) {
    return append(record, urgency_of(record));
}

std::expected<std::uint64_t, JournalError> Journal::append(const Json& record, Urgency urgency) {
    std::expected<std::uint64_t, JournalError> seq;
    {
        const std::lock_guard guard(state_->mutex);
        seq = state_->append_locked(record, urgency);
    }
    if (seq && urgency == Urgency::immediate) state_->wake.notify_one();
    return seq;
}

std::expected<std::uint64_t, JournalError> Journal::State::append_locked(const Json& record,
                                                                         Urgency urgency) {
    if (closed) return std::unexpected(os_error("append to the stopped journal in", config.directory, EBADF));
    std::expected<std::uint64_t, JournalError> seq;
    if (const auto told = tell_first(); told)
        seq = write_record(record, urgency);
    else
        seq = std::unexpected(told.error());
    if (!seq && seq.error().error != EINVAL) {
        const Timestamp now = config.clock();
        if (refused.records++ == 0) refused.from = now;
        refused.to = now;
        refused.error = seq.error().error;
        ++status.unjournaled;
        (void)store_sequence(false);  // may fail as well; then a kill loses the count
        fail(seq.error());
    }
    return seq;
}

std::expected<std::uint64_t, JournalError> Journal::State::write_record(const Json& record, Urgency urgency) {
    const Timestamp now = config.clock();
    const Line line = make_line(record, next_seq, now, next_nonce());
    if (line.text.empty())
        return std::unexpected(os_error("append to", config.directory, EINVAL,
                                        "a record is a JSON object without members seq and written"));
    if (auto ready = ensure_segment(now, line.text.size()); !ready) return std::unexpected(ready.error());
    if (next_seq > reserved_seq)
        reserve(next_seq + reserve_records);  // a burst, faster than the committing thread
    if (auto written = write_line(line.text); !written) return std::unexpected(written.error());
    const std::uint64_t seq = next_seq++;
    const auto leaf = evidence::leaf_hash(std::string_view(line.text).substr(0, line.text.size() - 1));
    tree.frontier.append(leaf);
    segment->hashes->add(leaf);
    segment->last_written = now;
    segment->last_seq = seq;
    ++status.appended;
    if (line.cut) ++status.lines_cut;
    if (urgency == Urgency::immediate) immediate.push_back(seq);
    if (const int error = store_sequence(false); error != 0)
        fail(os_error("write", config.directory / "sequence", error));
    else if (write_failing) {
        write_failing = false;
        status.state = "ok";
    }
    status.last_seq = seq;
    publish();
    return seq;
}

std::expected<void, JournalError> Journal::State::ensure_segment(Timestamp now, std::size_t line_bytes) {
    if (segment && segment->bytes != 0) {
        const bool full = segment->bytes + line_bytes > config.segment_bytes_max;
        const bool other_day =
            config.rotate_daily && std::chrono::floor<std::chrono::days>(now) >
                                       std::chrono::floor<std::chrono::days>(segment->last_written);
        if (full || other_day) close_segment();
    }
    if (segment) return {};
    const auto path = config.directory / segment_name(next_seq);
    auto fd = std::make_shared<UniqueFd>(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
    if (!*fd) return std::unexpected(os_error("make segment", path, errno));
    directory_unsynced = true;
    auto hashes = std::make_shared<HashWriter>(config.directory / hash_file_name(next_seq), tree);
    segment = OpenSegment{std::move(fd), {next_seq, path}, 0, now, std::move(hashes), 0};
    return {};
}

// Unpredictable, so that nobody can find out what an erased record said by trying what it may have said.
std::string Journal::State::next_nonce() {
    static constexpr std::size_t bytes = 16, pool = 4096;
    static constexpr char digits[] = "0123456789abcdef";
    if (nonces.empty()) {
        nonces.resize(pool);
        for (std::size_t at = 0; at < pool;) {
            const auto got = ::getrandom(nonces.data() + at, pool - at, 0);
            if (got > 0) at += static_cast<std::size_t>(got);  // only a signal ends it early
        }
    }
    std::string out;
    for (std::size_t i = 0; i < bytes; i++) {
        out += digits[nonces.back() >> 4];
        out += digits[nonces.back() & 15];
        nonces.pop_back();
    }
    return out;
}

// At the tracked offset, not with O_APPEND: what a failed write left behind is overwritten by the next one.
std::expected<void, JournalError> Journal::State::write_line(const std::string& text) {
    std::size_t done = 0;
    while (done < text.size()) {
        const auto put = ::pwrite(segment->fd->get(), text.data() + done, text.size() - done,
                                  static_cast<off_t>(segment->bytes + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            const auto error = os_error("write", segment->file.path, put < 0 ? errno : ENOSPC);
            if (::ftruncate(segment->fd->get(), static_cast<off_t>(segment->bytes)) != 0) {
                // The leftover stays until the next write covers it, or the next start cuts it.
            }
            return std::unexpected(error);
        }
        done += static_cast<std::size_t>(put);
    }
    segment->bytes += text.size();
    return {};
}

void Journal::State::close_segment() {
    if (!segment) return;
    if (segment->bytes == 0) {
        ::unlink(segment->file.path.c_str());
    } else {
        closed_segments.push_back(
            {segment->file, segment->last_seq, segment->bytes, segment->last_written, segment->hashes});
        unsynced.push_back(std::move(segment->fd));
    }
    segment.reset();
}

int Journal::State::store_sequence(bool clean) {
    SectorFile::Fields fields{{"boot", config.boot_id},
                              {"given", std::to_string(next_seq - 1)},
                              {"reserved", std::to_string(reserved_seq)},
                              {"clean", clean ? "1" : "0"}};
    if (refused.records != 0) {
        fields["refused"] = std::to_string(refused.records);
        fields["refused_from"] = std::to_string(refused.from.time_since_epoch().count());
        fields["refused_to"] = std::to_string(refused.to.time_since_epoch().count());
        fields["refused_error"] = std::to_string(refused.error);
    }
    return sequence.write(std::move(fields));
}

void Journal::State::restore_refused() {
    const auto number = [this](const char* name) { return number_field(sequence.fields(), name); };
    const auto time = [&](const char* name) {
        return Timestamp{std::chrono::nanoseconds{static_cast<std::int64_t>(number(name))}};
    };
    refused = {number("refused"), time("refused_from"), time("refused_to"),
               static_cast<int>(number("refused_error"))};
}

void Journal::State::reserve(std::uint64_t up_to) {
    const std::uint64_t before = std::exchange(reserved_seq, up_to);
    int error = store_sequence(false);
    if (error == 0) error = sequence.sync();
    if (error == 0) return;
    reserved_seq = before;
    ++status.commit_failures;
    fail(os_error("reserve sequence numbers in", config.directory / "sequence", error));
}

void Journal::State::publish() {
    const std::uint64_t written = next_seq - 1;
    tail->publish(immediate.empty() ? written : immediate.front() - 1);
}

void Journal::State::fail(const JournalError& error) {
    write_failing = true;
    status.state = "failing";
    status.last_error = records::format_time(config.clock()) + " " + error.to_string();
}

// As soon as writing works again, and in front of what is written then.
std::expected<void, JournalError> Journal::State::tell_first() {
    const auto write = [this](const Json& record) -> std::expected<void, JournalError> {
        if (const auto seq = write_record(record, Urgency::normal); !seq) return std::unexpected(seq.error());
        return {};
    };
    for (; !owed.empty(); owed.pop_front())
        if (auto told = write(owed.front()); !told) return told;
    if (refused.records != 0) {
        const Refused telling = std::exchange(refused, {});  // what is stored with the gap record is told
        records::Gap gap;
        gap.reason = "unjournaled";
        gap.from = telling.from;
        gap.to = telling.to;
        gap.records = telling.records;
        gap.detail = os_error("write", config.directory, telling.error).to_string();
        if (auto told = write(records::gap_record(config.origin, gap)); !told) {
            refused = telling;
            return told;
        }
    }
    if (doubtful) {
        if (auto told = write(records::gap_record(config.origin, *doubtful)); !told) return told;
        doubtful.reset();
    }
    return {};
}

// ---- commit
// -------------------------------------------------------------------------------------------------------

std::expected<void, JournalError> Journal::commit() {
    return state_->commit();
}

std::expected<void, JournalError> Journal::State::commit() {
    const std::lock_guard one_at_a_time(commit_mutex);
    std::vector<std::shared_ptr<UniqueFd>> files;
    bool names = false;
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    bool refusing = false;
    {
        const std::lock_guard guard(mutex);
        if (!closed) (void)tell_first();  // what fails is told at the next one
        if (reserved_seq < next_seq + reserve_records / 2) reserve(next_seq + reserve_records);
        from = status.durable_seq + 1;
        to = next_seq - 1;
        files = std::exchange(unsynced, {});
        if (segment) files.push_back(segment->fd);
        names = std::exchange(directory_unsynced, false);
        refusing = refused.records != 0;
    }
    if (refusing) (void)sequence.sync();  // the account of what could not be written
    std::expected<void, JournalError> result;
    if (to >= from || names) {
        for (const auto& file : files)
            if (::fdatasync(file->get()) != 0)
                result = std::unexpected(os_error("fdatasync", config.directory, errno));
        if (names && ::fsync(directory.get()) != 0)
            result = std::unexpected(os_error("fsync", config.directory, errno));
        if (!result) {
            commit_failed(result.error(), from, to);
        } else {
            const std::lock_guard guard(mutex);
            ++status.commits;
            status.durable_seq = std::max(status.durable_seq, to);
            while (!immediate.empty() && immediate.front() <= to) immediate.pop_front();
            publish();
        }
    }
    flush_hashes();
    apply_retention();
    return result;
}

// Leaf hashes can be made again from the lines while there are lines: their writing never holds up a record.
void Journal::State::flush_hashes() {
    struct Work {
        std::shared_ptr<HashWriter> hashes;
        std::vector<std::uint8_t> taken;
        bool closed;
    };
    std::vector<Work> work;
    {
        const std::lock_guard guard(mutex);
        for (const auto& old : closed_segments)
            if (old.hashes) work.push_back({old.hashes, old.hashes->take_pending(), true});
        if (segment && segment->hashes)
            work.push_back({segment->hashes, segment->hashes->take_pending(), false});
    }
    for (auto& item : work) {
        int error = item.hashes->flush(std::move(item.taken));
        if (error == 0 && item.closed) error = item.hashes->sync();
        const std::lock_guard guard(mutex);
        if (error != 0) {
            ++status.hash_failures;
            fail(os_error("write", item.hashes->path(), error));
        } else if (item.closed) {
            for (auto& old : closed_segments)
                if (old.hashes == item.hashes) old.hashes.reset();
        }
    }
}

// After a failed fdatasync the kernel may have dropped the pages and calls them clean: the records are in
// doubt and no second fdatasync can tell. Findings among them go out all the same; a new segment is begun; a
// gap record says so.
void Journal::State::commit_failed(const JournalError& error, std::uint64_t from, std::uint64_t to) {
    const std::lock_guard guard(mutex);
    ++status.commit_failures;
    fail(error);
    while (!immediate.empty() && immediate.front() <= to) immediate.pop_front();
    publish();
    if (to < from) return;
    if (!doubtful) {
        doubtful.emplace();
        doubtful->reason = "not-durable";
        doubtful->first_seq = from;
    }
    doubtful->last_seq = to;
    doubtful->records = to - *doubtful->first_seq + 1;
    doubtful->detail = error.to_string();
    status.durable_seq = std::max(status.durable_seq, to);  // not tried again
    close_segment();
}

void Journal::State::run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the daemon's own affair
    std::unique_lock guard(mutex);
    while (!stopping) {
        wake.wait_for(guard, config.commit_interval, [this] { return stopping || !immediate.empty(); });
        if (stopping) break;
        guard.unlock();
        commit();
        guard.lock();
    }
}

void Journal::start() {
    state_->committer = std::thread([this] { state_->run(); });
}

void Journal::stop() noexcept {
    if (!state_) return;
    {
        const std::lock_guard guard(state_->mutex);
        state_->stopping = true;
    }
    state_->wake.notify_all();
    if (state_->committer.joinable()) state_->committer.join();
    {
        const std::lock_guard guard(state_->mutex);
        if (state_->closed) return;
        (void)state_->tell_first();
        state_->closed = true;
    }
    const bool committed = state_->commit().has_value();
    const std::lock_guard guard(state_->mutex);
    const bool told = state_->refused.records == 0 && state_->owed.empty() && !state_->doubtful;
    if (committed && told && state_->store_sequence(true) == 0) (void)state_->sequence.sync();
    state_->lock.reset();
}

// ---- readers, status
// ----------------------------------------------------------------------------------------------

std::unique_ptr<Reader> Journal::reader(std::string name, std::uint64_t after) {
    auto state = std::make_unique<Reader::State>();
    state->directory = state_->config.directory;
    state->tail = state_->tail;
    state->position = after;
    state->event_fd.reset(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    state->listener = state_->tail->add({std::move(name), state->event_fd.get(), after});
    return std::unique_ptr<Reader>(new Reader(std::move(state)));
}

TreeHead Journal::tree_head() const {
    const std::lock_guard guard(state_->mutex);
    return {state_->tree.origin, state_->tree.frontier.size(), state_->tree.frontier.root(),
            state_->status.last_seq};
}

std::uint64_t Journal::last_seq() const noexcept {
    const std::lock_guard guard(state_->mutex);
    return state_->status.last_seq;
}

Status Journal::status() const {
    const std::lock_guard guard(state_->mutex);
    Status out = state_->status;
    out.segments = state_->closed_segments.size() + (state_->segment ? 1 : 0);
    out.bytes = state_->segment ? state_->segment->bytes : 0;
    for (const auto& closed : state_->closed_segments) out.bytes += closed.bytes;
    if (!state_->closed_segments.empty())
        out.first_seq = state_->closed_segments.front().file.first_seq;
    else if (state_->segment)
        out.first_seq = state_->segment->file.first_seq;
    return out;
}

}  // namespace egresswatch::journal
