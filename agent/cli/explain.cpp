// agent/cli/explain.cpp - `egresswatch explain`: why a flow is, or is not, a finding.
// SPDX-License-Identifier: Apache-2.0
#include "agent/explain.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <sstream>

#include "agent/cli/commands.h"
#include "agent/cli/journal_flows.h"
#include "agent/cli/replay_pass.h"
#include "agent/daemon/control_protocol.h"
#include "agent/flow_class.h"
#include "agent/journal/reader.h"
#include "agent/records/body.h"
#include "agent/records/ecs.h"
#include "agent/records/flow_reader.h"
#include "classifier/region/geo_data.h"
#include "rules/values.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

struct ExplainOptions {
    std::string id;  // of a finding
    std::vector<std::string> flow;
    std::string initiator = "local";
    std::string tunnel = "none";
    std::string outer_remote;
    std::string policy;
    std::string geo;
    std::string replay;
    std::string journal = "/var/lib/egresswatch";
    std::string socket = daemon::control_socket_default;
    bool json = false;
    std::string name, app, executable, sha256, user, unit, cgroup, container;  // of --flow
    std::optional<std::uint32_t> uid;
    std::vector<std::string> dns;
    ReplayHost host;
};

ReplayFailure wrong(std::string text) {
    return {exit_input, std::move(text)};
}

// "192.0.2.1:443", "[2001:db8::1]:443", or an address without a port.
std::optional<std::pair<Address, std::uint16_t>> parse_end(std::string_view text) {
    std::string_view address = text, port;
    const std::size_t colon = text.rfind(':');
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos) return std::nullopt;
        address = text.substr(1, end - 1);
        if (end + 1 < text.size()) port = text.substr(end + 2);
    } else if (colon != std::string_view::npos && text.find(':') == colon) {
        address = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    const auto parsed = Address::parse(address);
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (!parsed || (!port.empty() && (error != std::errc{} || end != port.data() + port.size())))
        return std::nullopt;
    return std::pair{*parsed, number};
}

std::expected<Json, ReplayFailure> flow_of_options(const ExplainOptions& options) {
    const auto local = parse_end(options.flow[0]), remote = parse_end(options.flow[1]);
    if (!local || !remote)
        return std::unexpected(
            wrong("--flow: write both ends as in 10.0.0.5:50000 203.0.113.9:443 tcp, IPv6 in brackets"));
    const auto protocol = rules::parse_l4_proto(options.flow[2]);
    if (!protocol)
        return std::unexpected(wrong("--flow: " + protocol.error().message + "; " + protocol.error().help));
    Json out{{"local", local->first.to_string()},
             {"remote", remote->first.to_string()},
             {"local_port", local->second},
             {"remote_port", remote->second},
             {"l4_proto", *protocol},
             {"initiator", options.initiator},
             {"tunnel", options.tunnel}};
    if (options.tunnel != "none") {
        const auto outer = Address::parse(options.outer_remote);
        if (!outer)
            return std::unexpected(wrong("--outer-remote: a tunnel needs the address of its far end"));
        out["outer_remote"] = outer->to_string();
        out["outer_local"] = local->first.to_string();
    }
    return out;
}

// "dublin-web7-4711-17f3...": host, number and time; or the number alone.
std::optional<std::uint64_t> sequence_of(std::string_view id) {
    if (const std::size_t last = id.rfind('-'); last != std::string_view::npos) {
        id = id.substr(0, last);
        id = id.substr(id.rfind('-') + 1);
    }
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc{} || end != id.data() + id.size() || number == 0) return std::nullopt;
    return number;
}

std::expected<Json, ReplayFailure> find_finding(const ExplainOptions& options) {
    const auto number = sequence_of(options.id);
    if (!number)
        return std::unexpected(wrong(
            "\"" + options.id + "\" is no finding's id; write its event.id, or its number in the journal"));
    const auto flows = JournalFlows::open(options.journal);
    if (!flows) return std::unexpected(wrong(flows.error()));
    const auto entry = journal::Reader::of_directory(flows->directory(), *number - 1)->next();
    const Json record = entry && entry->seq == *number ? Json::parse(entry->line, nullptr, false) : Json();
    if (!record.is_object())
        return std::unexpected(
            wrong("the journal has no record " + std::to_string(*number) + " any more, or not yet"));
    if (record.value("kind", "") != "finding")
        return std::unexpected(wrong("record " + std::to_string(*number) + " is no finding, but of kind " +
                                     record.value("kind", "?")));
    if (options.id.find('-') != std::string::npos &&
        records::ecs_document(record)["event"]["id"] != options.id)
        return std::unexpected(wrong("record " + std::to_string(*number) + " has another id: " +
                                     records::ecs_document(record)["event"]["id"].get<std::string>()));
    return record;
}

bool same_ends(const FlowUpdate& a, const FlowUpdate& b) {
    return a.local() == b.local() && a.remote() == b.remote() && a.key.local_port == b.key.local_port &&
           a.key.remote_port == b.key.remote_port && a.key.l4_proto == b.key.l4_proto;
}

// How far packet time went, and what was heard of one flow.
class Witness final : public ReplayListener {
public:
    explicit Witness(const FlowUpdate& flow) : flow_(flow) {}
    void on_flow_ended(const FlowUpdate& flow, const ClassInfo&, const inspect::FlowNames* names) override {
        reached = std::max(reached, flow.last_seen);
        if (!same_ends(flow, flow_)) return;
        heard = owned_facts_of(names);
        seen = flow;
    }
    void on_finding(const rules::Finding& finding, const inspect::FlowNames*) override {
        reached = std::max(reached, finding.time);
    }
    Timestamp reached{};
    rules::OwnedFacts heard;
    std::optional<FlowUpdate> seen;

private:
    const FlowUpdate& flow_;
};

// A flow that was only named has the volume and the time that were seen of it.
FlowUpdate with_volume(FlowUpdate flow, const std::optional<FlowUpdate>& seen) {
    if (!seen || flow.total != FlowCounters{}) return flow;
    flow.total = seen->total;
    flow.first_seen = seen->first_seen;
    flow.last_seen = seen->last_seen;
    return flow;
}

// Without the daemon: the policy, and windows as a capture or journal fills them, or empty ones.
std::expected<Json, ReplayFailure> explain_offline(const ExplainOptions& options, const FlowUpdate& flow,
                                                   rules::OwnedFacts known) {
    const auto geo = open_replay_geo(options.geo);
    if (!geo) return std::unexpected(geo.error());
    const auto policy = open_replay_policy(options.policy, *geo, options.host);
    if (!policy) return std::unexpected(policy.error());
    const RegionTable& table = *policy->region;
    rules::Evaluator evaluator = policy->make_evaluator();
    Timestamp now =
        flow.last_seen != Timestamp{}
            ? flow.last_seen
            : std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
    if (options.replay.empty()) return explain_flow({evaluator, *geo, table, now}, flow, known);
    if (JournalFlows::is_journal(options.replay)) {
        auto flows = JournalFlows::open(options.replay);
        if (!flows) return std::unexpected(wrong(flows.error()));
        std::vector<rules::Finding> findings;
        Timestamp reached = Timestamp::min();
        std::optional<FlowUpdate> seen;
        // A finding is explained as of its own time; a flow that is asked about, as of the end of the
        // journal.
        flows->for_each([&](const JournalFlow& recorded) {
            if (flow.last_seen != Timestamp{} && recorded.update.last_seen > flow.last_seen) return;
            if (same_ends(recorded.update, flow)) {
                if (known.said_nothing()) known = recorded.facts;
                seen = recorded.update;
            }
            FlowUpdate update = recorded.update;
            update.key.class_id = flow_class(table, update);
            reached = std::max(reached, update.last_seen);
            policy->evaluate(evaluator, update, recorded.facts, reached, findings);
            findings.clear();
        });
        return explain_flow({evaluator, *geo, table, flows->records() == 0 ? now : reached},
                            with_volume(flow, seen), known);
    }
    FlowTableConfig config;
    config.sample_payload = true;
    auto pass = ReplayPass::open(options.replay, std::move(config), *policy);
    if (!pass) return std::unexpected(pass.error());
    Witness witness(flow);
    (*pass)->run(witness, [](const capture::FileProgress&) { return true; });
    if (known.said_nothing()) known.take_names(std::move(witness.heard));
    return explain_flow({*(*pass)->evaluator(), *geo, table, witness.reached},
                        with_volume(flow, witness.seen), known);
}

std::expected<Json, ReplayFailure> ask_the_daemon(const ExplainOptions& options, const Json& record) {
    const auto answer = daemon::ask_daemon(options.socket, "explain", std::chrono::seconds(10), record);
    if (!answer)
        return std::unexpected(ReplayFailure{
            exit_environment, answer.error() + "; --policy explains without the daemon, with empty windows"});
    return Json(answer->value("explanation", nlohmann::json::object()));
}

std::string text(const Json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end() || found->is_null()) return "-";
    return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string end_text(const char* what, const Json& end) {
    std::string out = fmt::format("{} {}: {}, country {}", what, text(end, "address"), text(end, "class"),
                                  text(end, "country"));
    out += end["prefix"].is_null() ? fmt::format("; no source knows it ({})", text(end, "source"))
                                   : fmt::format("; by {} of {}", text(end, "prefix"), text(end, "source"));
    if (!end["recorded"].is_null() && end["recorded"] != end["country"])
        out += fmt::format(", which has {}", text(end, "recorded"));
    if (end["disputed"] == true) out += "; the sources disagree";
    std::string lists;
    for (const Json& list : end["lists"]) lists += (lists.empty() ? "" : ", ") + list.get<std::string>();
    return out + (lists.empty() ? "" : "; in " + lists) + "\n";
}

std::string rule_text(const Json& rule) {
    if (rule["counts"] != true)
        return fmt::format("  {}: does not count it: {}\n", text(rule, "id"), text(rule, "why_not"));
    std::string group;
    for (const auto& [name, value] : rule["group"].items())
        group += (group.empty() ? "" : ", ") + name + " " + value.get<std::string>();
    const auto value = rule["value"].get<std::uint64_t>(), threshold = rule["threshold"].get<std::uint64_t>();
    const double full =
        threshold == 0 ? 0 : 100.0 * static_cast<double>(value) / static_cast<double>(threshold);
    const std::string second = rule.value("second", std::string());
    return fmt::format("  {}: counts it ({}); {} of {} {} within {}, {:.1f} % full{}{}\n", text(rule, "id"),
                       group.empty() ? "the whole host" : group, value, threshold, text(rule, "measure"),
                       rules::to_text(std::chrono::seconds(rule["window_s"].get<std::int64_t>())), full,
                       rule["suppressed"] == true ? "; a finding of this group is suppressed now" : "",
                       second.empty() ? "" : "; " + second);
}

std::string to_text(const Json& explanation) {
    const Json& flow = explanation["flow"];
    std::string out =
        fmt::format("flow {}:{} - {}:{} {}, {} connected, at {}\n", text(flow, "local"),
                    text(flow, "local_port"), text(flow, "remote"), text(flow, "remote_port"),
                    text(flow, "transport"), text(flow, "initiator"), text(explanation, "packet_time"));
    out += fmt::format("policy {} revision {}\n", text(explanation["policy"], "name"),
                       text(explanation["policy"], "revision"));
    out += end_text("remote", explanation["remote"]);
    if (!explanation["outer_remote"].is_null()) out += end_text("tunnelled to", explanation["outer_remote"]);
    const Json& decision = explanation["decision"];
    out += decision["allowed"] == true
               ? fmt::format("allowed by {}: {}\n", text(decision, "allow_id"), text(decision, "reason"))
               : std::string("not allowed\n");
    constexpr std::size_t close_max = 20;
    std::size_t far = 0, close = 0;
    for (const Json& entry : explanation["allow"]) {
        if (entry["covers"] == true) continue;
        if (entry["close"] == true && ++close > close_max) continue;
        if (entry["close"] == true)
            out += fmt::format("  {} came close: {}\n", text(entry, "id"), text(entry, "why_not"));
        else
            ++far;
    }
    if (close > close_max)
        out += fmt::format("  and {} more came close: --json has them\n", close - close_max);
    if (far > 0) out += fmt::format("  {} other entries do not name this destination\n", far);
    out += "rules\n";
    for (const Json& rule : explanation["rules"]) out += rule_text(rule);
    return out;
}

std::expected<Json, ReplayFailure> explain(const ExplainOptions& options, std::string& head) {
    Json record;  // flow, process, sender, as in a record
    if (!options.id.empty()) {
        const auto finding = find_finding(options);
        if (!finding) return std::unexpected(finding.error());
        head = "finding " + records::text_line(*finding) + "\n";
        const auto found = finding->find("flow");
        if (found == finding->end())
            return std::unexpected(
                wrong("this finding is about egresswatch itself, no flow stands behind it:\n" + head));
        for (const char* part : {"flow", "process", "sender"})
            if (const auto member = finding->find(part); member != finding->end()) record[part] = *member;
    } else {
        auto asked = flow_of_options(options);
        if (!asked) return std::unexpected(asked.error());
        record["flow"] = std::move(*asked);
        if (!options.name.empty()) record["flow"].update({{"name", options.name}, {"name_source", "sni"}});
        if (!options.dns.empty()) record["flow"]["dns_names"] = options.dns;
        for (const auto& [member, value] :
             {std::pair{"executable", options.executable}, std::pair{"sha256", options.sha256},
              std::pair{"user", options.user}, std::pair{"unit", options.unit},
              std::pair{"cgroup", options.cgroup}, std::pair{"container", options.container}})
            if (!value.empty()) record["process"][member] = value;
        if (options.uid) record["process"]["uid"] = *options.uid;
        if (!options.app.empty()) record["flow"]["app"] = options.app;
        if (record.contains("process")) record["sender"]["known"] = "process";
    }
    const auto update = records::read_flow_fields(record["flow"]);
    if (!update) return std::unexpected(wrong("the flow cannot be read"));
    if (options.policy.empty()) return ask_the_daemon(options, record);
    return explain_offline(options, *update, records::read_flow_facts(record));
}

int run(const ExplainOptions& options) {
    std::string head;
    const auto explanation = explain(options, head);
    if (!explanation) {
        std::fprintf(stderr, "egresswatch explain: %s\n", explanation.error().text.c_str());
        return explanation.error().exit_code;
    }
    const std::string out = options.json ? explanation->dump(1) + "\n" : head + to_text(*explanation);
    std::fwrite(out.data(), 1, out.size(), stdout);
    return 0;
}

}  // namespace

void add_explain(CLI::App& app, int& exit_code) {
    auto options = std::make_shared<ExplainOptions>();
    auto* command = app.add_subcommand("explain", "Why a flow is, or is not, a finding");
    auto* id =
        command->add_option("FINDING", options->id, "A finding's event.id, or its number in the journal");
    auto* flow =
        command->add_option("--flow", options->flow, "LOCAL[:PORT] REMOTE[:PORT] PROTOCOL")->expected(3);
    id->excludes(flow);
    command->add_option("--initiator", options->initiator, "Which end connected")
        ->check(CLI::IsMember({"local", "remote", "unknown"}))
        ->capture_default_str();
    command->add_option("--tunnel", options->tunnel, "What carries the flow")->capture_default_str();
    command->add_option("--outer-remote", options->outer_remote, "The far end of the tunnel");
    command->add_option("--name", options->name, "With --flow: the name that the sender asks for");
    command->add_option("--dns", options->dns, "With --flow: names that DNS gave the remote address");
    command->add_option("--executable", options->executable, "With --flow: the executable of the sender");
    command->add_option("--sha256", options->sha256, "And its SHA-256");
    command->add_option("--user", options->user, "With --flow: the sender's user");
    command->add_option("--uid", options->uid, "With --flow: the user's id");
    command->add_option("--unit", options->unit, "With --flow: the sender's systemd unit");
    command->add_option("--cgroup", options->cgroup, "With --flow: the sender's control group");
    command->add_option("--container", options->container, "With --flow: the sender's container");
    command->add_option("--app", options->app, "With --flow: the application protocol, as in tls");
    auto* policy = command->add_option("--policy", options->policy,
                                       "Explain by this policy, not by the daemon that runs");
    command->add_option("--site", options->host.site, "With --policy: the site whose host it is")
        ->needs(policy);
    command->add_option("--asn", options->host.asn_file, "With --policy: MaxMind DB with AS numbers")
        ->needs(policy);
    command
        ->add_option("--geo", options->geo, "With --policy: compiled geo data (.ewgeo); none: no countries")
        ->needs(policy);
    command
        ->add_option("--replay", options->replay,
                     "With --policy: fill the windows from this capture or journal")
        ->needs(policy);
    command->add_option("--journal", options->journal, "Where findings are looked up")->capture_default_str();
    command->add_option("--socket", options->socket, "the daemon's control socket")->capture_default_str();
    command->add_flag("--json", options->json, "One JSON object instead of text");
    command->callback([options, &exit_code] {
        if (options->id.empty() && options->flow.empty()) throw CLI::RequiredError("FINDING or --flow");
        exit_code = run(*options);
    });
}

}  // namespace egresswatch::cli
