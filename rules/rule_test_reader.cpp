// rules/rule_test_reader.cpp - a file of rule tests, checked like a policy.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "classifier/sender.h"
#include "rules/field_rows.h"
#include "rules/fields.h"
#include "rules/limits.h"
#include "rules/rule_test.h"
#include "rules/rule_test_schema.h"
#include "rules/yaml_reader.h"

namespace egresswatch::rules {

namespace {

constexpr Timestamp default_start{
    std::chrono::sys_days(std::chrono::year{2026} / std::chrono::month{3} / std::chrono::day{2})};
constexpr std::uint64_t bytes_per_packet = 1400;

SourceSpan span_of(const Fields& fields) {
    return {fields.where().source->name(), fields.node().line, fields.node().column, fields.node().length};
}

class Reader {
public:
    explicit Reader(Problems& problems) : problems_(problems) {}
    RuleCase read_case(const Fields& fields);

private:
    TestFlow read_flow(const Fields& fields);
    void read_counters(const Fields& fields, TestFlow& flow);
    void read_tunnel(const Fields& fields, TestFlow& flow);
    static void read_facts(const Fields& fields, OwnedFacts& facts);
    void check_size_of(const Fields& fields, const TestFlow& flow);
    void check_sense_of(const Fields& fields, const TestFlow& flow);
    ExpectedFinding read_expected(const Fields& fields);

    std::chrono::seconds duration(const Fields& fields, std::string_view key,
                                  std::chrono::seconds otherwise = std::chrono::seconds(0)) {
        return fields.value(key, parse_duration).value_or(otherwise);
    }
    std::uint64_t whole(const Fields& fields, std::string_view key, std::uint64_t otherwise) {
        return fields.value(key, [](std::string_view t) { return parse_whole(t, 1, 1'000'000'000); })
            .value_or(otherwise);
    }
    std::uint64_t bytes(const Fields& fields, std::string_view key) {
        if (fields.scalars(key).empty()) return 0;
        const Node& node = *fields.scalars(key).front();
        const auto size = parse_size(node.text);
        if (!size)
            problems_.error(fields.where(), node, size.error().code, size.error().message, size.error().help);
        return size.value_or(0);
    }
    Address address(const Fields& fields, std::string_view key, const char* otherwise) {
        const auto prefixes = fields.list(key, parse_prefix);
        return prefixes.empty() ? *Address::parse(otherwise) : prefixes.front().base;
    }
    static Country country(std::string_view text) { return text == "unknown" ? Country() : Country(text); }

    Problems& problems_;
};

RuleCase Reader::read_case(const Fields& fields) {
    RuleCase out;
    out.name = fields.text("name");
    out.place = span_of(fields);
    out.start = default_start;
    if (const auto start = fields.value("start", parse_expiry)) {
        // A day that expires does so at its end, and a case that starts on it at its beginning.
        const bool whole_day = fields.text("start").size() == 10;
        out.start = *start - (whole_day ? std::chrono::days(1) : std::chrono::days(0));
    }
    out.site = fields.text("site");
    for (const Node* rule : fields.scalars("rules")) out.rules.push_back(rule->text);
    for (const Node* node : fields.nodes("flows")) {
        Fields flow(*node, schema::test_flow, fields.where(), problems_);
        out.flows.push_back(read_flow(flow));
    }
    for (const Node* node : fields.nodes("expect")) {
        Fields expected(*node, schema::expected_finding, fields.where(), problems_);
        out.expected.push_back(read_expected(expected));
        const ExpectedFinding& last = out.expected.back();
        if (!out.rules.empty() && !last.rule.empty() &&
            std::ranges::find(out.rules, last.rule) == out.rules.end())
            problems_.error(expected.where(), *expected.scalars("rule").front(), "rule-not-looked-at",
                            in_quotes(last.rule) + " is not among the `rules` of this case",
                            "add it there, or leave `rules` out");
    }
    out.until = duration(fields, "until");
    return out;
}

TestFlow Reader::read_flow(const Fields& fields) {
    TestFlow flow;
    flow.place = span_of(fields);
    flow.at = duration(fields, "at");
    flow.remotes = fields.list("remote", parse_prefix);
    for (const Node* node : fields.scalars("country")) flow.countries.push_back(country(node->text));
    flow.disputed = fields.text("disputed") == "true";
    flow.asns = fields.list("asn", parse_asn);
    flow.interface = fields.text("interface");
    flow.local = address(fields, "local", "10.0.0.5");
    const auto protocols = fields.list("l4_proto", parse_l4_proto);
    flow.ports = fields.list("port", parse_ports);
    if (!protocols.empty())
        flow.l4_proto = protocols.front();
    else if (!flow.ports.empty() && flow.ports.front().l4_proto != 0)
        flow.l4_proto = flow.ports.front().l4_proto;
    if (flow.ports.empty() && protocols.empty()) flow.ports.push_back({443, 443, 6});
    if (fields.has("local_port"))
        flow.local_port = static_cast<std::uint16_t>(whole(fields, "local_port", 1));
    const std::string initiator = fields.text("initiator");
    if (initiator == "remote") flow.initiator = datapath::INITIATOR_REMOTE;
    if (initiator == "unknown") flow.initiator = datapath::INITIATOR_UNKNOWN;
    read_tunnel(fields, flow);
    read_facts(fields, flow.facts);
    flow.asks = fields.list("asks", parse_domain);
    read_counters(fields, flow);
    check_size_of(fields, flow);
    check_sense_of(fields, flow);
    return flow;
}

void Reader::read_tunnel(const Fields& fields, TestFlow& flow) {
    for (std::uint8_t kind = 0; kind < datapath::TUNNEL_COUNT; ++kind)
        if (tunnel_name(kind) == fields.text("tunnel")) flow.tunnel = kind;
    if (flow.tunnel == datapath::TUNNEL_NONE) return;
    if (!fields.has("outer_remote"))
        problems_.error(fields.where(), fields.key_node("tunnel"), "missing-key",
                        "a tunnel leads somewhere: this flow has no `outer_remote`",
                        "add `outer_remote:` with the address of its far end");
    flow.outer_remote = address(fields, "outer_remote", "::");
    for (const Node* node : fields.scalars("outer_country")) flow.outer_country = country(node->text);
}

void Reader::read_facts(const Fields& fields, OwnedFacts& facts) {
    const auto first = [&](std::string_view key, auto parse) {
        auto all = fields.list(key, parse);
        return all.empty() ? std::string() : std::move(all.front());
    };
    facts.dns = fields.list("dns", parse_domain);
    facts.sni = first("sni", parse_domain);
    facts.http_host = first("http_host", parse_domain);
    for (std::uint8_t kind = 0; kind < rows::hidden_words.size(); ++kind)
        if (rows::hidden_words[kind] == fields.text("hidden")) facts.hidden = kind;
    facts.app = fields.text("app");
    if (facts.app.empty()) facts.app = !facts.sni.empty() ? "tls" : !facts.http_host.empty() ? "http" : "";
    facts.executable = first("executable", parse_path);
    facts.sha256 = first("sha256", parse_sha256);
    facts.user = fields.text("user");
    facts.uid = fields.value("uid", [](std::string_view t) { return parse_whole(t, 0, 0xffffffff); });
    facts.cgroup = fields.text("cgroup");
    facts.unit = fields.text("unit");
    facts.container = fields.text("container");
    const bool known = facts.uid || !facts.executable.empty() || !facts.sha256.empty() ||
                       !facts.user.empty() || !facts.cgroup.empty() || !facts.unit.empty() ||
                       !facts.container.empty();
    if (known) facts.sender = datapath::SENDER_PROCESS;
    for (std::uint8_t outcome = datapath::SENDER_PROCESS; outcome < datapath::SENDER_OUTCOME_COUNT; ++outcome)
        if (fields.text("sender") == sender_outcome_name(outcome)) facts.sender = outcome;
}

void Reader::read_counters(const Fields& fields, TestFlow& flow) {
    FlowCounters& counters = flow.counters;
    counters.bytes_out = bytes(fields, "bytes_out");
    counters.bytes_in = bytes(fields, "bytes_in");
    const auto packets = [](std::uint64_t size) { return (size + bytes_per_packet - 1) / bytes_per_packet; };
    counters.packets_out = whole(fields, "packets_out", packets(counters.bytes_out));
    counters.packets_in = whole(fields, "packets_in", packets(counters.bytes_in));
    flow.lasts = duration(fields, "lasts");
    flow.step = duration(fields, "step", flow.step);
    flow.times = whole(fields, "times", 1);
    flow.every = duration(fields, "every");
}

// What would be passed over in silence: a case that seems to test something, and does not.
void Reader::check_sense_of(const Fields& fields, const TestFlow& flow) {
    const auto complain = [&](std::string_view key, std::string message, std::string help) {
        problems_.error(fields.where(), fields.key_node(key), "goes-unused", std::move(message),
                        std::move(help));
    };
    if (fields.has("outer_remote") && flow.tunnel == datapath::TUNNEL_NONE)
        complain("outer_remote", "without a tunnel there is no far end of one",
                 "add `tunnel:`, or remove it");
    if (fields.has("l4_proto") && fields.has("port") && !flow.ports.empty() &&
        flow.ports.front().l4_proto != 0 && flow.ports.front().l4_proto != flow.l4_proto)
        complain("port", "`l4_proto` and the port's protocol differ", "remove one of them");
    if (fields.has("sender") && flow.facts.sender != datapath::SENDER_PROCESS &&
        !flow.facts.executable.empty())
        complain("sender", "where the sender is no process, it has no executable", "remove one of them");
    const bool sends = fields.has("bytes_out") || fields.has("bytes_in") || fields.has("packets_out") ||
                       fields.has("packets_in") || fields.has("asks");
    if (!sends)
        problems_.error(fields.where(), fields.node(), "empty-flow",
                        "this flow has neither packets nor bytes", "add `bytes_out:`, or `packets_out: 1`");
}

void Reader::check_size_of(const Fields& fields, const TestFlow& flow) {
    if (flow.step.count() == 0)
        problems_.error(fields.where(), *fields.scalars("step").front(), "out-of-range",
                        "a flow cannot give news every 0s", "write 1s or more");
    if (fields.has("local_port") && whole(fields, "local_port", 1) > 65535)
        problems_.error(fields.where(), *fields.scalars("local_port").front(), "out-of-range",
                        "that is no port", "write 1 to 65535");
    const auto steps = flow.step.count() == 0 ? 1 : static_cast<std::uint64_t>(flow.lasts / flow.step) + 2;
    if (flow.times > test_updates_max / steps)
        problems_.error(fields.where(), fields.node(), "too-many-updates",
                        "the flow would give more than " + std::to_string(test_updates_max) + " updates",
                        "lower `times`, or raise `step`");
}

ExpectedFinding Reader::read_expected(const Fields& fields) {
    ExpectedFinding out;
    out.place = span_of(fields);
    out.at = duration(fields, "at");
    out.rule = fields.text("rule");
    for (const std::string_view key : {"level", "country", "flows", "suppressed", "port", "asn", "executable",
                                       "registered_domain", "allow"})
        if (!fields.scalars(key).empty()) out.fields.push_back({std::string(key), fields.text(key)});
    for (const std::string_view key : {"remote", "remote_prefix"}) {
        const auto prefixes = fields.list(key, parse_prefix);
        if (prefixes.empty()) continue;
        const bool one = key == "remote";
        out.fields.push_back(
            {std::string(key), one ? prefixes.front().base.to_string() : prefixes.front().to_string()});
    }
    for (const Node* node : fields.scalars("value")) {
        const auto size = parse_size(node->text);
        const auto count = parse_packets(node->text);
        if (size || count)
            out.fields.push_back({"value", std::to_string(size ? *size : *count)});
        else
            problems_.error(fields.where(), *node, size.error().code, size.error().message,
                            size.error().help);
    }
    return out;
}

}  // namespace

Compiled<RuleTestFile> read_rule_tests(const SourceFile& file) {
    Problems problems;
    const SourceText source(file.name, file.text);
    const Compiled<NodePtr> root = read_yaml(source);
    if (!root) return std::unexpected(root.error());
    RuleTestFile out;
    out.name = file.name;
    const Fields top(**root, schema::rule_tests, Where{&source, {}}, problems);
    for (const Node* path : top.scalars("policy")) out.policy.push_back(path->text);
    Reader reader(problems);
    std::size_t number = 0;
    for (const Node* node : top.nodes("cases")) {
        if (problems.full()) break;
        const Where where{&source,
                          "case " + std::to_string(++number) + " (line " + std::to_string(node->line) + ")"};
        out.cases.push_back(reader.read_case(Fields(*node, schema::rule_case, where, problems)));
    }
    if (out.cases.empty() && problems.errors() == 0)
        problems.error(Where{&source, {}}, **root, "no-cases", "the file has no case",
                       "write one under `cases:`");
    if (problems.errors() != 0) return std::unexpected(problems.take());
    return out;
}

}  // namespace egresswatch::rules
