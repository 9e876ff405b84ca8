// agent/cli/replay.cpp - `egresswatch replay`: a capture file through classifier and policy, the same way
// each time.
//
// In:      a pcap or pcapng file.   Out: findings, flows or totals on standard output; all else on standard
// error. Clock:   packet time. The wall clock is read only to pace the progress line.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/replay_output.h"
#include "agent/cli/replay_pass.h"
#include "agent/records/body.h"
#include "agent/records/record.h"
#include "classifier/region/geo_data.h"

namespace egresswatch::cli {
namespace {

constexpr std::size_t output_flush_bytes = 64 * 1024;

struct ReplayOptions {
    std::string file;
    std::string policy;
    std::string geo;
    std::vector<std::string> local_networks;
    std::string track = "outside";
    bool flows = false;
    bool totals = false;
    bool json = false;
    bool fail_on_findings = false;
    std::uint32_t flow_slots = 1u << 24;
    std::uint32_t idle_timeout = 0;  // seconds; 0: a flow lasts as long as the file
};

int complain(int code, const std::string& text) {
    std::fprintf(stderr, "egresswatch replay: %s\n", text.c_str());
    return code;
}

// Prints flows or findings to standard output. Where flows or totals are asked for, no findings.
class Printer final : public ReplayListener {
public:
    explicit Printer(const ReplayOptions& options) : options_(options) {}

    void on_flow_ended(const FlowUpdate& flow, const ClassInfo& info) override {
        if (!options_.flows) return;
        append_flow_line(out_, flow, info);
        if (out_.size() > output_flush_bytes) flush();
    }
    void on_finding(const rules::Finding& finding) override {
        if (options_.flows || options_.totals) return;
        const records::Json record = records::finding_record(origin_, finding);
        out_ += options_.json ? record.dump() : records::text_line(record);
        out_ += '\n';
        flush();
    }
    void flush() {
        std::fwrite(out_.data(), 1, out_.size(), stdout);
        out_.clear();
    }

private:
    const ReplayOptions& options_;
    // Neither host nor site: a capture gives the same lines wherever it is replayed.
    records::Origin origin_{"", "replay", "", EGRESSWATCH_VERSION};
    std::string out_;
};

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
    config.idle_timeout = std::chrono::seconds(options.idle_timeout);
    for (const std::string& text : options.local_networks) {
        const auto prefix = Prefix::parse(text);
        if (!prefix)
            return std::unexpected(complain(
                exit_input, "--local-networks: \"" + text +
                                "\" is not a prefix; write 192.0.2.0/24 or 2001:db8::/32, host bits zero"));
        config.local_networks.push_back(*prefix);
    }
    return config;
}

void warn_of_losses(const capture::TotalsSnapshot& totals, const FlowTable& table) {
    if (totals.losses[datapath::LOSS_FLOWS_FULL] != 0)
        (void)complain(0,
                       "the flow table is full: " + std::to_string(totals.losses[datapath::LOSS_FLOWS_FULL]) +
                           " packets are in the totals only; raise --flow-slots or set --idle-timeout");
    if (table.directions_forgotten() != 0)
        (void)complain(0, "too many conversations to remember who sent first: the direction of " +
                              std::to_string(table.directions_forgotten()) +
                              " packets is a guess; give --local-networks");
}

int run_replay(const ReplayOptions& options) {
    auto config = table_config(options);
    if (!config) return config.error();
    const auto geo = open_replay_geo(options.geo);
    if (!geo) return complain(geo.error().exit_code, geo.error().text);
    auto policy = open_replay_policy(options.policy, *geo);
    if (!policy) return complain(policy.error().exit_code, policy.error().text);
    auto opened = ReplayPass::open(options.file, std::move(*config), std::move(*policy));
    if (!opened) return complain(opened.error().exit_code, opened.error().text);
    ReplayPass& pass = **opened;

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
    if (!options.flows && !options.totals && !options.json)
        std::fputs(totals_table(totals, pass.progress(), class_of, pass.flows(), pass.findings()).c_str(),
                   stdout);
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
    command->add_option("--geo", options->geo, "Compiled geo data (.ewgeo); none: no countries");
    command
        ->add_option("--local-networks", options->local_networks,
                     "Prefixes of our end, comma separated; without them the end that sent first is ours")
        ->delimiter(',');
    command->add_flag("--flows", options->flows, "Print one JSON object for each flow");
    command->add_flag("--totals", options->totals, "Print one JSON object with the totals");
    command->add_option("--track", options->track, "Which flows: outside (and unknown), or all")
        ->check(CLI::IsMember({"outside", "all"}))
        ->capture_default_str();
    command->add_flag("--json", options->json, "Print findings as JSON lines");
    command->add_flag("--fail-on-findings", options->fail_on_findings, "Exit with 1 if there are findings");
    command
        ->add_option("--flow-slots", options->flow_slots,
                     "Flow table grows up to this many slots (64 to 67108864)")
        ->check(CLI::Range(FlowTableConfig::slots_floor, FlowTableConfig::slots_ceiling))
        ->capture_default_str();
    command
        ->add_option("--idle-timeout", options->idle_timeout,
                     "Seconds without packets after which a flow ends; 0: never within the file")
        ->check(CLI::Range(0u, 86400u))
        ->capture_default_str();
    command->callback([options, &exit_code] { exit_code = run_replay(*options); });
}

}  // namespace egresswatch::cli
