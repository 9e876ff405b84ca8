// tests/bench/rules_bench.cpp - what a policy costs: to compile, and for each flow update; run by
// `tools/bench rules`. SPDX-License-Identifier: Apache-2.0
//
// 10 to 10,000 rules that share 10,000 prefixes, each rule with a port of its own; half of the updates go to
// an address inside a prefix, half elsewhere outside. As many that ask for nothing but a name, an executable
// or an AS number, beside as many allow entries by name. Then the shipped example over flows of one packet.
// CPU time of this process, so that other work on the machine does not count; the least of several
// repetitions.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <span>
#include <string>
#include <vector>

#include "rules/evaluator.h"
#include "rules/policy.h"

using namespace egresswatch;

namespace {

constexpr std::uint32_t prefixes = 10'000;
constexpr std::uint32_t updates = 1'000'000;
constexpr int repetitions = 5;
constexpr Timestamp begin{std::chrono::sys_days(std::chrono::year{2026} / 3 / 2)};

double cpu_ns() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// The n-th /24, scattered over 11.0.0.0/8 to 110.0.0.0/8.
std::uint32_t prefix_base(std::uint32_t n) {
    return (11 + n % 100) << 24 | (n * 40'503u & 0xffff) << 8;
}

std::string policy_text(std::uint32_t rules) {
    std::string out =
        "policy: egresswatch/v1\nname: bench\nrevision: 1\nowner: o\nregions: {europe: {countries: [IE]}}\n"
        "home: europe\nallow:\n"
        "  - {id: a, to: {country: CA}, owner: o, reason: r, expires: 2090-01-01}\nrules:\n";
    for (std::uint32_t rule = 0; rule < rules; ++rule) {
        out += "  - id: r" + std::to_string(rule) +
               "\n    title: t\n    level: low\n    when: {region: outside, " + "allowed: false, remote: [";
        for (std::uint32_t n = rule; n < prefixes; n += rules)
            out += Address::from_ipv4(prefix_base(n)).to_string() + "/24, ";
        out += "], port: [" + std::to_string(1 + rule % 1000) +
               "/tcp, 443/tcp]}\n    window: {sum: bytes_out, over: 1h, " +
               "by: [remote], at_least: 1000 GiB}\n";
    }
    return out;
}

// No port, no prefix: what the sender says, who it is and whose the address is decide.
std::string policy_of_names(std::uint32_t rules) {
    std::string allows, out;
    for (std::uint32_t rule = 0; rule < rules; ++rule) {
        const std::string n = std::to_string(rule);
        const std::array<std::string, 4> when{
            "domain: [h" + n + ".example.net]", "domain: [\"*.d" + n + ".example.net\"]",
            "executable: [/usr/bin/p" + n + "]", "asn: [" + std::to_string(100'000 + rule) + "]"};
        allows += "  - {id: a" + n + ", to: {domain: [h" + n + ".example.org, \"*.d" + n +
                  ".example.org\"]}, owner: o, reason: r, expires: 2090-01-01}\n";
        out += "  - id: r" + n + "\n    title: t\n    level: low\n    when: {" + when[rule % 4] +
               "}\n    window: {sum: bytes_out, over: 1h, by: [remote], at_least: 1000 GiB}\n";
    }
    return "policy: egresswatch/v1\nname: bench\nrevision: 1\nowner: o\nregions: {europe: {countries: "
           "[IE]}}\n"
           "home: europe\nallow:\n" +
           allows + "rules:\n" + out;
}

FlowUpdate one_packet(std::uint32_t remote, std::uint32_t n) {
    FlowUpdate out;
    const Address far = Address::from_ipv4(remote), local = Address::from_ipv4(0x0a000005);
    std::memcpy(out.key.remote_addr, far.bytes.data(), 16);
    std::memcpy(out.key.local_addr, local.bytes.data(), 16);
    out.key.remote_port = datapath::host16(443);
    out.key.local_port = datapath::host16(static_cast<std::uint16_t>(n));
    out.key.l4_proto = 6;
    out.key.class_id = 1;
    out.initiator = datapath::INITIATOR_LOCAL;
    out.delta = out.total = {1, 1400, 0, 0};
    out.first_seen = out.last_seen = begin + std::chrono::microseconds(n);
    return out;
}

std::vector<FlowUpdate> traffic_of(bool scattered) {
    std::vector<FlowUpdate> traffic;
    traffic.reserve(updates);
    for (std::uint32_t n = 0; n < updates; ++n) {
        const std::uint32_t random = n * 2'654'435'761u;
        const bool inside = !scattered && n % 2 == 0;
        const std::uint32_t remote = inside      ? prefix_base(random % prefixes) | (n & 3)
                                     : scattered ? 0x0b000000u + (random >> 6)
                                                 : 0xc6336400u + (random & 0xff);
        traffic.push_back(one_packet(remote, n));
    }
    return traffic;
}

ClassInfo outside() {
    ClassInfo info;
    info.kind = datapath::KIND_OUTSIDE;
    info.country = "US";
    return info;
}

// As engines hand them over: many at a time, of one second.
class Handler final : public rules::BatchHandler {
public:
    explicit Handler(const ClassInfo& info) : info_(info) {}
    const ClassInfo& info_of(const FlowUpdate&) override { return info_; }
    const rules::FlowFacts& facts_of(const FlowUpdate&) override { return facts_; }
    void evaluated(const FlowUpdate&, std::uint64_t missing) override { least_ = std::min(least_, missing); }

private:
    const ClassInfo& info_;
    rules::FlowFacts facts_;
    std::uint64_t least_ = rules::Evaluator::never;
};

double per_update(const std::shared_ptr<const rules::Policy>& policy, bool scattered) {
    constexpr std::size_t batch = 256;
    const std::vector<FlowUpdate> traffic = traffic_of(scattered);
    const ClassInfo info = outside();
    double best = 1e18;
    for (int i = 0; i < repetitions; ++i) {
        rules::Evaluator evaluator(policy);
        std::vector<rules::Finding> findings;
        Handler handler(info);
        const double start = cpu_ns();
        for (std::span<const FlowUpdate> left(traffic); !left.empty();) {
            const auto now = left.first(std::min(batch, left.size()));
            evaluator.evaluate(now, now.back().last_seen, findings, handler);
            left = left.subspan(now.size());
        }
        best = std::min(best, cpu_ns() - start);
    }
    return best / updates;
}

// A thousand senders to a thousand names; each fourth is one of the policy's.
double per_named_update(const std::shared_ptr<const rules::Policy>& policy) {
    constexpr std::size_t senders = 1000;
    struct Known {
        std::string name, executable;
        std::array<std::string_view, 2> dns;
        rules::FlowFacts facts;
    };
    std::vector<Known> known(senders);
    for (std::size_t n = 0; n < senders; ++n) {
        Known& one = known[n];
        const std::string number = std::to_string(n);
        one.name = "www.d" + number + (n % 4 == 0 ? ".example.net" : ".example.com");
        one.executable = "/usr/bin/p" + number;
        one.dns = {one.name, "edge.cdn.example.com"};
        one.facts.dns = one.dns;
        one.facts.sni = one.name;
        one.facts.executable = one.executable;
    }
    const std::vector<FlowUpdate> traffic = traffic_of(false);
    const ClassInfo info = outside();
    double best = 1e18;
    for (int i = 0; i < repetitions; ++i) {
        rules::Evaluator::Host host;
        host.asn_of = [](const Address& address) { return 99'000u + address.bytes[15]; };
        rules::Evaluator evaluator(policy, {}, std::move(host));
        std::vector<rules::Finding> findings;
        const double start = cpu_ns();
        std::size_t n = 0;
        for (const FlowUpdate& update : traffic)
            evaluator.evaluate(update, info, update.last_seen, findings, known[n++ % senders].facts);
        best = std::min(best, cpu_ns() - start);
    }
    return best / updates;
}

// The pause that saving the windows makes, which happens on the thread that evaluates.
void print_saving(const std::shared_ptr<const rules::Policy>& policy) {
    rules::Evaluator evaluator(policy);
    std::vector<rules::Finding> findings;
    const ClassInfo info = outside();
    for (const FlowUpdate& update : traffic_of(true))
        evaluator.evaluate(update, info, update.last_seen, findings);
    double best = 1e18;
    std::size_t bytes = 0;
    for (int i = 0; i < repetitions; ++i) {
        const double start = cpu_ns();
        bytes = evaluator.save().size();
        best = std::min(best, cpu_ns() - start);
    }
    std::printf("\nSaving the windows of these %zu groups (%.1f MiB) holds evaluation up for %.1f ms.\n",
                evaluator.counters().groups, static_cast<double>(bytes) / (1 << 20), best / 1e6);
}

// Compiles a policy and says what that and an update cost; false: it does not compile.
bool print_row(std::uint32_t rules, const char* what, const std::string& text,
               double (*cost)(const std::shared_ptr<const rules::Policy>&)) {
    const std::vector<rules::SourceFile> files{{"bench.yaml", text}};
    double compile = 1e18;
    std::shared_ptr<const rules::Policy> policy;
    for (int i = 0; i < 3; ++i) {
        const double start = cpu_ns();
        auto loaded = rules::compile_policy(files);
        compile = std::min(compile, (cpu_ns() - start) / 1e6);
        if (!loaded) {
            std::fputs(rules::format_diagnostic(loaded.error().front()).c_str(), stderr);
            return false;
        }
        policy = loaded->policy;
    }
    std::printf("| %u %s | %.0f | %.0f |\n", rules, what, compile, cost(policy));
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    std::puts("| policy | compile, ms | update, ns |\n|---|---|---|");
    for (const std::uint32_t rules : {10u, 100u, 1'000u, 10'000u})
        if (!print_row(rules, "rules, 10,000 prefixes", policy_text(rules),
                       [](const auto& policy) { return per_update(policy, false); }))
            return 1;
    for (const std::uint32_t rules : {10u, 100u, 1'000u, 10'000u})
        if (!print_row(rules, "rules and as many allow entries, by name, executable and AS number",
                       policy_of_names(rules), per_named_update))
            return 1;
    if (argc < 2) return 0;
    const auto example = rules::load_policy(argv[1]);
    if (!example) return 1;
    std::printf("| the shipped example, each flow one packet to another address | | %.0f |\n",
                per_update(example->policy, true));
    print_saving(example->policy);
}
