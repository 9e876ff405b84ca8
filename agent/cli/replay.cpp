// agent/cli/replay.cpp - `egresswatch replay`: a capture file through classifier and policy, the same way
// each time.
//
// In:      a pcap or pcapng file.   Out: findings, flows or totals on standard output; all else on standard
// error. Clock:   packet time. The wall clock is read only to pace the progress line.
// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/journal_flows.h"
#include "agent/cli/replay_diff.h"
#include "agent/cli/replay_output.h"
#include "agent/cli/replay_pass.h"
#include "agent/records/body.h"
#include "agent/records/record.h"
#include "classifier/region/geo_data.h"

namespace egresswatch::cli {
namespace {

constexpr std::size_t output_flush_bytes = 64 * 1024;
constexpr std::uint64_t memory_unit = 1u << 20;  // --memory-max is in MiB
constexpr std::uint64_t memory_units_max = 1u << 20;

struct ReplayOptions {
    std::string file;
    std::string policy;
    std::string old_policy, new_policy;  // both or neither
    std::string geo;
    ReplayHost host;
    std::vector<std::string> local_networks;
    std::vector<std::string> resolvers;
    std::string track = "outside";
    bool flows = false;
    bool totals = false;
    bool summary = false;
    bool json = false;  // the same as format "json"
    std::string format = "text";
    std::string speed = "max";
    unsigned jobs = 1;
    bool fail_on_findings = false;
    bool no_names = false;
    std::uint32_t flow_slots = 1u << 24;
    std::uint64_t memory_max = 0;      // MiB; 0: as flow_slots say
    std::uint32_t idle_timeout = 0;    // seconds; 0: a flow lasts as long as the file
    std::uint32_t active_timeout = 0;  // seconds; 0: a flow is told when it ends
    [[nodiscard]] bool as_csv() const { return format == "csv"; }
    [[nodiscard]] bool only_findings() const { return !flows && !totals && !summary; }
};

int complain(int code, const std::string& text) {
    std::fprintf(stderr, "egresswatch replay: %s\n", text.c_str());
    return code;
}

// Prints flows or findings to standard output as they come. Where anything else is asked for, no findings.
class Printer final : public ReplayListener {
public:
    explicit Printer(const ReplayOptions& options) : options_(options) {
        if (!options.as_csv()) return;
        if (options.flows) out_ = flow_csv_head();
        if (options.only_findings()) out_ = finding_csv_head();
    }
    void on_flow_ended(const FlowUpdate& flow, const ClassInfo& info,
                       const inspect::FlowNames* names) override {
        counts_.add_flow(flow.key.class_id);
        if (options_.flows) print(flow, info, names);
    }
    void on_flow_lasting(const FlowUpdate& flow, const ClassInfo& info,
                         const inspect::FlowNames* names) override {
        if (options_.flows) print(flow, info, names);
    }
    void on_finding(const rules::Finding& finding, const inspect::FlowNames* names) override {
        counts_.add_finding(finding.info);
        if (!options_.only_findings()) return;
        if (options_.as_csv()) {
            append_finding_csv(out_, finding, names);
        } else {
            records::Json record = records::finding_record(origin_, finding);
            records::name_record(record, names);
            out_ += options_.json ? record.dump() : records::text_line(record);
            out_ += '\n';
        }
        flush();
    }
    [[nodiscard]] bool wants_flow_names() const noexcept override { return options_.flows; }
    void flush() {
        std::fwrite(out_.data(), 1, out_.size(), stdout);
        out_.clear();
    }
    [[nodiscard]] const ReplayCounts& counts() const noexcept { return counts_; }

private:
    void print(const FlowUpdate& flow, const ClassInfo& info, const inspect::FlowNames* names) {
        if (options_.as_csv())
            append_flow_csv(out_, flow, info, names);
        else
            append_flow_line(out_, flow, info, names);
        if (out_.size() > output_flush_bytes) flush();
    }

    const ReplayOptions& options_;
    // Neither host nor site: a capture gives the same lines wherever it is replayed.
    records::Origin origin_{"", "replay", "", EGRESSWATCH_VERSION};
    std::string out_;
    ReplayCounts counts_;
};

// A file that somebody makes shorter while a piece of it is mapped: the bytes that are gone raise SIGBUS.
// What was counted so far cannot be told apart from what was not: nothing is printed, and the exit code says
// so.
void on_file_shrunk(int) {
    constexpr char text[] =
        "egresswatch replay: the file became shorter while it was read; the result would not be exact\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(exit_input);
}

// A line on a terminal, twice a second, for files that take longer than that.
class ProgressLine {
public:
    ProgressLine() : enabled_(isatty(STDERR_FILENO) != 0), next_(Clock::now() + period) {}
    void show(const capture::FileProgress& progress) {
        if (!enabled_ || Clock::now() < next_) return;
        next_ = Clock::now() + period;
        shown_ = true;
        std::fprintf(stderr, "\r%llu packets", static_cast<unsigned long long>(progress.packets));
        if (progress.bytes_total && *progress.bytes_total > 0)
            std::fprintf(stderr, ", %llu %%",
                         static_cast<unsigned long long>(progress.bytes_read * 100 / *progress.bytes_total));
        std::fflush(stderr);
    }
    ~ProgressLine() {
        if (shown_) std::fprintf(stderr, "\r\033[K");
    }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds period{500};
    bool enabled_;
    bool shown_ = false;
    Clock::time_point next_;
};

std::expected<FlowTableConfig, int> table_config(const ReplayOptions& options) {
    FlowTableConfig config;
    config.slots_max = options.flow_slots;
    config.track_all = options.track == "all";
    config.sample_payload = !options.no_names;
    config.memory_max_bytes = options.memory_max * memory_unit;
    config.idle_timeout = std::chrono::seconds(options.idle_timeout);
    config.active_timeout = std::chrono::seconds(options.active_timeout);
    if (!options.local_networks.empty()) config.local_networks.clear();
    if (options.local_networks == std::vector<std::string>{"none"}) return config;
    for (const std::string& text : options.local_networks) {
        const auto prefix = Prefix::parse(text);
        if (!prefix)
            return std::unexpected(complain(
                exit_input,
                "--local-networks: \"" + text +
                    "\" is not a prefix; write 192.0.2.0/24 or 2001:db8::/32, host bits zero, or none"));
        config.local_networks.push_back(*prefix);
    }
    return config;
}

// 0 where each is a word that it may be.
int take_resolvers(ReplayOptions& options) {
    if (options.resolvers.empty()) return 0;
    options.host.resolvers = {};
    for (const std::string& word : options.resolvers)
        if (!add_resolver(word, options.host.resolvers))
            return complain(exit_input, "--resolvers: \"" + word +
                                            "\" is neither any, system or local, nor an address or a prefix");
    return 0;
}

void warn_of_losses(const capture::TotalsSnapshot& totals, const FlowTable& table) {
    if (totals.losses[datapath::LOSS_FLOWS_FULL] != 0)
        (void)complain(
            0,
            "the flow table is full: " + std::to_string(totals.losses[datapath::LOSS_FLOWS_FULL]) +
                " packets are in the totals only; raise --flow-slots or --memory-max, or set --idle-timeout");
    if (table.directions_forgotten() != 0)
        (void)complain(0, "too many conversations to remember who sent first: the direction of " +
                              std::to_string(table.directions_forgotten()) +
                              " packets is a guess; give --local-networks");
}

std::expected<capture::FileEngineOptions, int> engine_options(const ReplayOptions& options) {
    capture::FileEngineOptions out;
    out.jobs = options.jobs;
    if (options.speed == "max") return out;
    if (options.speed == "realtime") {
        out.speed = 1;
        return out;
    }
    const char* end = options.speed.data() + options.speed.size();
    const auto parsed = std::from_chars(options.speed.data(), end, out.speed);
    if (parsed.ec == std::errc() && parsed.ptr == end && out.speed > 0 && out.speed <= 1e9) return out;
    return std::unexpected(complain(
        exit_input,
        "--speed: \"" + options.speed + "\" is neither max, nor realtime, nor a factor such as 10 or 0.5"));
}

// Options that contradict each other; 0 where they do not.
int check_options(ReplayOptions& options) {
    if (options.json && options.as_csv())
        return complain(exit_input, "--json and --format csv exclude each other");
    if (options.json) options.format = "json";
    options.json = options.format == "json";
    if (!options.as_csv()) return 0;
    if (options.totals)
        return complain(exit_input, "--totals is JSON only; for a table of countries give --summary");
    if (options.flows && options.summary)
        return complain(exit_input, "a CSV file is one table: give either --flows or --summary");
    return 0;
}

int run_replay(ReplayOptions& options) {
    if (const int wrong = check_options(options); wrong != 0) return wrong;
    if (const int wrong = take_resolvers(options); wrong != 0) return wrong;
    auto config = table_config(options);
    if (!config) return config.error();
    if (!options.old_policy.empty() && options.as_csv())
        return complain(exit_input, "--old and --new are told as text or JSON");
    if (!options.old_policy.empty())
        return replay_difference({options.file, options.old_policy, options.new_policy, options.geo,
                                  options.host, std::move(*config), options.json, options.fail_on_findings});
    if (JournalFlows::is_journal(options.file))
        return complain(exit_input,
                        options.file + " is a journal: compare two policies over it, by --old and --new");
    const auto geo = open_replay_geo(options.geo);
    if (!geo) return complain(geo.error().exit_code, geo.error().text);
    auto policy = open_replay_policy(options.policy, *geo, options.host);
    if (!policy) return complain(policy.error().exit_code, policy.error().text);
    const auto engine = engine_options(options);
    if (!engine) return engine.error();
    auto opened = ReplayPass::open(options.file, std::move(*config), std::move(*policy), *engine);
    if (!opened) return complain(opened.error().exit_code, opened.error().text);
    ReplayPass& pass = **opened;

    struct sigaction shrunk {};
    shrunk.sa_handler = on_file_shrunk;
    (void)sigaction(SIGBUS, &shrunk, nullptr);
    Printer printer(options);
    {
        ProgressLine line;
        pass.run(printer, [&](const capture::FileProgress& progress) {
            line.show(progress);
            return std::ferror(stdout) == 0;
        });
    }
    printer.flush();

    const auto totals = pass.totals();
    const ClassInfoOf class_of = [&](std::uint16_t id) -> const ClassInfo& { return pass.class_info(id); };
    if (options.totals) std::puts(totals_line(totals, pass.progress(), class_of).c_str());
    if (options.summary && options.json) std::puts(summary_line(totals, class_of, printer.counts()).c_str());
    if (options.summary && options.as_csv())
        std::fputs(summary_csv(totals, class_of, printer.counts()).c_str(), stdout);
    if (options.format == "text" && (options.summary || options.only_findings()))
        std::fputs(totals_table(totals, pass.progress(), class_of, printer.counts()).c_str(), stdout);
    warn_of_losses(totals, pass.table());
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
        return complain(exit_environment, "cannot write to standard output");
    if (const auto& damage = pass.damage())
        return complain(exit_input, damage->to_string() + " (everything before it was counted)");
    return options.fail_on_findings && pass.findings() > 0 ? exit_bad : 0;
}

}  // namespace

void add_replay(CLI::App& app, int& exit_code) {
    auto* command = app.add_subcommand(
        "replay", "Run a capture file through the classifier and a policy, on packet time");
    auto options = std::make_shared<ReplayOptions>();
    command->add_option("FILE", options->file, "pcap or pcapng file; - is standard input")->required();
    command->add_option("--policy", options->policy,
                        "Policy directory or file; without it no rules, the EEA is home");
    auto* old_policy = command->add_option("--old", options->old_policy,
                                           "With --new: what another policy would find more, and what less");
    auto* new_policy =
        command->add_option("--new", options->new_policy, "The other policy. FILE may then be a journal");
    old_policy->needs(new_policy);
    new_policy->needs(old_policy);
    command->add_option("--geo", options->geo, "Compiled geo data (.ewgeo); none: no countries");
    command->add_option("--site", options->host.site,
                        "The site whose host it is; without it no rule that names sites");
    command->add_option("--asn", options->host.asn_file,
                        "MaxMind DB with AS numbers; without it they are unknown");
    command
        ->add_option(
            "--local-networks", options->local_networks,
            "Prefixes of our end, comma separated; without them private addresses; none: no prefix at all")
        ->delimiter(',');
    command
        ->add_option(
            "--resolvers", options->resolvers,
            "Name servers whose answers count: any, local (the default), system, addresses, prefixes")
        ->delimiter(',');
    command->add_flag("--flows", options->flows, "Print one JSON object for each flow");
    command->add_flag("--totals", options->totals, "Print one JSON object with the totals");
    command->add_option("--track", options->track, "Which flows: outside (and unknown), or all")
        ->check(CLI::IsMember({"outside", "all"}))
        ->capture_default_str();
    command->add_flag("--summary", options->summary,
                      "Print the summary only: bytes, flows, findings by country");
    command
        ->add_option(
            "--format", options->format,
            "text, json or csv: of findings (the default), of --flows (JSON also with text), of --summary")
        ->check(CLI::IsMember({"text", "json", "csv"}))
        ->capture_default_str();
    command->add_flag("--json", options->json, "The same as --format json");
    command->add_option("--jobs", options->jobs, "Cores to use; the output is the same with any number")
        ->check(CLI::Range(1u, capture::FileEngineOptions::jobs_max))
        ->capture_default_str();
    command
        ->add_option("--speed", options->speed,
                     "max, realtime, or how many times as fast as the packets came; on one core, but for max")
        ->capture_default_str();
    command->add_flag("--no-names", options->no_names,
                      "Leave payload alone: flows have no names, protocols and fingerprints");
    command->add_flag("--fail-on-findings", options->fail_on_findings,
                      "Exit with 1 if there are findings; with --old and --new: if any is gained or lost");
    command
        ->add_option("--flow-slots", options->flow_slots,
                     "Flow table grows up to this many slots (64 to 67108864)")
        ->check(CLI::Range(FlowTableConfig::slots_floor, FlowTableConfig::slots_ceiling))
        ->capture_default_str();
    command
        ->add_option("--memory-max", options->memory_max,
                     "MiB that flows and conversations may take; 0: what --flow-slots allow")
        ->check(CLI::Range(std::uint64_t{0}, memory_units_max))
        ->capture_default_str();
    command
        ->add_option(
            "--active-timeout", options->active_timeout,
            "With --flows: a flow that lives is printed each time that it is so many seconds older; 0: never")
        ->check(CLI::Range(0u, 86400u))
        ->capture_default_str();
    command
        ->add_option("--idle-timeout", options->idle_timeout,
                     "Seconds without packets after which a flow ends; 0: never within the file")
        ->check(CLI::Range(0u, 86400u))
        ->capture_default_str();
    command->callback([options, &exit_code] { exit_code = run_replay(*options); });
}

}  // namespace egresswatch::cli
