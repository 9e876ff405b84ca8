// agent/outputs/output.cpp - the life of one destination. See output.h, and README.md for the reasons.
// SPDX-License-Identifier: Apache-2.0
//
// One thread: fetch a record, make it a message, send, note it as in flight; when it is confirmed and the
// resend window has passed, move the cursor. A broken connection moves the reader back to the cursor. It
// sleeps in poll() only.
#include "agent/outputs/output.h"

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
#include "agent/outputs/journald.h"
#include "agent/outputs/rate_limit.h"
#include "agent/outputs/rfc5424.h"
#include "agent/outputs/transport.h"
#include "agent/records/fit.h"
#include "agent/unique_fd.h"

namespace egresswatch::outputs {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds settle_tick{
    100};  // how often confirmations are looked for while some are awaited
constexpr std::chrono::milliseconds connect_timeout{10'000};
constexpr int messages_per_step = 64;  // between two looks at what else there is to do

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

struct Pending {
    std::uint64_t seq = 0;  // 0: unjournaled
    bool summary = false;   // of what the rate limit kept back from `seq` on
    Json record;            // kept for unjournaled ones only: the journal has the others
    std::string message;
    std::optional<Timestamp> written;
};

struct InFlight {
    std::uint64_t seq = 0;
    bool summary = false;
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

struct Output::State {
    OutputConfig config;
    journal::Journal& journal;
    std::filesystem::path cursor_path;
    records::Origin origin;
    MessageContext context;

    UniqueFd control;  // eventfd: stop, or an unjournaled finding
    std::thread thread;
    std::atomic<bool> stopping{false};
    std::atomic<bool> reopen_wanted{false};

    mutable std::mutex mutex;  // guards the four below
    OutputStatus status;
    std::deque<Json> unjournaled;
    std::uint64_t sent_seq = 0;               // handed over or filtered up to here
    std::optional<Timestamp> oldest_written;  // of the record that waits to be sent

    // The thread's own.
    std::unique_ptr<journal::Reader> reader;
    journal::SectorFile cursor_file;
    std::uint64_t stored_cursor = 0;
    Clock::time_point stored_at{};
    std::unique_ptr<Transport> transport;
    Clock::time_point connect_deadline{};
    Clock::time_point retry_at{};
    std::chrono::milliseconds backoff{0};
    std::optional<Pending> pending;
    std::deque<InFlight> in_flight;
    std::size_t confirmed_count = 0;  // of in_flight, from the front
    std::uint64_t settled_count = 0;  // messages of this connection that have left in_flight
    std::uint64_t given_up_counted = 0;
    std::optional<RateLimit> rate_limit;
    std::deque<std::uint64_t> summaries;  // first number of each summary that is pending or in flight
    Clock::time_point settled_at{};
    bool was_up = false;
    std::mt19937 random{std::random_device{}()};

    State(OutputConfig c, journal::Journal& j, std::filesystem::path dir, records::Origin o)
        : config(std::move(c)), journal(j), cursor_path(std::move(dir) / config.name), origin(std::move(o)) {}

    [[nodiscard]] std::expected<void, journal::JournalError> open();
    void run();
    void step(std::optional<Clock::time_point> deadline);
    void wait(std::chrono::milliseconds at_most);
    void fetch();
    bool fetch_unjournaled();
    [[nodiscard]] bool wanted(const Json& record) const;
    [[nodiscard]] Message format_for_transport(const Json& record) const;
    void make_pending(std::uint64_t seq, Json record);
    bool fetch_summary();
    [[nodiscard]] bool kept_back(std::uint64_t seq, const Json& record);
    void connect();
    void up();
    void failed(const TransportError& error);
    void send_what_is_there();
    bool send_pending();
    void settle();
    void take_confirmations(Clock::time_point now);
    void store_cursor(bool now);
    [[nodiscard]] std::uint64_t delivered_seq() const;
    void drain();
    void update_lag();
    void set_state(const char* state);
    void note_missing();
};

std::expected<void, journal::JournalError> Output::State::open() {
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
    context.time_digits = config.time_digits;
    if (config.rate_limit.per_second != 0) {
        if (config.rate_limit.burst == 0) config.rate_limit.burst = config.rate_limit.per_second * 10;
        rate_limit.emplace(config.rate_limit);
    }
    context.bytes_max = config.max_bytes != 0                    ? config.max_bytes
                        : config.transport == TransportKind::udp ? message_bytes_udp
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

// The canary's way must be that of every finding, whatever the level: its arrival says that the way is open.
bool Output::State::wanted(const Json& record) const {
    const auto kind = record.find("kind");
    if (kind == record.end() || !kind->is_string() || !config.kinds.contains(kind->get<std::string>()))
        return false;
    if (*kind != "finding" || record.contains("canary")) return true;
    if (record.contains("test") && !config.test_findings) return false;
    return records::level_of(record) >= config.level_min;
}

// Only what comes in masses is limited; the few records about the monitor itself always go.
bool Output::State::kept_back(std::uint64_t seq, const Json& record) {
    const auto& kind = record.at("kind").get_ref<const std::string&>();
    if (!rate_limit || record.contains("canary") ||
        (kind != "finding" && kind != "flow" && kind != "coverage"))
        return false;
    const auto written = record.find("written");
    const auto time = written != record.end() && written->is_string()
                          ? records::parse_time(written->get_ref<const std::string&>())
                          : std::nullopt;
    const Level level = records::level_of(record);
    if (rate_limit->admit(level, time.value_or(wall_clock()))) return false;
    rate_limit->skip(seq, level, records::rule_or_kind(record));
    const std::lock_guard guard(mutex);
    ++status.rate_limited;
    return true;
}

bool Output::State::fetch_summary() {
    if (!rate_limit ||
        !(rate_limit->summary_due(wall_clock()) || (stopping && rate_limit->skipped().records != 0)))
        return false;
    const RateLimit::Skipped skipped = rate_limit->take();
    Json record = records::record_head(origin, "summary", wall_clock());
    record["written"] = record["time"];
    record["level"] = records::level_name(skipped.highest);
    record["reason"] = "rate-limit";
    record["records"] = skipped.records;
    record["first_seq"] = skipped.first_seq;
    record["last_seq"] = skipped.last_seq;
    record["levels"] = Json::object();
    for (std::size_t i = 0; i < skipped.by_level.size(); ++i)
        if (skipped.by_level[i] != 0)
            record["levels"][std::string(records::level_name(static_cast<Level>(i)))] = skipped.by_level[i];
    record["rules"] = skipped.by_rule;
    make_pending(skipped.first_seq, std::move(record));
    pending->summary = true;
    summaries.push_back(skipped.first_seq);
    return true;
}

Message Output::State::format_for_transport(const Json& record) const {
    if (config.transport == TransportKind::journald) return format_journal_entry(record, context);
    return is_syslog(config.transport) ? format_message(record, context) : format_bare(record, context);
}

void Output::State::make_pending(std::uint64_t seq, Json record) {
    ++context.sequence_id;
    context.clock_synced = kernel_clock_synced();
    Message message = format_for_transport(record);
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

bool Output::State::fetch_unjournaled() {
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

void Output::State::fetch() {
    while (!pending) {
        if (fetch_unjournaled() || fetch_summary()) return;
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
        if (!wanted(record)) {
            const std::lock_guard guard(mutex);
            ++status.filtered;
            continue;
        }
        if (kept_back(entry->seq, record)) continue;
        make_pending(entry->seq, std::move(record));
    }
}

void Output::State::note_missing() {
    const auto missing = reader->take_missing();
    if (!missing) return;
    const std::lock_guard guard(mutex);
    status.missing += missing->last - missing->first + 1;
}

// ---- messages out
// -------------------------------------------------------------------------------------------------

void Output::State::set_state(const char* state) {
    const std::lock_guard guard(mutex);
    status.state = state;
}

void Output::State::connect() {
    set_state("connecting");
    {
        const std::lock_guard guard(mutex);
        if (was_up || status.errors != 0) ++status.retries;
    }
    auto opened = open_transport(config);
    if (!opened) return failed(opened.error());
    transport = std::move(*opened);
    connect_deadline = Clock::now() + connect_timeout;
    if (!transport->connecting()) up();
}

void Output::State::up() {
    was_up = true;
    set_state("up");
}

// Back to the cursor: everything behind it may not have arrived.
void Output::State::failed(const TransportError& error) {
    // What the receiver itself had confirmed up to now need not go again.
    if (transport && transport->proves_delivery()) take_confirmations(Clock::now());
    const std::uint64_t delivered = delivered_seq();
    transport.reset();
    backoff = backoff.count() == 0 ? config.backoff_min : std::min(backoff * 2, config.backoff_max);
    std::uniform_real_distribution<double> jitter(0.5, 1.0);
    retry_at = Clock::now() + std::max(std::chrono::duration_cast<Clock::duration>(backoff * jitter(random)),
                                       std::chrono::duration_cast<Clock::duration>(error.retry_after));
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
        summaries.clear();
        if (rate_limit) rate_limit.emplace(config.rate_limit);  // judges them anew
    }
    in_flight.clear();
    confirmed_count = 0;
    settled_count = 0;
    given_up_counted = 0;
}

// False when the transport takes no more for now, or is gone.
bool Output::State::send_pending() {
    const auto taken = transport->send(pending->message);
    if (!taken) {
        failed(taken.error());
        return false;
    }
    if (*taken == Taken::busy) return false;
    const std::lock_guard guard(mutex);
    if (*taken == Taken::impossible) {
        ++status.undeliverable;
        status.last_error = records::format_time(wall_clock()) + " a message of " +
                            std::to_string(pending->message.size()) + " bytes is too long for this transport";
        if (pending->summary) summaries.pop_back();  // the cursor must not wait for it
        pending.reset();
        return true;
    }
    ++status.sent;
    status.bytes += pending->message.size();
    if (pending->seq == 0) ++status.unjournaled_sent;
    in_flight.push_back({pending->seq, pending->summary, {}, std::move(pending->record)});
    pending.reset();
    return true;
}

void Output::State::send_what_is_there() {
    for (int i = 0; i < messages_per_step; ++i) {
        if (!pending) fetch();
        if (!pending) break;
        if (!send_pending()) break;
    }
    if (!transport) return;
    if (const auto flushed = transport->flush(); !flushed) failed(flushed.error());
}

// The records in front of the first one that is not confirmed; filtered ones among them count as delivered.
std::uint64_t Output::State::delivered_seq() const {
    // What was kept back stands behind its summary, whose number may be lower than that of what went before.
    std::uint64_t at_most = reader->position();
    if (rate_limit && rate_limit->skipped().records != 0) at_most = rate_limit->skipped().first_seq - 1;
    if (!summaries.empty()) at_most = std::min(at_most, summaries.front() - 1);
    for (const auto& item : in_flight)
        if (item.seq != 0) return std::min(at_most, item.seq - 1);
    if (pending && pending->seq != 0) return std::min(at_most, pending->seq - 1);
    return at_most;
}

void Output::State::take_confirmations(Clock::time_point now) {
    const auto window = transport->proves_delivery() ? std::chrono::milliseconds{0} : config.resend_window;
    const std::uint64_t confirmed = transport->confirmed() - settled_count;
    if (const std::uint64_t refused = transport->given_up(); refused != given_up_counted) {
        const std::lock_guard guard(mutex);
        status.undeliverable += refused - given_up_counted;
        status.last_error = records::format_time(wall_clock()) + " the receiver refuses a record for good";
        given_up_counted = refused;
    }
    while (confirmed_count < in_flight.size() && confirmed_count < confirmed)
        in_flight[confirmed_count++].confirmed_at = now;
    while (confirmed_count != 0 && now - in_flight.front().confirmed_at >= window) {
        if (in_flight.front().summary) summaries.pop_front();
        in_flight.pop_front();
        --confirmed_count;
        ++settled_count;
        backoff = std::chrono::milliseconds{0};  // it works
    }
}

void Output::State::settle() {
    const auto now = Clock::now();
    if (!stopping && now - settled_at < settle_tick) return;
    settled_at = now;
    if (transport && !in_flight.empty()) take_confirmations(now);
    store_cursor(false);
}

void Output::State::store_cursor(bool now) {
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

void Output::State::update_lag() {
    const std::lock_guard guard(mutex);
    sent_seq = pending && pending->seq != 0 ? pending->seq - 1 : reader->position();
    oldest_written = pending ? pending->written : std::nullopt;
}

// ---- the loop
// -----------------------------------------------------------------------------------------------------

void Output::State::wait(std::chrono::milliseconds at_most) {
    pollfd fds[2] = {{control.get(), POLLIN, 0}, {pending ? -1 : reader->wake_fd(), POLLIN, 0}};
    if (stopping) fds[0].fd = -1;  // its eventfd stays readable
    if (transport)
        transport->wait(fds, at_most);
    else
        ::poll(fds, 2, static_cast<int>(at_most.count()));
    if ((fds[0].revents & POLLIN) != 0 && !stopping) {
        eventfd_t drained = 0;
        ::eventfd_read(control.get(), &drained);
    }
    if (!transport) return;
    const bool was_connecting = transport->connecting();
    if (const auto worked = transport->work(); !worked) return failed(worked.error());
    if (was_connecting && !transport->connecting()) up();
}

void Output::State::step(std::optional<Clock::time_point> deadline) {
    using std::chrono::milliseconds;
    const auto until = [](Clock::time_point when) {
        return std::max(milliseconds{0}, std::chrono::ceil<milliseconds>(when - Clock::now()));
    };
    milliseconds longest{60'000};
    if (rate_limit && rate_limit->skipped().records != 0) longest = RateLimit::summary_interval;
    if (deadline) longest = std::min(longest, until(*deadline));
    settle();
    if (!pending) fetch();
    update_lag();
    if (!transport) {
        if (Clock::now() >= retry_at) return connect();
        return wait(std::min(longest, until(retry_at)));
    }
    if (transport->connecting()) {
        if (Clock::now() >= connect_deadline)
            return failed({"connect " + destination_text(config) + ": no answer"});
        return wait(std::min(longest, until(connect_deadline)));
    }
    if (reopen_wanted.exchange(false))
        if (const auto opened = transport->reopen(); !opened) return failed(opened.error());
    const bool more = pending.has_value();
    if (more) send_what_is_there();
    if (more && transport && !pending) return wait(milliseconds{0});
    const bool unsettled = !in_flight.empty() || delivered_seq() != stored_cursor;
    wait(unsettled ? std::min(longest, settle_tick) : longest);
}

void Output::State::run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the daemon's own affair
    while (!stopping) step(std::nullopt);
    drain();
    set_state("stopped");
}

void Output::State::drain() {
    const auto deadline = Clock::now() + config.stop_timeout;
    if (!transport && Clock::now() >= retry_at) connect();
    while (transport && Clock::now() < deadline) {
        fetch();
        if (!pending && !transport->connecting() &&
            (in_flight.empty() || transport->confirmed() - settled_count >= in_flight.size()))
            break;
        step(deadline);
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (transport && !transport->connecting() && !pending &&
        transport->finish(std::max(left, std::chrono::milliseconds{1}))) {
        in_flight.clear();
        summaries.clear();
    }
    confirmed_count = 0;
    store_cursor(true);
    update_lag();
}

// ---- the outside
// --------------------------------------------------------------------------------------------------

Output::Output(OutputConfig config, journal::Journal& journal, std::filesystem::path cursor_dir,
               records::Origin origin)
    : state_(std::make_unique<State>(std::move(config), journal, std::move(cursor_dir), std::move(origin))) {
    state_->status.name = state_->config.name;
    state_->status.type =
        is_syslog(state_->config.transport) ? "syslog" : transport_name(state_->config.transport);
    state_->status.transport = transport_name(state_->config.transport);
    state_->status.destination = destination_text(state_->config);
    state_->status.state = "starting";
}

Output::~Output() {
    stop();
}

std::expected<void, journal::JournalError> Output::start() {
    if (auto opened = state_->open(); !opened) return opened;
    state_->thread = std::thread([this] { state_->run(); });
    return {};
}

void Output::stop() noexcept {
    if (!state_->thread.joinable()) return;
    state_->stopping = true;
    ::eventfd_write(state_->control.get(), 1);
    state_->thread.join();
}

void Output::deliver_unjournaled(const Json& record) {
    if (!state_->wanted(record)) return;
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

void Output::reopen() {
    state_->reopen_wanted = true;
    ::eventfd_write(state_->control.get(), 1);
}

OutputStatus Output::status() const {
    const std::lock_guard guard(state_->mutex);
    OutputStatus out = state_->status;
    const std::uint64_t visible = state_->reader ? state_->reader->visible_seq() : 0;
    out.lag_records = visible > state_->sent_seq ? visible - state_->sent_seq : 0;
    if (out.lag_records != 0 && state_->oldest_written)
        out.lag_seconds =
            std::max(0.0, std::chrono::duration<double>(wall_clock() - *state_->oldest_written).count());
    return out;
}

}  // namespace egresswatch::outputs
