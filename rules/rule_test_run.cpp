// rules/rule_test_run.cpp - plays a case to an evaluator of its own, and compares.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "classifier/region/special.h"
#include "rules/evaluator.h"
#include "rules/rule_test.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

// Time goes on in steps of this at most: rules that fire without an update are asked as often.
constexpr std::chrono::seconds time_step{60};

Address nth_address(const Prefix& prefix, std::uint64_t number) {
    Address out = prefix.base;
    const unsigned bits = prefix.is_ipv4() ? 32u - prefix.length : 128u - prefix.length;
    if (bits < 64) number &= (std::uint64_t{1} << bits) - 1;
    for (int at = 15; at >= 0 && number != 0; --at, number >>= 8)
        out.bytes[at] |= static_cast<std::uint8_t>(number);
    return out;
}

// The classes of a case, as the region table would make them of that country data and the policy.
class Classes {
public:
    explicit Classes(const Policy& policy) : policy_(policy) {}

    std::uint16_t of(const Address& address, const Country& country, bool disputed = false) {
        ClassInfo info = classify(address, country);
        info.disputed = disputed;
        by_address_[address.to_string()] = info;
        const auto at = static_cast<std::size_t>(std::ranges::find(infos_, info) - infos_.begin());
        if (at == infos_.size()) infos_.push_back(std::move(info));
        return static_cast<std::uint16_t>(at + 1);
    }
    [[nodiscard]] const ClassInfo& info(std::uint16_t id) const { return infos_[id - 1u]; }
    [[nodiscard]] const ClassInfo* find(const Address& address) const {
        const auto found = by_address_.find(address.to_string());
        return found == by_address_.end() ? nullptr : &found->second;
    }

private:
    // Precedence as classifier/region/region_table.h has it. Prefixes reserved for documentation count as
    // ordinary ones: tests are documentation.
    ClassInfo classify(const Address& address, const Country& country) const {
        const RegionSpec& spec = policy_.region_spec();
        const auto contains = [&](const Prefix& prefix) { return prefix.contains(address); };
        ClassInfo info;
        info.country = country;
        const SpecialPrefix* special = find_special(address);
        if (std::ranges::any_of(spec.home_prefixes, contains)) {
            info.kind = datapath::KIND_HOME;
        } else if (special != nullptr && special->kind == datapath::KIND_LOCAL) {
            info.kind = datapath::KIND_LOCAL;
            info.local = special->local;
            info.country.clear();
        } else if (country.empty()) {
            info.kind = spec.unknown_is_home ? datapath::KIND_HOME : datapath::KIND_UNKNOWN;
        } else {
            info.kind = spec.home_countries.contains(country) ? datapath::KIND_HOME : datapath::KIND_OUTSIDE;
        }
        for (const PolicyPrefix& prefix : spec.list_prefixes)
            if (contains(prefix.prefix)) info.lists.push_back(prefix.list);
        std::ranges::sort(info.lists);
        const auto doubles = std::ranges::unique(info.lists);
        info.lists.erase(doubles.begin(), doubles.end());
        return info;
    }

    const Policy& policy_;
    std::vector<ClassInfo> infos_;
    std::map<std::string, ClassInfo> by_address_;
};

// What a host knows of addresses and interfaces beyond their class.
class Around {
public:
    void set_asn(const Address& address, std::uint32_t asn) { asns_[address] = asn; }
    std::uint32_t ifindex_of(const std::string& name) {
        if (name.empty()) return 0;
        const auto at = static_cast<std::size_t>(std::ranges::find(interfaces_, name) - interfaces_.begin());
        if (at == interfaces_.size()) interfaces_.push_back(name);
        return static_cast<std::uint32_t>(at + 1);
    }
    [[nodiscard]] Evaluator::Host host(const std::string& site) const {
        Evaluator::Host out;
        out.site = site;
        out.asn_of = [this](const Address& address) {
            const auto found = asns_.find(address);
            return found == asns_.end() ? 0 : found->second;
        };
        out.interface_name = [this](std::uint32_t ifindex) {
            return ifindex == 0 ? std::string() : interfaces_.at(ifindex - 1);
        };
        return out;
    }

private:
    std::map<Address, std::uint32_t> asns_;
    std::vector<std::string> interfaces_;
};

FlowUpdate head_of(const TestFlow& flow, std::uint64_t number, Classes& classes, Around& around) {
    FlowUpdate update;
    const Prefix& prefix = flow.remotes[number % flow.remotes.size()];
    const Address remote = nth_address(prefix, number / flow.remotes.size());
    std::memcpy(update.key.local_addr, flow.local.bytes.data(), flow.local.bytes.size());
    std::memcpy(update.key.remote_addr, remote.bytes.data(), remote.bytes.size());
    constexpr std::uint64_t first_port = 49152, ports = 65536 - first_port;
    update.key.l4_proto = flow.l4_proto;
    if (!flow.ports.empty()) {
        const PortRange& range = flow.ports[number % flow.ports.size()];
        const std::uint64_t size = range.last - range.first + 1u;
        const std::uint64_t port = range.first + (number / flow.ports.size()) % size;
        update.key.remote_port = datapath::host16(static_cast<std::uint16_t>(port));
        update.key.local_port = datapath::host16(
            flow.local_port.value_or(static_cast<std::uint16_t>(first_port + number % ports)));
    }
    update.key.tunnel = flow.tunnel;
    update.key.class_id = classes.of(remote, flow.countries[number % flow.countries.size()], flow.disputed);
    if (!flow.asns.empty()) around.set_asn(remote, flow.asns[number % flow.asns.size()]);
    update.ifindex = around.ifindex_of(flow.interface);
    update.initiator = flow.initiator;
    update.initiator_sure = flow.initiator != datapath::INITIATOR_UNKNOWN;
    if (flow.tunnel != datapath::TUNNEL_NONE) {
        update.outer_local = flow.local;
        update.outer_remote = flow.outer_remote;
        (void)classes.of(flow.outer_remote, flow.outer_country);
    }
    return update;
}

std::uint64_t share(std::uint64_t whole, std::uint64_t part, std::uint64_t parts) {
    return static_cast<std::uint64_t>(static_cast<unsigned __int128>(whole) * part / parts);
}

// The updates of one conversation: news every `step`, its volume spread evenly, and its end.
void add_updates(const TestFlow& flow, Timestamp begin, FlowUpdate update, std::vector<FlowUpdate>& out) {
    const std::uint64_t steps =
        std::max<std::uint64_t>(1, static_cast<std::uint64_t>(flow.lasts / flow.step));
    update.first_seen = begin;
    FlowCounters before;
    for (std::uint64_t i = 1; i <= steps; ++i) {
        const FlowCounters& all = flow.counters;
        update.total = {share(all.packets_out, i, steps), share(all.bytes_out, i, steps),
                        share(all.packets_in, i, steps), share(all.bytes_in, i, steps)};
        update.delta = update.total - before;
        before = update.total;
        update.last_seen =
            begin + (flow.lasts.count() == 0
                         ? std::chrono::seconds(0)
                         : std::chrono::seconds(flow.lasts.count() * static_cast<std::int64_t>(i) /
                                                static_cast<std::int64_t>(steps)));
        update.reason = i == 1 ? UpdateReason::created : UpdateReason::active;
        out.push_back(update);
    }
    update.delta = {};
    update.reason = UpdateReason::ended;
    out.push_back(update);
}

// An update, or a question to a name server, and whose it is.
struct Step {
    FlowUpdate update;
    const TestFlow* flow;
    std::string asked;
};

// 32 letters and digits of base32, and a dot.
std::string new_label(std::uint64_t number) {
    constexpr std::string_view digits = "abcdefghijklmnopqrstuvwxyz234567";
    std::string out;
    for (int at = 0; at < 32; ++at) {  // a step of SplitMix64 each
        std::uint64_t mixed = (number * 32 + static_cast<std::uint64_t>(at) + 1) * 0x9e3779b97f4a7c15;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
        out += digits[mixed >> 59];
    }
    return out + ".";
}

void add_steps(const TestFlow& flow, std::uint64_t number, Timestamp begin, FlowUpdate head,
               std::vector<Step>& out) {
    head.first_seen = head.last_seen = begin;
    for (const std::string& name : flow.asks)
        out.push_back({head, &flow, name.starts_with("*.") ? new_label(number) + name.substr(2) : name});
    std::vector<FlowUpdate> updates;
    add_updates(flow, begin, head, updates);
    for (const FlowUpdate& update : updates) out.push_back({update, &flow, {}});
}

std::string value_of(const Finding& finding, const std::string& name) {
    if (name == "level") return std::string(level_name(finding.level));
    if (name == "remote") return finding.flow.remote().to_string();
    if (name == "country") return finding.info.country.empty() ? "unknown" : finding.info.country;
    if (name == "value") return std::to_string(finding.value);
    if (name == "flows") return std::to_string(finding.flows_in_window);
    if (name == "suppressed") return std::to_string(finding.suppressed);
    for (const GroupField& field : finding.group)
        if (field.name == name) return field.value;
    return "(none)";
}

std::chrono::seconds offset_of(const Finding& finding, Timestamp start) {
    return std::chrono::floor<std::chrono::seconds>(finding.time - start);
}

std::string differing(const ExpectedFinding& expected, const Finding& seen, Timestamp start) {
    std::string out;
    const auto add = [&](const std::string& name, const std::string& is, const std::string& wanted) {
        out += (out.empty() ? "" : ", ") + name + " is " + is + ", not " + wanted;
    };
    if (offset_of(seen, start) != expected.at)
        add("at", to_text(offset_of(seen, start)), to_text(expected.at));
    for (const GroupField& field : expected.fields)
        if (value_of(seen, field.name) != field.value)
            add(field.name, value_of(seen, field.name), field.value);
    return out;
}

std::string line_of(const ExpectedFinding& expected) {
    std::string out = "at " + to_text(expected.at) + "  " + expected.rule;
    for (const GroupField& field : expected.fields) out += "  " + field.name + ": " + field.value;
    return out;
}

std::string line_of(const Finding& finding, Timestamp start) {
    std::string out = "at " + to_text(offset_of(finding, start)) + "  " + finding.rule_id +
                      "  level: " + std::string(level_name(finding.level));
    for (const GroupField& field : finding.group) out += "  " + field.name + ": " + field.value;
    if (std::ranges::find(finding.group, "remote", &GroupField::name) == finding.group.end())
        out += "  remote: " + value_of(finding, "remote");
    return out + "  value: " + std::to_string(finding.value);
}

std::vector<std::string> compare(const RuleCase& test, const std::vector<Finding>& findings) {
    std::vector<bool> taken(findings.size());
    std::vector<const ExpectedFinding*> missing;
    for (const ExpectedFinding& expected : test.expected) {
        std::size_t at = 0;
        while (at < findings.size() && (taken[at] || findings[at].rule_id != expected.rule ||
                                        !differing(expected, findings[at], test.start).empty()))
            ++at;
        if (at < findings.size())
            taken[at] = true;
        else
            missing.push_back(&expected);
    }
    std::vector<std::string> out;
    for (const ExpectedFinding* expected : missing) {
        out.push_back("- " + line_of(*expected) + "    expected, and did not come");
        // What did come of that rule, and is not what any other line asks for: the likely reason.
        for (std::size_t at = 0; at < findings.size(); ++at) {
            if (taken[at] || findings[at].rule_id != expected->rule) continue;
            taken[at] = true;
            out.push_back("+ " + line_of(findings[at], test.start) +
                          "    came instead: " + differing(*expected, findings[at], test.start));
            break;
        }
    }
    for (std::size_t at = 0; at < findings.size(); ++at)
        if (!taken[at])
            out.push_back("+ " + line_of(findings[at], test.start) + "    came, and was not expected");
    return out;
}

}  // namespace

CaseResult run_rule_case(const RuleCase& test, const std::shared_ptr<const Policy>& policy) {
    CaseResult result;
    // What the evaluator itself reports, of allow entries.
    static constexpr std::array<std::string_view, 4> of_entries{
        "egresswatch/allow-ceiling", "egresswatch/allow-expires", "egresswatch/allow-expired",
        "egresswatch/name-contradiction"};
    const auto known = [&](const std::string& id) {
        return std::ranges::find(policy->rules, id, &Rule::id) != policy->rules.end() ||
               std::ranges::find(of_entries, id) != of_entries.end();
    };
    for (const ExpectedFinding& expected : test.expected)
        if (!known(expected.rule))
            result.differences.push_back("the policy has no rule \"" + expected.rule + "\"");
    for (const std::string& id : test.rules)
        if (!known(id)) result.differences.push_back("the policy has no rule \"" + id + "\"");
    if (!test.site.empty() && !has_site(*policy, test.site))
        result.differences.push_back("the policy has no site \"" + test.site + "\"");
    if (!result.differences.empty()) return result;

    Classes classes(*policy);
    Around around;
    std::vector<Step> steps;
    for (const TestFlow& flow : test.flows)
        for (std::uint64_t number = 0; number < flow.times; ++number) {
            if (steps.size() > test_updates_max) {
                result.differences.push_back("the flows give more than " + std::to_string(test_updates_max) +
                                             " updates");
                return result;
            }
            add_steps(flow, number, test.start + flow.at + flow.every * static_cast<std::int64_t>(number),
                      head_of(flow, number, classes, around), steps);
        }
    std::ranges::stable_sort(steps, {}, [](const Step& step) { return step.update.last_seen; });

    Evaluator evaluator(
        policy, [&](const Address& address) { return classes.find(address); }, around.host(test.site));
    std::vector<Finding> findings;
    Timestamp now = test.start;
    const auto pass_time = [&](Timestamp to) {
        for (; now + time_step < to; now += time_step) evaluator.advance(now + time_step, findings);
        now = std::max(now, to);
        evaluator.advance(now, findings);
    };
    for (const Step& step : steps) {
        const FlowUpdate& update = step.update;
        if (update.last_seen > now) pass_time(update.last_seen);
        const FactsView known_of(step.flow->facts, update.initiator == datapath::INITIATOR_REMOTE);
        const ClassInfo& info = classes.info(update.key.class_id);
        if (step.asked.empty())
            evaluator.evaluate(update, info, now, findings, known_of.facts);
        else
            evaluator.observe({update, step.asked, update.last_seen}, info, now, findings, known_of.facts);
    }
    pass_time(test.start + test.until);
    std::erase_if(findings, [&](const Finding& finding) {
        return !test.rules.empty() && std::ranges::find(test.rules, finding.rule_id) == test.rules.end();
    });
    result.findings = findings.size();
    result.differences = compare(test, findings);
    return result;
}

}  // namespace egresswatch::rules
