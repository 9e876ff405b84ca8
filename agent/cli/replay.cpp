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
#include <optional>
#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/replay_output.h"
#include "agent/geo_path.h"
#include "agent/records/body.h"
#include "agent/records/record.h"
#include "capture/userspace/file_engine.h"
#include "classifier/region/geo_data.h"
#include "classifier/region/region_table.h"
#include "rules/evaluator.h"
#include "rules/policy.h"
#include "rules/region_groups.h"

namespace egresswatch::cli {
namespace {

constexpr int exit_bad = 1;
constexpr int exit_input = 2;
constexpr int exit_environment = 3;
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

// Receives the engine's updates, asks the policy, prints.
class ReplaySink final : public FlowSink {
public:
    ReplaySink(const ReplayOptions& options, const RegionTable& region,
               std::shared_ptr<const rules::Policy> policy)
        : options_(options), region_(region) {
        if (policy != nullptr)
            evaluator_.emplace(std::move(policy), [&region](const Address& address) {
                return &region.class_info(region.lookup(address));
            });
    }
    void attach(capture::Engine& engine) { engine_ = &engine; }

    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override {
        for (const FlowUpdate& update : updates) {
            const ClassInfo& info = region_.class_info(update.key.class_id);
            if (evaluator_) evaluate(update, info, now);
            if (update.reason != UpdateReason::ended) continue;
            ++flows_;
            if (!options_.flows) continue;
            append_flow_line(out_, update, info);
            if (out_.size() > output_flush_bytes) flush();
        }
        if (evaluator_ && updates.empty()) {
            evaluator_->advance(now, findings_);
            print_findings();
        }
    }
    void flush() {
        std::fwrite(out_.data(), 1, out_.size(), stdout);
        out_.clear();
    }
    [[nodiscard]] std::uint64_t flows() const noexcept { return flows_; }
    [[nodiscard]] std::uint64_t findings() const noexcept { return findings_count_; }

private:
    void evaluate(const FlowUpdate& update, const ClassInfo& info, Timestamp now) {
        evaluator_->evaluate(update, info, now, findings_);
        print_findings();
        if (update.reason == UpdateReason::ended) return;
        const std::uint64_t more = evaluator_->bytes_until_next(update, info);
        if (more != rules::Evaluator::never) engine_->notify_at(update.key, update.total.bytes_out + more);
    }
    void print_findings() {
        for (const auto& finding : findings_) {
            ++findings_count_;
            // Where flows or totals are asked for, standard output holds nothing else.
            if (options_.flows || options_.totals) continue;
            const records::Json record = records::finding_record(origin_, finding);
            out_ += options_.json ? record.dump() : records::text_line(record);
            out_ += '\n';
            flush();
        }
        findings_.clear();
    }

    const ReplayOptions& options_;
    const RegionTable& region_;
    std::optional<rules::Evaluator> evaluator_;
    capture::Engine* engine_ = nullptr;
    // Neither host nor site: a capture gives the same lines wherever it is replayed.
    records::Origin origin_{"", "replay", "", EGRESSWATCH_VERSION};
    std::vector<rules::Finding> findings_;
    std::string out_;
    std::uint64_t flows_ = 0;
    std::uint64_t findings_count_ = 0;
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

std::expected<GeoData, std::string> open_geo(const std::string& option) {
    if (option == "none") {  // one segment over each family, without a country
        auto empty = GeoData::from_parts({}, {GeoSegment4{}}, {GeoSegment6{}});
        if (!empty) return std::unexpected(empty.error().message);
        return std::move(*empty);
    }
    const auto path = find_geo_file(option);
    if (!path) return std::unexpected(path.error() + "; --geo none replays without countries");
    auto data = GeoData::open(*path);
    if (!data) return std::unexpected(data.error().message);
    return std::move(*data);
}

// Without a policy the EEA is home, as of the day the table of regions was last reviewed: not today's date,
// which would let the same command give other answers tomorrow.
RegionSpec default_region() {
    RegionSpec spec;
    if (const auto* group = rules::find_region_group("EEA"))
        spec.home_countries = rules::members(*group, rules::region_groups_reviewed());
    return spec;
}

std::expected<std::shared_ptr<const rules::Policy>, int> open_policy(const std::string& path) {
    if (path.empty()) return nullptr;
    auto loaded = rules::load_policy(path);
    const auto print = [](const std::vector<rules::Diagnostic>& diagnostics) {
        for (const auto& diagnostic : diagnostics)
            std::fputs(rules::format_diagnostic(diagnostic, isatty(STDERR_FILENO) != 0).c_str(), stderr);
    };
    if (!loaded) {
        print(loaded.error());
        return std::unexpected(complain(
            exit_input, path + ": " + rules::format_counts(loaded.error()) + "; nothing was replayed"));
    }
    print(loaded->warnings);
    return loaded->policy;
}

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
    const auto policy = open_policy(options.policy);
    if (!policy) return policy.error();
    const auto geo = open_geo(options.geo);
    if (!geo) return complain(exit_input, geo.error());
    const auto region =
        compile_region_table(*geo, *policy != nullptr ? (*policy)->region_spec() : default_region());
    if (!region) return complain(exit_input, region.error().message);
    auto engine = capture::FileEngine::open(options.file, std::move(*config));
    if (!engine) return complain(exit_input, engine.error().to_string());

    ReplaySink sink(options, **region, *policy);
    sink.attach(**engine);
    (void)(*engine)->install_region(**region);
    (void)(*engine)->start(sink);
    {
        ProgressLine line;
        while (!(*engine)->finished()) {
            (void)(*engine)->poll(std::chrono::milliseconds(0));
            line.show((*engine)->progress());
            if (std::ferror(stdout) != 0) break;
        }
    }
    (*engine)->stop();
    sink.flush();

    const auto totals = (*engine)->totals();
    const ClassInfoOf class_of = [&](std::uint16_t id) -> const ClassInfo& {
        return (*region)->class_info(id);
    };
    if (options.totals) std::puts(totals_line(totals, (*engine)->progress(), class_of).c_str());
    if (!options.flows && !options.totals && !options.json)
        std::fputs(
            totals_table(totals, (*engine)->progress(), class_of, sink.flows(), sink.findings()).c_str(),
            stdout);
    warn_of_losses(totals, (*engine)->table());
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
        return complain(exit_environment, "cannot write to standard output");
    if (const auto& damage = (*engine)->damage())
        return complain(exit_input, damage->to_string() + " (everything before it was counted)");
    return options.fail_on_findings && sink.findings() > 0 ? exit_bad : 0;
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
