// rules/policy_lint.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy_lint.h"

#include <algorithm>
#include <map>

#include "rules/class_space.h"
#include "rules/compiler.h"
#include "rules/matcher.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t trials_max = 1'000'000;  // of a condition against a class: 0.1 s

class Trials {
public:
    explicit Trials(const Policy& policy) : classes_(policy) {
        sites_.emplace_back();
        for (const Site& site : policy.sites) sites_.push_back(site.name);
    }

    // Whether some class for which `wanted` holds can satisfy the condition; true where trials ran out.
    bool satisfiable(const Condition& condition, Purpose purpose, bool (*wanted)(const ClassInfo&)) {
        return classes_.any_of([&](const ClassInfo& info) {
            return wanted(info) && std::ranges::any_of(sites_, [&](const std::string& site) {
                       return ++trials_ >= trials_max || possible(condition, info, site, purpose);
                   });
        });
    }
    [[nodiscard]] bool exhausted() const noexcept { return trials_ >= trials_max; }

private:
    ClassSpace classes_;
    std::vector<std::string> sites_;
    std::size_t trials_ = 0;
};

bool any_class(const ClassInfo&) {
    return true;
}
bool foreign(const ClassInfo& info) {
    return info.kind == datapath::KIND_OUTSIDE || info.kind == datapath::KIND_UNKNOWN;
}

bool has_ports(std::uint32_t l4_proto) {
    return l4_proto == 6 || l4_proto == 17 || l4_proto == 33 || l4_proto == 132 || l4_proto == 136;
}

// Ports of protocols that have none: the one contradiction between fields of a flow that people do write.
bool ports_without(const Condition& condition) {
    const Predicate* protocols = condition.find(Field::l4_proto);
    const Predicate* ports = condition.find(Field::port);
    if (ports == nullptr) ports = condition.find(Field::local_port);
    if (protocols == nullptr || ports == nullptr || ports->ports.empty()) return false;
    return std::ranges::none_of(ports->ports, [&](const PortRange& range) {
        return std::ranges::any_of(protocols->numbers, [&](std::uint32_t number) {
            return has_ports(number) && (range.l4_proto == 0 || range.l4_proto == number);
        });
    });
}

bool wants_allowed(const Condition& condition) {
    const Predicate* allowed = condition.find(Field::allowed);
    return allowed != nullptr && allowed->text == "true";
}

void lint_allows(const Policy& policy, Trials& trials, std::vector<LintFinding>& out) {
    for (std::size_t i = 0; i < policy.allows.size() && !trials.exhausted(); ++i) {
        const AllowEntry& entry = policy.allows[i];
        if (ports_without(entry.match) || !trials.satisfiable(entry.match, Purpose::allow, any_class))
            out.push_back({false, i, "never-matches",
                           "no flow can satisfy this entry: what it names excludes each other",
                           "compare its list, cidr, country, region and ports"});
        else if (!trials.satisfiable(entry.match, Purpose::allow, foreign))
            out.push_back(
                {false, i, "needless-entry",
                 "all that this entry allows is local or in the home region: nothing there needs an entry",
                 "remove it, or name destinations outside"});
    }
}

void lint_rules(const Policy& policy, Trials& trials, std::vector<LintFinding>& out) {
    for (std::size_t i = 0; i < policy.rules.size() && !trials.exhausted(); ++i) {
        const Rule& rule = policy.rules[i];
        if (ports_without(rule.when)) {
            out.push_back({true, i, "unreachable-rule",
                           "no flow can satisfy `when`: its protocols have no such ports",
                           "remove `port`, or name tcp, udp or sctp under `l4_proto`"});
            continue;
        }
        if (wants_allowed(rule.when) && policy.allows.empty()) {
            out.push_back(
                {true, i, "unreachable-rule",
                 "no flow can satisfy `when`: it asks for allowed flows, and the policy allows none",
                 "add allow entries, or write `allowed: false`"});
            continue;
        }
        if (!trials.satisfiable(rule.when, Purpose::rule, any_class)) {
            out.push_back(
                {true, i, "unreachable-rule",
                 "no address can satisfy `when`: what it names excludes each other",
                 "compare its region, class, country, list and remote; a country of the home region is "
                 "never outside"});
            continue;
        }
        for (std::size_t e = 0; e < rule.exceptions.size(); ++e) {
            const Condition& excused = rule.exceptions[e].match;
            Condition both;
            both.all = {rule.when, excused};
            if (!trials.satisfiable(both, Purpose::rule, any_class))
                out.push_back({true, i, "never-matches",
                               "exception " + std::to_string(e + 1) + " excuses nothing that the rule counts",
                               "compare its `match` with the rule's `when`"});
        }
    }
}

// What two rules have to share for one of them to fire whenever the other does.
std::string shared_by(const Rule& rule) {
    std::string out = definition_of(rule.when) + "|" + std::string(measure_name(rule.measure)) + "|" +
                      std::to_string(rule.over.count());
    for (const Field field : rule.by) out += "|" + std::to_string(static_cast<int>(field));
    for (const RuleException& exception : rule.exceptions)
        out += "|" + definition_of(exception.match) + exception.expires.text;
    return out;
}

void lint_shadowed(const Policy& policy, std::vector<LintFinding>& out) {
    std::map<std::string, std::vector<std::size_t>> alike;
    for (std::size_t i = 0; i < policy.rules.size(); ++i)
        if (policy.rules[i].kind == RuleKind::sum) alike[shared_by(policy.rules[i])].push_back(i);
    for (const auto& [what, indices] : alike)
        for (const std::size_t later : indices) {
            const Rule& rule = policy.rules[later];
            const auto shadow = std::ranges::find_if(indices, [&](std::size_t other) {
                const Rule& above = policy.rules[other];
                return other != later && above.at_least < rule.at_least && above.level >= rule.level;
            });
            if (shadow == indices.end()) continue;
            out.push_back(
                {true, later, "shadowed-rule",
                 "\"" + policy.rules[*shadow].id +
                     "\" counts the same and reports sooner, at the same level or a "
                     "higher one",
                 "remove this rule, or raise its level: then a small volume and a large one differ"});
        }
}

}  // namespace

std::vector<LintFinding> lint_policy(const Policy& policy) {
    std::vector<LintFinding> out;
    Trials trials(policy);
    lint_allows(policy, trials, out);
    lint_rules(policy, trials, out);
    lint_shadowed(policy, out);
    return out;
}

}  // namespace egresswatch::rules
