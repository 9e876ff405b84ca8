// agent/daemon/daemon.h - the wiring: engine, evaluation, journal, outputs, control socket, one loop.
// SPDX-License-Identifier: Apache-2.0
//
// Threads: the loop (engine, evaluation, coverage; whoever calls start() and run()); one for the control
// socket;
//          the journal's committer, the notary and one for each output; one for a reload while it builds.
// Life:    start() brings everything up and drops the privileges, run() loops until SIGTERM, SIGINT or an
//          engine error, and takes everything down in order: final drain, last coverage record, stop record.
// Signals: SIGHUP reloads, SIGTERM and SIGINT stop. block_signals() before any thread is made.
#pragma once

#include <atomic>
#include <chrono>
#include <expected>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/daemon/config.h"
#include "agent/daemon/control_server.h"
#include "agent/daemon/coverage.h"
#include "agent/daemon/evaluation.h"
#include "agent/daemon/liveness.h"
#include "agent/daemon/policy_state.h"
#include "agent/daemon/policy_watch.h"
#include "agent/daemon/record_writer.h"
#include "agent/daemon/rtnetlink.h"
#include "agent/daemon/service_manager.h"
#include "agent/daemon/window_keeper.h"
#include "agent/evidence/notary.h"
#include "agent/journal/journal.h"
#include "agent/metrics/endpoint.h"
#include "agent/outputs/output.h"
#include "capture/engine.h"

namespace egresswatch::daemon {

// SIGHUP, SIGTERM and SIGINT wait in a signalfd for the loop; SIGPIPE is ignored.
void block_signals();

// What an engine found of a predecessor; the ebpf engine knows.
struct Predecessor {
    bool adopted = false;
    std::uint64_t flows = 0;
};

struct DaemonOptions {
    bool drop_privileges = true;                  // off in unit tests, which go on using theirs
    std::vector<int> capabilities{};              // what the engine needs once it has started; all others go
    std::chrono::milliseconds poll_timeout{100};  // the longest that a signal or a control request waits
};

struct ReloadOutcome {
    Timestamp at{};
    bool ok = true;
    std::string trigger;  // "SIGHUP", "control socket", "change on disk", "addresses of this host"
    std::vector<std::string> problems;
    double install_ms = 0;  // until the engine used the new region table, and no other
};

// The policy on disk is not the one in force, because it is broken: visible until it is mended.
struct BrokenPolicy {
    Timestamp since{};
    std::string content_hash;  // of what was refused last; empty where a file cannot be read
    std::uint64_t refusals = 0;
    std::vector<std::string> problems;
};

struct ReloadCounters {
    std::uint64_t accepted = 0;
    std::uint64_t rejected = 0;
    std::uint64_t unchanged = 0;  // something happened on disk, and the contents are what they were
};

class Daemon {
public:
    // Makes the engine once the region table is ready to install.
    using Predecessors = std::function<Predecessor()>;

    // `predecessor` is asked after install_region().
    Daemon(Config config, std::unique_ptr<capture::Engine> engine, Predecessors predecessor = {},
           DaemonOptions options = {});
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    // The error is for the operator: what could not be done, and the cure. Nothing is left behind by it.
    [[nodiscard]] std::expected<void, std::string> start();
    int run();  // the program's exit code
    // One pass of the loop; false when it is time to stop. run() is this, repeated.
    bool step();
    void stop();

    void request_reload(std::string trigger);
    [[nodiscard]] records::Json status();

private:
    std::expected<void, std::string> open_journal();
    std::expected<void, std::string> load_policy_first();
    std::expected<void, std::string> start_threads();
    void begin_coverage(Timestamp now);

    void handle_signals();
    void handle_control();
    std::string answer_question(ControlRequest request, const std::string& line);
    void handle_addresses();
    void watch_policy();
    void handle_policy_changes();
    void begin_build();
    void begin_reload();
    void finish_build();
    void take_into_force(PolicyState next);
    void leave_as_it_is();
    void reject(PolicyProblems problems);
    void write_broken_policy_finding(const PolicyProblems& problems);
    void answer_reloads();
    void write_policy_record(const std::string& event, const std::vector<std::string>& problems);
    void write_coverage(Timestamp now);
    void write_evidence_findings(Timestamp now);
    void write_signs_of_life(Timestamp now);
    records::Json outputs_field() const;  // name, state and lag of each
    void write_loss_findings(const capture::TotalsSnapshot& totals, Timestamp now);
    void write_drop_findings(const capture::TotalsSnapshot& totals, Timestamp now);
    void write_conservation_findings(Timestamp now);
    capture::TotalsSnapshot read_totals() const;
    std::vector<LinkCounters> read_links();
    CoverageContext coverage_context() const;
    std::string status_line() const;
    void save_region_table() const;
    void restore_windows();
    [[nodiscard]] std::optional<Timestamp> take_over_windows();
    void keep_windows();

    [[nodiscard]] std::filesystem::path state_file(const char* name) const {
        return config_.state_dir / name;
    }

    Config config_;
    DaemonOptions options_;
    Predecessors ask_predecessor_;
    Predecessor predecessor_;
    ServiceManager service_;
    records::Origin origin_;
    Timestamp started_{};

    std::unique_ptr<journal::Journal> journal_;
    std::unique_ptr<evidence::Notary> notary_;  // after the journal that it signs: goes first
    std::vector<std::unique_ptr<outputs::Output>> outputs_;
    std::unique_ptr<JournalWriter> writer_;
    std::shared_ptr<const PolicyState> state_;
    std::unique_ptr<Evaluation> evaluation_;
    std::optional<WindowKeeper> windows_;
    std::unique_ptr<capture::Engine> engine_;  // after its sink: goes first
    std::unique_ptr<ControlServer> control_;
    std::unique_ptr<metrics::Endpoint> metrics_;  // a client of the above
    std::optional<Rtnetlink> netlink_;
    std::optional<AddressWatch> address_watch_;
    std::optional<CoverageKeeper> coverage_;
    std::optional<Liveness> liveness_;
    UniqueFd signals_;

    bool engine_running_ = false;
    bool stop_requested_ = false;
    std::string stop_reason_;
    int exit_code_ = 0;

    struct Build {
        std::string trigger;
        // Nothing: the contents are those that are in force, or that were refused already.
        std::future<std::expected<std::optional<PolicyState>, PolicyProblems>> result;
        bool addresses_only = false;
    };
    std::optional<Build> build_;
    std::string reload_wanted_;  // its trigger; empty: none
    bool addresses_changed_ = false;
    std::chrono::steady_clock::time_point addresses_settle_at_{};
    std::optional<PolicyWatch> policy_watch_;
    std::string policy_watch_problem_;
    std::optional<ReloadOutcome> last_reload_;
    std::optional<BrokenPolicy> broken_policy_;
    ReloadCounters reloads_;
    double install_ms_ = 0;                           // of the table in force
    std::vector<std::uint64_t> reload_clients_;       // wait for the build that runs
    std::vector<std::uint64_t> reload_clients_next_;  // wait for the one after it

    std::chrono::steady_clock::time_point coverage_due_{};
    std::uint64_t internal_findings_ = 0;
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses_reported_{};
    std::chrono::steady_clock::time_point loss_finding_after_{};
    std::uint64_t drops_reported_ = 0;
    std::chrono::steady_clock::time_point drop_finding_after_{};
    std::chrono::steady_clock::time_point losses_check_at_{};
    std::chrono::steady_clock::time_point conservation_finding_after_{};
    std::string status_answer_;  // for the requests of one pass
};

}  // namespace egresswatch::daemon
