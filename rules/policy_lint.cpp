// rules/policy_lint.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy_lint.h"

#include <algorithm>
#include <map>

#include "rules/class_space.h"
#include "rules/compiler.h"
#include "rules/matcher.h"
#include "rules/relations.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t trials_max = 1'000'000;       // of a condition against a class: 0.1 s
constexpr std::size_t comparisons_max = 1'000'000;  // of two rules: likewise

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

// The prefixes that an entry names in place or by lists.
std::vector<Prefix> prefixes_of(const Policy& policy, const Condition& condition) {
    std::vector<Prefix> out;
    for (const Predicate& predicate : condition.predicates) {
        out.insert(out.end(), predicate.cidrs.begin(), predicate.cidrs.end());
        if (predicate.field != Field::list) continue;
        for (const NamedSet& set : predicate.sets)
            for (const PolicyPrefix& prefix : policy.region_spec().list_prefixes)
                if (set.prefixes.list == prefix.list) out.push_back(prefix.prefix);
    }
    return out;
}

void lint_allows(const Policy& policy, Trials& trials, std::vector<LintFinding>& out) {
    for (std::size_t i = 0; i < policy.allows.size() && !trials.exhausted(); ++i) {
        const AllowEntry& entry = policy.allows[i];
        if (cover_everything(prefixes_of(policy, entry.match)))
            out.push_back({false, i, "allows-everything", "its prefixes together are every address there is",
                           "name the destinations that are meant"});
        if (const std::string why = contradiction(entry.match); !why.empty())
            out.push_back({false, i, "never-matches", "no flow can satisfy this entry: " + why,
                           "remove one of the two"});
        else if (ports_without(entry.match) || !trials.satisfiable(entry.match, Purpose::allow, any_class))
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

// Whether what is counted is decided by the group: one remote address lies in one prefix, country and system.
bool is_one_a_group(const Rule& rule) {
    const auto grouped = [&](Field field) { return std::ranges::find(rule.by, field) != rule.by.end(); };
    const bool of_remote = rule.distinct == Field::remote_prefix || rule.distinct == Field::country ||
                           rule.distinct == Field::asn;
    return grouped(rule.distinct) || (of_remote && grouped(Field::remote));
}

void lint_exceptions(std::size_t index, const Rule& rule, Trials& trials, std::vector<LintFinding>& out) {
    for (std::size_t e = 0; e < rule.exceptions.size(); ++e) {
        const RuleException& exception = rule.exceptions[e];
        const std::string name = "exception " + std::to_string(e + 1);
        Condition both;
        both.all = {rule.when, exception.match};
        const std::string why = contradiction(both);
        if (!why.empty() || !trials.satisfiable(both, Purpose::rule, any_class))
            out.push_back({true, index, "never-matches",
                           name + " excuses nothing that the rule counts" + (why.empty() ? "" : ": ") + why,
                           "compare its `match` with the rule's `when`"});
        else if (covers(exception.match, rule.when))
            out.push_back({true, index, "excuses-everything",
                           name + " excuses all that the rule counts, until " + exception.expires.text,
                           "name the flows that are meant, or disable the rule"});
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
        if (const std::string why = contradiction(rule.when); !why.empty()) {
            out.push_back(
                {true, i, "unreachable-rule", "no flow can satisfy `when`: " + why, "remove one of the two"});
            continue;
        }
        if (rule.kind == RuleKind::distinct && rule.at_least > 1 && is_one_a_group(rule)) {
            const std::string name(field_info(rule.distinct).name);
            out.push_back({true, i, "unreachable-rule",
                           "each group of this rule has one " + name + ": it never counts " +
                               std::to_string(rule.at_least),
                           "group by what sends or by another field than " + name});
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
        lint_exceptions(i, rule, trials, out);
    }
}

// What two rules have to share for the wider of them to fire whenever the other does.
std::string shared_by(const Rule& rule) {
    std::string out = std::string(rule_kind_name(rule.kind)) + "|" + rule.measure_text + "|" +
                      std::to_string(rule.over.count());
    for (const Field field : rule.by) out += "|" + std::to_string(static_cast<int>(field));
    for (const RuleException& exception : rule.exceptions)
        out += "|" + definition_of(exception.match) + exception.expires.text;
    return out;
}

// Whether `above` reports whenever `rule` would, no later and no more quietly.
bool shadows(const Rule& above, const Rule& rule, bool comes_first) {
    if (above.level < rule.level || above.at_least > rule.at_least || (above.test && !rule.test))
        return false;
    if (!covers(above.when, rule.when)) return false;
    // Of two that are alike the first stays; where all is equal warn_equal_rules() says so.
    if (above.at_least < rule.at_least || !covers(rule.when, above.when)) return true;
    return above.definition != rule.definition && (comes_first || above.level > rule.level);
}

void lint_shadowed(const Policy& policy, std::vector<LintFinding>& out) {
    std::map<std::string, std::vector<std::size_t>> alike;
    for (std::size_t i = 0; i < policy.rules.size(); ++i) {
        const Rule& rule = policy.rules[i];
        const bool plain = rule.kind == RuleKind::sum || (rule.kind == RuleKind::distinct &&
                                                          !rule.bytes_each_at_most && !rule.entropy_at_least);
        if (plain) alike[shared_by(rule)].push_back(i);
    }
    std::size_t compared = 0;
    for (const auto& [what, indices] : alike)
        for (const std::size_t later : indices) {
            compared += indices.size();
            if (compared > comparisons_max) return;
            const Rule& rule = policy.rules[later];
            const auto shadow = std::ranges::find_if(indices, [&](std::size_t other) {
                return other != later && shadows(policy.rules[other], rule, other < later);
            });
            if (shadow == indices.end()) continue;
            const Rule& above = policy.rules[*shadow];
            const bool equal = covers(rule.when, above.when);
            out.push_back(
                {true, later, "shadowed-rule",
                 "\"" + above.id + "\" counts " + (equal ? "the same" : "all that this rule counts") +
                     " and reports " + (above.at_least < rule.at_least ? "sooner" : "no later") +
                     ", at the same level or a higher one",
                 equal ? "remove this rule, or raise its level: then a small volume and a large one differ"
                       : "remove this rule, raise its level, or lower its threshold"});
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
