// agent/cli/learn.cpp - `egresswatch learn`: observes for a time, and proposes allow entries for people to
// review. SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/cli/commands.h"
#include "agent/cli/journal_flows.h"
#include "agent/cli/learn_file.h"
#include "agent/cli/replay_pass.h"
#include "agent/daemon/control_protocol.h"
#include "classifier/region/asn_data.h"
#include "classifier/region/geo_data.h"
#include "rules/values.h"

namespace egresswatch::cli {

namespace {

struct LearnOptions {
    std::string source;  // a capture or a journal; empty: the daemon's live flows
    std::string policy;
    std::string geo;
    std::string socket = daemon::control_socket_default;
    std::string time = "10m";
    std::string bytes_min = "0 B";
    std::string output;
    std::string asn_file;
    std::string group_by = "prefix";
    std::vector<std::string> local_networks;
};

// An observation, and what was left out of it in words.
struct Learned {
    Observation observation;
    std::string source;
    std::string note;
};

ReplayFailure wrong(const std::string& text) {
    return {exit_input, text};
}

class FlowCollector final : public ReplayListener {
public:
    explicit FlowCollector(const ReplayPolicy& policy) {
        if (policy.policy != nullptr) evaluator_.emplace(policy.make_evaluator());
    }
    void on_flow_ended(const FlowUpdate& flow, const ClassInfo& info,
                       const inspect::FlowNames* names) override {
        if (flow.total.bytes_out == 0) return;
        rules::FlowFacts facts;
        if (names != nullptr) add_name_facts(*names, facts);
        if (evaluator_ && evaluator_->allowed_by(flow, info, flow.last_seen, facts) >= 0) return;
        observation.add(Observation::flow_of(flow, info, flow.total));
    }
    void on_finding(const rules::Finding&, const inspect::FlowNames*) override {}

    Observation observation;

private:
    std::optional<rules::Evaluator> evaluator_;
};

std::expected<Learned, ReplayFailure> from_capture(const LearnOptions& options) {
    FlowTableConfig config;
    config.sample_payload = true;
    if (!options.local_networks.empty()) config.local_networks.clear();
    for (const std::string& text : options.local_networks) {
        const auto prefix = Prefix::parse(text);
        if (!prefix) return std::unexpected(wrong("--local-networks: \"" + text + "\" is not a prefix"));
        config.local_networks.push_back(*prefix);
    }
    const auto geo = open_replay_geo(options.geo);
    if (!geo) return std::unexpected(geo.error());
    const auto policy = open_replay_policy(options.policy, *geo, {{}, options.asn_file});
    if (!policy) return std::unexpected(policy.error());
    auto pass = ReplayPass::open(options.source, std::move(config), *policy);
    if (!pass) return std::unexpected(pass.error());
    FlowCollector collector(*policy);
    (*pass)->run(collector, [](const capture::FileProgress&) { return true; });
    if (const auto& damage = (*pass)->damage()) return std::unexpected(wrong(damage->to_string()));
    return Learned{std::move(collector.observation), "capture " + options.source, {}};
}

std::expected<Learned, ReplayFailure> from_journal(const LearnOptions& options) {
    auto flows = JournalFlows::open(options.source);
    if (!flows) return std::unexpected(wrong(flows.error()));
    Learned out;
    flows->for_each([&](const JournalFlow& flow) {
        if (flow.allowed || flow.update.delta.bytes_out == 0) return;
        ClassInfo info;
        if (flow.country != "unknown") info.country = flow.country;
        Observation::Flow seen = Observation::flow_of(flow.update, info, flow.update.delta);
        seen.process = flow.facts.executable;
        out.observation.add(seen);
    });
    out.source = "journal " + flows->directory().string();
    out.note = std::to_string(flows->records()) + " flow records";
    if (flows->skipped() > 0)
        out.note += "; " + std::to_string(flows->skipped()) + " flows had none, for the limit of their rate";
    if (flows->unreadable() > 0)
        out.note += "; " + std::to_string(flows->unreadable()) + " could not be read";
    return out;
}

std::expected<Learned, ReplayFailure> from_daemon(const LearnOptions& options) {
    const auto time = rules::parse_duration(options.time);
    if (!time || time->count() == 0) return std::unexpected(wrong("--for: write a time, as in 10m"));
    constexpr std::chrono::seconds patience{10};
    const auto begun = daemon::ask_daemon(options.socket, "observe", patience, {{"seconds", time->count()}});
    if (!begun) return std::unexpected(ReplayFailure{exit_environment, begun.error()});
    std::fprintf(stderr, "egresswatch learn: observing for %s\n", options.time.c_str());
    std::this_thread::sleep_for(*time);
    const auto answer = daemon::ask_daemon(options.socket, "observed", patience);
    if (!answer) return std::unexpected(ReplayFailure{exit_environment, answer.error()});
    auto observation = Observation::from_json(answer->value("observed", nlohmann::json::object()));
    if (!observation)
        return std::unexpected(
            ReplayFailure{exit_environment, "the daemon's answer cannot be read: is it another version?"});
    return Learned{std::move(*observation), "the daemon's flows, for " + options.time, {}};
}

std::expected<Learned, ReplayFailure> learn(const LearnOptions& options) {
    if (options.source.empty()) return from_daemon(options);
    if (JournalFlows::is_journal(options.source)) return from_journal(options);
    return from_capture(options);
}

int run(const LearnOptions& options) {
    const auto complain = [](const ReplayFailure& failure) {
        std::fprintf(stderr, "egresswatch learn: %s\n", failure.text.c_str());
        return failure.exit_code;
    };
    const auto bytes_min = rules::parse_size(options.bytes_min);
    if (!bytes_min)
        return complain(wrong("--min-bytes: " + bytes_min.error().message + "; " + bytes_min.error().help));
    ProposalOptions how{*bytes_min, {}, options.group_by == "asn"};
    if (how.by_asn && options.asn_file.empty())
        return complain(wrong("--group-by asn needs AS data: name a file with --asn"));
    if (!options.asn_file.empty()) {
        auto asn = AsnData::open(options.asn_file);
        if (!asn) return complain(wrong("--asn: " + asn.error().message));
        how.asn_of = [data = std::move(*asn)](const Address& address) { return data->find(address); };
    }
    const auto learned = learn(options);
    if (!learned) return complain(learned.error());
    const Proposal proposal = propose(learned->observation, {learned->source, "egresswatch learn"}, how);
    std::FILE* out = options.output.empty() ? stdout : std::fopen(options.output.c_str(), "wx");
    if (out == nullptr)
        return complain(
            {exit_environment, options.output + " cannot be made; a file that is there is not overwritten"});
    const bool written =
        std::fwrite(proposal.text.data(), 1, proposal.text.size(), out) == proposal.text.size();
    if ((out == stdout ? std::fflush(out) : std::fclose(out)) != 0 || !written)
        return complain({exit_environment, "cannot write the proposal"});
    std::fprintf(stderr, "egresswatch learn: %zu entries proposed", proposal.entries);
    if (proposal.left_out > 0)
        std::fprintf(stderr, ", %zu destinations below %s left out", proposal.left_out,
                     options.bytes_min.c_str());
    std::fprintf(stderr, "%s%s\n", learned->note.empty() ? "" : "; ", learned->note.c_str());
    return 0;
}

}  // namespace

void add_learn(CLI::App& app, int& exit_code) {
    auto options = std::make_shared<LearnOptions>();
    auto* command =
        app.add_subcommand("learn", "Propose allow entries from what is observed, for people to review");
    command->add_option(
        "SOURCE", options->source,
        "A capture file or a journal directory; without it the flows of the daemon that runs");
    command->add_option("--for", options->time, "How long to observe the daemon's flows")
        ->capture_default_str();
    command->add_option("--policy", options->policy, "Of a capture: what this policy allows is not proposed");
    command->add_option("--geo", options->geo,
                        "Of a capture: compiled geo data (.ewgeo); none: no countries");
    command->add_option("--local-networks", options->local_networks, "Of a capture: prefixes of our end")
        ->delimiter(',');
    command->add_option("--min-bytes", options->bytes_min, "Leave out destinations that got less")
        ->capture_default_str();
    command->add_option("--asn", options->asn_file, "AS data (MaxMind DB): names the AS of each destination");
    command->add_option("--group-by", options->group_by, "One entry for each network, or for each AS")
        ->check(CLI::IsMember({"prefix", "asn"}))
        ->capture_default_str();
    command->add_option("--output", options->output,
                        "Write the file here; one that is there is not overwritten");
    command->add_option("--socket", options->socket, "the daemon's control socket")->capture_default_str();
    command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace egresswatch::cli
