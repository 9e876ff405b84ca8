// agent/outputs/syslog_output.cpp - the life of one destination. See syslog_output.h, and README.md for the
// reasons. SPDX-License-Identifier: Apache-2.0
//
// One thread: fetch a record, make it a message, send, note it as in flight; when it is confirmed and the
// resend window has passed, move the cursor. A broken connection moves the reader back to the cursor. It
// sleeps in poll() only.
#include "agent/outputs/syslog_output.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "agent/journal/reader.h"
#include "agent/journal/sector_file.h"
#include "agent/outputs/connection.h"
#include "agent/outputs/rfc5424.h"
#include "agent/unique_fd.h"

namespace egresswatch::outputs {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds settle_tick{
    100};  // how often confirmations are looked for while some are awaited
constexpr std::chrono::milliseconds connect_timeout{10'000};
constexpr std::chrono::milliseconds full_socket_tick{50};  // ENOBUFS wakes no poll()

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

struct Pending {
    std::uint64_t seq = 0;  // 0: unjournaled
    Json record;            // kept for unjournaled ones only: the journal has the others
    std::string message;
    std::string frame;  // made for the connection that is up
    std::size_t offset = 0;
    std::optional<Timestamp> written;
};

struct InFlight {
    std::uint64_t seq = 0;
    std::uint64_t stream_end = 0;      // bytes given to this connection, this message included
    Clock::time_point confirmed_at{};  // of the first `confirmed_count` in the queue
    Json record;                       // unjournaled ones
};

// `,"kind":"finding"` stands among the first members: most lines of no interest are never parsed.
std::string_view kind_of_line(std::string_view line) {
    static constexpr std::string_view key = ",\"kind\":\"";
    const auto at = line.find(key);
    if (at == std::string_view::npos) return {};
    const auto rest = line.substr(at + key.size());
    return rest.substr(0, rest.find('"'));
}

}  // namespace

struct SyslogOutput::State {
    SyslogConfig config;
    journal::Journal& journal;
    std::filesystem::path cursor_path;
    records::Origin origin;
    MessageContext context;

    UniqueFd control;  // eventfd: stop, or an unjournaled finding
    std::thread thread;
    std::atomic<bool> stopping{false};

    mutable std::mutex mutex;  // guards the four below
    SyslogStatus status;
    std::deque<Json> unjournaled;
    std::uint64_t sent_seq = 0;               // handed over or filtered up to here
    std::optional<Timestamp> oldest_written;  // of the record that waits to be sent

    // The thread's own.
    std::unique_ptr<journal::Reader> reader;
    journal::SectorFile cursor_file;
    std::uint64_t stored_cursor = 0;
    Clock::time_point stored_at{};
    std::unique_ptr<Connection> connection;
    Clock::time_point connect_deadline{};
    Clock::time_point retry_at{};
    std::chrono::milliseconds backoff{0};
    std::uint64_t stream_bytes = 0;
    std::optional<Pending> pending;
    std::deque<InFlight> in_flight;
    std::size_t confirmed_count = 0;  // of in_flight, from the front
    Clock::time_point settled_at{};
    bool was_up = false;
    std::mt19937 random{std::random_device{}()};

    State(SyslogConfig c, journal::Journal& j, std::filesystem::path dir, records::Origin o)
        : config(std::move(c)), journal(j), cursor_path(std::move(dir) / config.name), origin(std::move(o)) {}

    [[nodiscard]] std::expected<void, journal::JournalError> open();
    void run();
    void step(std::optional<Clock::time_point> deadline);
    void wait(std::chrono::milliseconds at_most, short events);
    void fetch();
    bool fetch_unjournaled();
    [[nodiscard]] bool wanted(std::string_view kind, const Json& record) const;
    void make_pending(std::uint64_t seq, Json record);
    void connect();
    void up();
    void failed(const ConnectionError& error);
    void send();
    void settle();
    void store_cursor(bool now);
    [[nodiscard]] std::uint64_t delivered_seq() const;
    void drain();
    void update_lag();
    void set_state(const char* state);
    void note_missing();
};

std::expected<void, journal::JournalError> SyslogOutput::State::open() {
    std::error_code made;
    std::filesystem::create_directories(cursor_path.parent_path(), made);
    if (made)
        return std::unexpected(
            journal::JournalError{"make", cursor_path.parent_path().string(), made.value(), ""});
    auto file = journal::SectorFile::open(cursor_path);
    if (!file)
        return std::unexpected(journal::JournalError{"open cursor", cursor_path.string(), file.error(), ""});
    cursor_file = std::move(*file);
    stored_cursor = journal::number_field(cursor_file.fields(), "seq");
    control.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    reader = journal.reader(config.name, stored_cursor);
    if (stored_cursor > reader->visible_seq()) {  // another journal than the one that the cursor belongs to
        stored_cursor = 0;
        reader = journal.reader(config.name, 0);
    }
    context.facility = config.facility;
    context.body = config.body;
    context.bytes_max = config.max_bytes != 0                ? config.max_bytes
                        : config.transport == Transport::udp ? message_bytes_udp
                                                             : message_bytes_stream;
    context.host = origin.host;
    context.version = origin.version;
    context.process_id = std::to_string(::getpid());
    context.sequence_id = 0;
    const std::lock_guard guard(mutex);
    status.cursor_seq = sent_seq = stored_cursor;
    return {};
}

// ---- records in
// ---------------------------------------------------------------------------------------------------

bool SyslogOutput::State::wanted(std::string_view kind, const Json& record) const {
    if (!config.kinds.contains(std::string(kind))) return false;
    if (kind != "finding") return true;
    if (record.contains("test") && !config.test_findings) return false;
    return records::level_of(record) >= config.level_min;
}

void SyslogOutput::State::make_pending(std::uint64_t seq, Json record) {
    ++context.sequence_id;
    context.clock_synced = kernel_clock_synced();
    Message message = format_message(record, context);
    Pending next;
    next.seq = seq;
    next.message = std::move(message.text);
    if (const auto written = record.find("written"); written != record.end() && written->is_string())
        next.written = records::parse_time(written->get<std::string>());
    if (seq == 0) {
        next.written = wall_clock();
        next.record = std::move(record);
    }
    pending = std::move(next);
    if (message.dropped == 0 && !message.cut) return;
    const std::lock_guard guard(mutex);
    ++status.shortened;
}

bool SyslogOutput::State::fetch_unjournaled() {
    Json record;
    {
        const std::lock_guard guard(mutex);
        if (unjournaled.empty()) return false;
        record = std::move(unjournaled.front());
        unjournaled.pop_front();
    }
    make_pending(0, std::move(record));
    return true;
}

void SyslogOutput::State::fetch() {
    while (!pending) {
        if (fetch_unjournaled()) return;
        auto entry = reader->next();
        note_missing();
        if (!entry) return;
        const auto kind = kind_of_line(entry->line);
        if (!kind.empty() && !config.kinds.contains(std::string(kind))) {
            const std::lock_guard guard(mutex);
            ++status.filtered;
            continue;
        }
        Json record = Json::parse(entry->line, nullptr, false);
        if (record.is_discarded() || !record.is_object()) {
            const std::lock_guard guard(mutex);
            ++status.undeliverable;
            continue;
        }
        const auto named = record.find("kind");
        if (named == record.end() || !named->is_string() ||
            !wanted(named->get_ref<const std::string&>(), record)) {
            const std::lock_guard guard(mutex);
            ++status.filtered;
            continue;
        }
        make_pending(entry->seq, std::move(record));
    }
}

void SyslogOutput::State::note_missing() {
    const auto missing = reader->take_missing();
    if (!missing) return;
    const std::lock_guard guard(mutex);
    status.missing += missing->last - missing->first + 1;
}

// ---- messages out
// -------------------------------------------------------------------------------------------------

void SyslogOutput::State::set_state(const char* state) {
    const std::lock_guard guard(mutex);
    status.state = state;
}

void SyslogOutput::State::connect() {
    set_state("connecting");
    {
        const std::lock_guard guard(mutex);
        if (was_up || status.errors != 0) ++status.retries;
    }
    auto made = connect_to(config);
    if (!made) return failed(made.error());
    connection = std::move(*made);
    connect_deadline = Clock::now() + connect_timeout;
    if (!connection->connecting()) up();
}

void SyslogOutput::State::up() {
    was_up = true;
    stream_bytes = 0;
    if (pending) {
        pending->frame = connection->frame(pending->message);
        pending->offset = 0;
    }
    set_state("up");
}

// Back to the cursor: everything behind it may not have arrived.
void SyslogOutput::State::failed(const ConnectionError& error) {
    const std::uint64_t delivered = delivered_seq();
    connection.reset();
    backoff = backoff.count() == 0 ? config.backoff_min : std::min(backoff * 2, config.backoff_max);
    std::uniform_real_distribution<double> jitter(0.5, 1.0);
    retry_at = Clock::now() + std::chrono::duration_cast<Clock::duration>(backoff * jitter(random));
    {
        const std::lock_guard guard(mutex);
        ++status.errors;
        status.last_error = records::format_time(wall_clock()) + " " + error.text;
        status.state = "backoff";
        status.resent += in_flight.size();
        if (pending && pending->seq == 0) unjournaled.push_front(std::move(pending->record));
        for (auto item = in_flight.rbegin(); item != in_flight.rend(); ++item)
            if (item->seq == 0) unjournaled.push_front(std::move(item->record));
        while (unjournaled.size() > unjournaled_max) {
            unjournaled.pop_front();
            ++status.unjournaled_lost;
        }
    }
    // Without anything in flight the pending record is simply kept.
    if (!in_flight.empty() || (pending && pending->seq == 0)) {
        pending.reset();
        reader->seek(delivered);
    }
    in_flight.clear();
    confirmed_count = 0;
}

void SyslogOutput::State::send() {
    if (pending->frame.empty()) pending->frame = connection->frame(pending->message);
    const auto sent = connection->send(pending->frame, pending->offset);
    if (!sent) return failed(sent.error());
    if (*sent == Sent::part) return wait(full_socket_tick, POLLOUT);
    const std::lock_guard guard(mutex);
    if (*sent == Sent::impossible) {
        ++status.undeliverable;
        status.last_error = records::format_time(wall_clock()) + " a message of " +
                            std::to_string(pending->frame.size()) + " bytes is too long for this transport";
        pending.reset();
        return;
    }
    stream_bytes += pending->frame.size();
    ++status.sent;
    status.bytes += pending->frame.size();
    if (pending->seq == 0) ++status.unjournaled_sent;
    in_flight.push_back({pending->seq, stream_bytes, {}, std::move(pending->record)});
    pending.reset();
}

// The records in front of the first one that is not confirmed; filtered ones among them count as delivered.
std::uint64_t SyslogOutput::State::delivered_seq() const {
    for (const auto& item : in_flight)
        if (item.seq != 0) return item.seq - 1;
    if (pending && pending->seq != 0) return pending->seq - 1;
    return reader->position();
}

void SyslogOutput::State::settle() {
    const auto now = Clock::now();
    if (!stopping && now - settled_at < settle_tick) return;
    settled_at = now;
    if (connection && !in_flight.empty()) {
        const std::uint64_t confirmed =
            stream_bytes - std::min(stream_bytes, connection->unconfirmed_bytes());
        while (confirmed_count < in_flight.size() && in_flight[confirmed_count].stream_end <= confirmed)
            in_flight[confirmed_count++].confirmed_at = now;
        while (confirmed_count != 0 && now - in_flight.front().confirmed_at >= config.resend_window) {
            in_flight.pop_front();
            --confirmed_count;
            backoff = std::chrono::milliseconds{0};  // it works
        }
    }
    store_cursor(false);
}

void SyslogOutput::State::store_cursor(bool now) {
    const std::uint64_t delivered = delivered_seq();
    if (delivered == stored_cursor) return;
    if (!now && Clock::now() - stored_at < config.cursor_interval) return;
    stored_at = Clock::now();
    int error = cursor_file.write({{"seq", std::to_string(delivered)}});
    if (error == 0) error = cursor_file.sync();
    const std::lock_guard guard(mutex);
    if (error != 0) {
        ++status.errors;
        status.last_error = records::format_time(wall_clock()) + " write cursor " + cursor_path.string() +
                            ": " + std::strerror(error);
        return;
    }
    stored_cursor = delivered;
    status.cursor_seq = delivered;
    reader->delivered(delivered);
}

void SyslogOutput::State::update_lag() {
    const std::lock_guard guard(mutex);
    sent_seq = pending && pending->seq != 0 ? pending->seq - 1 : reader->position();
    oldest_written = pending ? pending->written : std::nullopt;
}

// ---- the loop
// -----------------------------------------------------------------------------------------------------

// `events`: what to wait for on the connection besides its end.
void SyslogOutput::State::wait(std::chrono::milliseconds at_most, short events) {
    pollfd fds[3] = {{control.get(), POLLIN, 0},
                     {pending ? -1 : reader->wake_fd(), POLLIN, 0},
                     {connection ? connection->fd() : -1, static_cast<short>(POLLIN | events), 0}};
    if (stopping) fds[0].fd = -1;  // its eventfd stays readable
    ::poll(fds, 3, static_cast<int>(at_most.count()));
    if ((fds[0].revents & POLLIN) != 0 && !stopping) {
        eventfd_t drained = 0;
        ::eventfd_read(control.get(), &drained);
    }
    if (!connection || fds[2].revents == 0) return;
    if (connection->connecting()) {
        const auto finished = connection->finish();
        if (!finished) return failed(finished.error());
        return up();
    }
    if ((fds[2].revents & (POLLIN | POLLERR | POLLHUP)) == 0) return;
    if (const auto alive = connection->check(); !alive) failed(alive.error());
}

void SyslogOutput::State::step(std::optional<Clock::time_point> deadline) {
    using std::chrono::milliseconds;
    const auto now = Clock::now();
    const auto until = [&](Clock::time_point when) {
        return std::max(milliseconds{1}, std::chrono::ceil<milliseconds>(when - now));
    };
    milliseconds longest{60'000};
    if (deadline) longest = std::min(longest, until(*deadline));
    settle();
    fetch();
    update_lag();
    if (!connection) {
        if (now >= retry_at) return connect();
        return wait(std::min(longest, until(retry_at)), 0);
    }
    if (connection->connecting()) {
        if (now >= connect_deadline) return failed({"connect " + destination_text(config) + ": no answer"});
        return wait(std::min(longest, until(connect_deadline)), POLLOUT);
    }
    if (pending) return send();
    const bool unsettled = !in_flight.empty() || delivered_seq() != stored_cursor;
    wait(unsettled ? std::min(longest, settle_tick) : longest, 0);
}

void SyslogOutput::State::run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the daemon's own affair
    while (!stopping) step(std::nullopt);
    drain();
    set_state("stopped");
}

void SyslogOutput::State::drain() {
    const auto deadline = Clock::now() + config.stop_timeout;
    const auto all_confirmed = [this] {
        return in_flight.empty() ||
               in_flight.back().stream_end + connection->unconfirmed_bytes() <= stream_bytes;
    };
    if (!connection && Clock::now() >= retry_at) connect();
    while (connection && Clock::now() < deadline) {
        fetch();
        if (!pending && !connection->connecting() && all_confirmed()) break;
        step(deadline);
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (connection && !connection->connecting() && !pending &&
        connection->close_and_confirm(std::max(left, std::chrono::milliseconds{1})))
        in_flight.clear();
    confirmed_count = 0;
    store_cursor(true);
    update_lag();
}

// ---- the outside
// --------------------------------------------------------------------------------------------------

SyslogOutput::SyslogOutput(SyslogConfig config, journal::Journal& journal, std::filesystem::path cursor_dir,
                           records::Origin origin)
    : state_(std::make_unique<State>(std::move(config), journal, std::move(cursor_dir), std::move(origin))) {
    static constexpr const char* transports[] = {"unix", "udp", "tcp"};
    state_->status.name = state_->config.name;
    state_->status.transport = transports[static_cast<std::size_t>(state_->config.transport)];
    state_->status.destination = destination_text(state_->config);
    state_->status.state = "starting";
}

SyslogOutput::~SyslogOutput() {
    stop();
}

std::expected<void, journal::JournalError> SyslogOutput::start() {
    if (auto opened = state_->open(); !opened) return opened;
    state_->thread = std::thread([this] { state_->run(); });
    return {};
}

void SyslogOutput::stop() noexcept {
    if (!state_->thread.joinable()) return;
    state_->stopping = true;
    ::eventfd_write(state_->control.get(), 1);
    state_->thread.join();
}

void SyslogOutput::deliver_unjournaled(const Json& record) {
    const auto kind = record.find("kind");
    if (kind == record.end() || !kind->is_string() ||
        !state_->wanted(kind->get_ref<const std::string&>(), record))
        return;
    Json marked = record;
    marked["unjournaled"] = true;
    {
        const std::lock_guard guard(state_->mutex);
        state_->unjournaled.push_back(std::move(marked));
        if (state_->unjournaled.size() > unjournaled_max) {
            state_->unjournaled.pop_front();
            ++state_->status.unjournaled_lost;
        }
    }
    ::eventfd_write(state_->control.get(), 1);
}

SyslogStatus SyslogOutput::status() const {
    const std::lock_guard guard(state_->mutex);
    SyslogStatus out = state_->status;
    const std::uint64_t visible = state_->reader ? state_->reader->visible_seq() : 0;
    out.lag_records = visible > state_->sent_seq ? visible - state_->sent_seq : 0;
    if (out.lag_records != 0 && state_->oldest_written)
        out.lag_seconds =
            std::max(0.0, std::chrono::duration<double>(wall_clock() - *state_->oldest_written).count());
    return out;
}

}  // namespace egresswatch::outputs
