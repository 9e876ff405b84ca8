// agent/daemon/daemon.cpp - start, loop and stop; reload is in daemon_reload.cpp, coverage in
// daemon_coverage.cpp. SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/daemon.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "agent/daemon/internal_finding.h"
#include "agent/daemon/privileges.h"
#include "agent/daemon/recall.h"
#include "rules/limits.h"

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

sigset_t our_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : {SIGHUP, SIGTERM, SIGINT}) ::sigaddset(&set, signal);
    return set;
}

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

// The key of hashed names where the configuration has none: made once, and kept where only we read.
std::expected<std::string, std::string> own_hash_key(const std::filesystem::path& state_dir) {
    constexpr std::size_t bytes = 32;
    const std::filesystem::path path = state_dir / "name-hash.key";
    const auto failed = [&](const char* what) {
        return std::unexpected(std::string(what) + " " + path.string() + ": " + std::strerror(errno));
    };
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) return failed("open");
    std::string key(bytes, '\0');
    if (::read(file.get(), key.data(), bytes) == static_cast<ssize_t>(bytes)) return key;
    if (::getrandom(key.data(), bytes, 0) != static_cast<ssize_t>(bytes))
        return failed("find random bytes for");
    if (::pwrite(file.get(), key.data(), bytes, 0) != static_cast<ssize_t>(bytes) || ::fsync(file.get()) != 0)
        return failed("write");
    return key;
}

std::expected<records::NamePrivacy, std::string> name_privacy(const Config& config) {
    records::NamePrivacy out{config.names.shown, config.names.hash_key};
    if (out.shown != records::ShownNames::hashed || !out.hash_key.empty()) return out;
    auto key = own_hash_key(config.state_dir);
    if (!key) return std::unexpected(key.error());
    out.hash_key = std::move(*key);
    return out;
}

// The folder of everything that must outlive us. Its owner must be us: without CAP_DAC_OVERRIDE, which
// start() gives up, root cannot write into another user's folder either.
std::expected<void, std::string> prepare_state_dir(const std::filesystem::path& directory) {
    std::error_code error;
    if (std::filesystem::create_directories(directory, error))
        std::filesystem::permissions(directory, std::filesystem::perms(0750), error);
    struct stat info {};
    if (::stat(directory.c_str(), &info) != 0)
        return std::unexpected("state_dir " + directory.string() + ": " + std::strerror(errno));
    if (info.st_uid != ::geteuid())
        return std::unexpected("state_dir " + directory.string() + " belongs to user id " +
                               std::to_string(info.st_uid) + ", this process runs as " +
                               std::to_string(::geteuid()) +
                               "; start it as the owner (systemctl start egresswatchd) "
                               "or name another folder");
    return {};
}

}  // namespace

void block_signals() {
    const sigset_t set = our_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

Daemon::Daemon(Config config, std::unique_ptr<capture::Engine> engine, Predecessors predecessor,
               DaemonOptions options)
    : config_(std::move(config)),
      options_(options),
      ask_predecessor_(std::move(predecessor)),
      origin_(records::Origin::of_this_host(config_.site)),
      engine_(std::move(engine)) {}

Daemon::~Daemon() {
    stop();
}

std::expected<void, std::string> Daemon::start() {
    started_ = wall_clock();
    const sigset_t set = our_signals();
    signals_ = UniqueFd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!signals_) return std::unexpected(std::string("signalfd: ") + std::strerror(errno));

    if (auto done = prepare_state_dir(config_.state_dir); !done) return done;
    if (auto done = load_policy_first(); !done) return done;
    if (auto done = open_journal(); !done) return done;
    auto control = ControlServer::open({.path = config_.control_socket});
    if (!control) return std::unexpected(control.error().to_string());
    control_ = std::move(*control);

    if (auto done = engine_->install_region(*state_->table); !done)
        return std::unexpected(done.error().to_string());
    if (ask_predecessor_) predecessor_ = ask_predecessor_();
    save_region_table();
    auto privacy = name_privacy(config_);
    if (!privacy) return std::unexpected(privacy.error());
    evaluation_ =
        std::make_unique<Evaluation>(state_, config_.site, config_.flow_records, std::move(*privacy),
                                     resolvers_of(config_.names.resolvers, config_.local_networks), *writer_);
    evaluation_->set_engine(engine_.get());
    restore_windows();
    write_policy_record("loaded", state_->warnings);
    write_evidence_findings(started_);
    if (auto done = engine_->start(*evaluation_); !done) {
        writer_->write(records::stop_record(origin_, "engine did not start: " + done.error().to_string()));
        return std::unexpected(done.error().to_string());
    }
    engine_running_ = true;
    begin_coverage(wall_clock());
    if (auto done = start_threads(); !done) return done;
    coverage_due_ = Clock::now() + config_.coverage_interval;
    liveness_.emplace(config_.liveness, state_file("canary"));
    service_.ready(status_line());
    spdlog::info("started: {}", status_line());
    return {};
}

std::expected<void, std::string> Daemon::load_policy_first() {
    auto netlink = Rtnetlink::open();
    if (!netlink) return std::unexpected(netlink.error().to_string());
    netlink_ = std::move(*netlink);
    auto watch = AddressWatch::open();
    if (!watch) return std::unexpected(watch.error().to_string());
    address_watch_ = std::move(*watch);
    auto addresses = netlink_->addresses();
    if (!addresses) return std::unexpected(addresses.error().to_string());
    watch_policy();  // before it is read: no change falls between

    // A predecessor's table keeps the meaning of the class ids that its counters in the kernel are under.
    auto previous = RegionTable::load(state_file("region.table"));
    const RegionTable* chain = previous ? previous->get() : nullptr;
    auto state = build_policy_state({config_.policy_dir, config_.geo_file, config_.asn_file, config_.site},
                                    *addresses, chain, nullptr, started_);
    if (!state) return std::unexpected("nothing to start with:\n" + state.error().report);
    state_ = std::make_shared<const PolicyState>(std::move(*state));
    for (const auto& warning : state_->warnings) spdlog::warn("{}", warning);
    return {};
}

std::expected<void, std::string> Daemon::open_journal() {
    evidence::NotaryConfig evidence;
    evidence.directory = config_.state_dir / "evidence";
    evidence.journal = config_.state_dir / "journal";
    evidence.origin = origin_;
    evidence.checkpoint_interval = config_.evidence.checkpoint_interval;
    evidence.key_interval = config_.evidence.key_interval;
    auto notary = evidence::Notary::open(std::move(evidence));
    if (!notary) return std::unexpected("evidence: " + notary.error());
    notary_ = std::move(*notary);

    journal::Config config;
    config.judge = [this](const journal::RecoveredTree& tree) { return notary_->judge(tree); };
    config.directory = config_.state_dir / "journal";
    config.origin = origin_;
    config.segment_bytes_max = config_.journal.segment_bytes_max;
    config.retention_bytes_max = config_.journal.bytes_max;
    config.retention_age = config_.journal.age_max;
    config.hash_bytes_max = config_.journal.hash_bytes_max;
    auto opened = journal::Journal::open(std::move(config));
    if (!opened) return std::unexpected("journal: " + opened.error().to_string());
    journal_ = std::move(*opened);
    writer_ = std::make_unique<JournalWriter>(origin_, *journal_);
    writer_->set_notary(notary_.get());
    if (notary_->made_genesis())
        spdlog::info(
            "evidence: the genesis key of this journal is {}; give it to the auditors, and keep it "
            "elsewhere than on this host",
            notary_->status().genesis_key);
    for (const auto& output : config_.outputs) {
        outputs_.push_back(
            std::make_unique<outputs::Output>(output, *journal_, config_.state_dir / "cursors", origin_));
        writer_->add_output(outputs_.back().get());
    }
    return {};
}

// Everything is open: give up the capabilities, and only then make threads; those have none at all, because
// the thread that makes them has none.
std::expected<void, std::string> Daemon::start_threads() {
    if (options_.drop_privileges)
        if (auto done = drop_privileges(options_.capabilities); !done)
            return std::unexpected(done.error().to_string());
    std::expected<void, std::string> result;
    std::thread([&] {
        if (options_.drop_privileges)
            if (auto done = drop_all_of_this_thread(); !done) {
                result = std::unexpected(done.error().to_string());
                return;
            }
        // Before the journal's own: retention must know who has not delivered what.
        for (const auto& output : outputs_)
            if (auto done = output->start(); !done) {
                result = std::unexpected("output " + output->status().name + ": " + done.error().to_string());
                return;
            }
        journal_->start();
        notary_->start(*journal_);
        control_->start();
        if (config_.metrics.listen.empty()) return;
        auto endpoint = metrics::Endpoint::open(config_.metrics.listen, config_.control_socket);
        if (endpoint)
            metrics_ = std::move(*endpoint);
        else
            result = std::unexpected(endpoint.error());
    }).join();
    return result;
}

int Daemon::run() {
    while (step()) {
    }
    stop();
    return exit_code_;
}

bool Daemon::step() {
    if (auto polled = engine_->poll(options_.poll_timeout); !polled) {
        stop_reason_ = "engine failed: " + polled.error().to_string();
        spdlog::critical("{}", stop_reason_);
        exit_code_ = 3;
        return false;
    }
    handle_signals();
    handle_addresses();
    handle_policy_changes();
    finish_build();
    begin_build();
    handle_control();
    const auto now = Clock::now();
    if (now >= losses_check_at_) {
        losses_check_at_ = now + std::chrono::seconds(1);
        const auto totals = engine_->totals();
        write_loss_findings(totals, wall_clock());
        write_drop_findings(totals, wall_clock());
        write_signs_of_life(wall_clock());
    }
    if (now >= coverage_due_) {
        // From the plan, not from now: ten seconds stay ten seconds. After a long stall the plan starts anew.
        coverage_due_ = std::max(coverage_due_ + config_.coverage_interval, now);
        write_coverage(wall_clock());
        // Of this machine they change with its network.
        evaluation_->set_resolvers(resolvers_of(config_.names.resolvers, config_.local_networks));
        service_.status(status_line());
    }
    if (const std::string error = writer_->take_error(); !error.empty())
        spdlog::error("journal: {}; findings go to the outputs directly until it works again", error);
    keep_windows();
    service_.alive(now);
    return !stop_requested_;
}

void Daemon::handle_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
        if (info.ssi_signo == SIGHUP) {
            request_reload("SIGHUP");
            for (const auto& output : outputs_) output->reopen();
        } else {
            stop_requested_ = true;
            stop_reason_ = info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT";
        }
    }
}

void Daemon::handle_control() {
    status_answer_.clear();
    for (const auto& pending : control_->take_requests()) {
        if (pending.request == ControlRequest::reload) {
            // A build that runs may have read the files already: this client waits for one that has not.
            (build_ && !build_->addresses_only ? reload_clients_next_ : reload_clients_)
                .push_back(pending.client);
            request_reload("control socket");
            continue;
        }
        if (pending.request != ControlRequest::status) {
            control_->answer(pending.client, answer_question(pending.request, pending.line));
            continue;
        }
        if (status_answer_.empty()) {
            records::Json answer{{"ok", true}};
            answer["status"] = status();
            status_answer_ = answer.dump(-1, ' ', false, records::Json::error_handler_t::replace);
        }
        control_->answer(pending.client, status_answer_);
    }
}

void Daemon::stop() {
    if (!engine_running_) return;
    engine_running_ = false;
    service_.stopping();
    spdlog::info("stopping: {}", stop_reason_.empty() ? "asked to" : stop_reason_);
    if (build_) build_->result.wait();
    [[maybe_unused]] const auto last_events = engine_->poll(std::chrono::milliseconds(0));
    write_coverage(wall_clock());
    if (config_.keep_hooks && config_.engine == EngineKind::ebpf) {
        spdlog::info("keep_hooks: the kernel goes on counting; `egresswatch detach` removes the hooks");
    } else {
        engine_->stop();
        std::error_code ignored;
        std::filesystem::remove(state_file("region.table"), ignored);  // nobody will adopt its class ids
    }
    // Behind the last updates, which the end of the engine brings.
    windows_->save_now(evaluation_->evaluator(), wall_clock());
    if (const auto& error = windows_->status().error; !error.empty())
        spdlog::error("{}; what the rules have added up is lost with this process", error);
    writer_->write(records::stop_record(origin_, stop_reason_.empty() ? "stopped" : stop_reason_));
    metrics_.reset();
    control_.reset();
    notary_->stop();  // the last checkpoint, over the stop record
    [[maybe_unused]] const auto durable = journal_->commit();
    for (const auto& output : outputs_) output->stop();
    journal_->stop();
    engine_.reset();
}

// Before the first update: what was saved, and the findings that were made since.
void Daemon::restore_windows() {
    windows_.emplace(state_file("windows.state"), config_.windows_save_interval);
    const auto saved = take_over_windows();
    // Shorter suppressions are not saved: an hour of findings more.
    const auto recalled = recall_findings(
        config_.state_dir / "journal", saved ? *saved - rules::limits::kept_over_min : Timestamp{},
        state_->policy->content_hash(), *state_->table, evaluation_->evaluator());
    if (recalled.findings != 0)
        spdlog::info("{} findings of the journal were made since: their groups stay quiet",
                     recalled.findings);
    if (recalled.left_out != 0)
        spdlog::warn("{} older findings of the journal are not looked at: they may be reported again",
                     recalled.left_out);
}

// When they were saved. Windows that cannot be read begin empty: that is a finding, since slow transfers hide
// behind it.
std::optional<Timestamp> Daemon::take_over_windows() {
    const auto restored = windows_->restore(evaluation_->evaluator());
    if (!restored) {
        spdlog::error("{}; the windows of all rules begin empty", restored.error());
        InternalFinding finding;
        finding.rule = "egresswatch/windows-lost";
        finding.title = "What rules had added up over days could not be read";
        finding.level = rules::Level::medium;
        finding.measure = "files";
        finding.value = finding.threshold = 1;
        finding.message = restored.error() + "; the windows of all rules begin empty";
        finding.time = wall_clock();
        internal_findings_++;
        writer_->write(internal_finding_record(origin_, finding));
        return std::nullopt;
    }
    if (!*restored) return std::nullopt;
    // By the file, not by the packet time that the rules had reached: without packets there is none.
    std::error_code ignored;
    const auto written =
        std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::file_clock::to_sys(
            std::filesystem::last_write_time(state_file("windows.state"), ignored)));
    spdlog::info("windows of {} rules taken over, saved at {}; {} of rules that have changed are left out",
                 (*restored)->rules, records::format_time(written), (*restored)->dropped);
    return written;
}

void Daemon::keep_windows() {
    const bool failed_before = !windows_->status().error.empty();
    if (!windows_->keep(evaluation_->evaluator(), wall_clock())) return;
    const std::string& error = windows_->status().error;
    if (!error.empty() && !failed_before)
        spdlog::error("{}; what the rules have added up would be lost with this process", error);
    if (error.empty() && failed_before) spdlog::info("the windows of rules are saved again");
}

void Daemon::save_region_table() const {
    if (auto saved = state_->table->save(state_file("region.table")); !saved)
        spdlog::warn("{}; a successor that adopts the kernel's counters cannot tell their countries",
                     saved.error().message);
}

std::string Daemon::status_line() const {
    std::size_t hooked = 0, blind = 0;
    const auto totals = engine_->totals();
    for (const auto& interface : totals.interfaces) (interface.hooked ? hooked : blind)++;
    std::string line = "policy " + state_->policy->name + " revision " +
                       std::to_string(state_->policy->revision) + ", " + std::to_string(hooked) +
                       " interfaces hooked";
    if (blind != 0) line += ", " + std::to_string(blind) + " not";
    if (broken_policy_) line += "; the policy on disk is broken";
    return line;
}

}  // namespace egresswatch::daemon
