// rules/policy_lint.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy_lint.h"

#include <algorithm>
#include <map>
#include <optional>

#include "classifier/region/special.h"
#include "rules/class_space.h"
#include "rules/compiler.h"
#include "rules/matcher.h"
#include "rules/relations.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t trials_max = 1'000'000;       // of a condition against a class: 0.1 s
constexpr std::size_t comparisons_max = 1'000'000;  // of two rules: likewise

// What the addresses of prefixes written in place can be: bits of region_kind. They have no classes of their
// own.
std::uint32_t kinds_of(const std::vector<Prefix>& prefixes, const RegionSpec& spec) {
    constexpr std::uint32_t any = ~std::uint32_t{0};
    std::uint32_t out = 0;
    for (const Prefix& prefix : prefixes) {
        const auto around = [&](const Prefix& p) {
            return p.is_ipv4() == prefix.is_ipv4() && p.length <= prefix.length && p.contains(prefix.base);
        };
        if (std::ranges::any_of(spec.home_prefixes, around)) {
            out |= 1u << datapath::KIND_HOME;
            continue;
        }
        const SpecialPrefix* special = find_special(prefix.base);
        const bool local =
            special != nullptr && special->kind == datapath::KIND_LOCAL && around(special->prefix);
        // A home prefix inside a local one is home.
        if (!local || !spec.home_prefixes.empty()) return any;
        out |= 1u << datapath::KIND_LOCAL;
    }
    return out;
}

std::uint32_t kinds_of(const Condition& condition, const RegionSpec& spec) {
    std::uint32_t out = ~std::uint32_t{0};
    for (const Predicate& predicate : condition.predicates)
        if (predicate.field == Field::remote) out &= kinds_of(predicate.cidrs, spec);
    for (const Condition& part : condition.all) out &= kinds_of(part, spec);
    return out;
}

class Trials {
public:
    explicit Trials(const Policy& policy) : spec_(policy.region_spec()), classes_(policy) {
        sites_.emplace_back();
        for (const Site& site : policy.sites) sites_.push_back(site.name);
    }

    // Whether some class for which `wanted` holds can satisfy the condition; true where trials ran out.
    bool satisfiable(const Condition& condition, Purpose purpose, bool (*wanted)(const ClassInfo&)) {
        const std::uint32_t kinds = kinds_of(condition, spec_);
        return classes_.any_of([&](const ClassInfo& info) {
            return wanted(info) && (kinds >> info.kind & 1) != 0 &&
                   std::ranges::any_of(sites_, [&](const std::string& site) {
                       return ++trials_ >= trials_max || possible(condition, info, site, purpose);
                   });
        });
    }
    [[nodiscard]] bool exhausted() const noexcept { return trials_ >= trials_max; }

private:
    const RegionSpec& spec_;
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

// The prefixes that an entry names in place, by lists or by regions.
std::vector<Prefix> prefixes_of(const Policy& policy, const Condition& condition) {
    std::vector<Prefix> out;
    for (const Predicate& predicate : condition.predicates) {
        out.insert(out.end(), predicate.cidrs.begin(), predicate.cidrs.end());
        if (predicate.field != Field::list && predicate.field != Field::region) continue;
        for (const NamedSet& set : predicate.sets)
            for (const PolicyPrefix& prefix : policy.region_spec().list_prefixes)
                if (set.prefixes.list == prefix.list) out.push_back(prefix.prefix);
    }
    return out;
}

// A list of nothing but prefixes beside prefixes in place: a flow would have to be in both.
bool list_excludes_cidr(const Policy& policy, const Condition& condition) {
    const Predicate* list = condition.find(Field::list);
    const Predicate* remote = condition.find(Field::remote);
    if (list == nullptr || remote == nullptr) return false;
    for (const NamedSet& set : list->sets)
        if (!set.prefixes.list || !set.countries.empty() || !set.asns.empty() || !set.domains.empty())
            return false;
    Condition of_lists;
    of_lists.predicates = {*list};
    const std::vector<Prefix> prefixes = prefixes_of(policy, of_lists);
    return std::ranges::none_of(remote->cidrs, [&](const Prefix& a) {
        return std::ranges::any_of(prefixes,
                                   [&](const Prefix& b) { return a.contains(b.base) || b.contains(a.base); });
    });
}

void lint_allows(const Policy& policy, Trials& trials, std::vector<LintFinding>& out) {
    for (std::size_t i = 0; i < policy.allows.size() && !trials.exhausted(); ++i) {
        const AllowEntry& entry = policy.allows[i];
        if (cover_everything(prefixes_of(policy, entry.match)))
            out.push_back({false, i, "allows-everything", "its prefixes together are every address there is",
                           "name the destinations that are meant"});
        if (list_excludes_cidr(policy, entry.match))
            out.push_back(
                {false, i, "never-matches",
                 "no flow can satisfy this entry: its list and its cidr have no address in common",
                 "an address has to be in both; write two entries, or put the prefixes into the list"});
        else if (const std::string why = contradiction(entry.match); !why.empty())
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

// How many values the condition leaves a field at the most; none: no bound is plain to see.
std::optional<std::uint64_t> values_left(const Condition& condition, Field field) {
    const Predicate* predicate = condition.find(field);
    constexpr std::uint64_t country_codes = 250;
    if (predicate == nullptr || predicate->unknown || !predicate->patterns.empty())
        return field == Field::country ? std::optional(country_codes) : std::nullopt;
    std::uint64_t ports = 0;
    for (const PortRange& range : predicate->ports) ports += range.last - range.first + 1u;
    switch (field) {
        case Field::port:
        case Field::local_port:
            return ports;
        case Field::country:
            return predicate->countries.size();
        case Field::asn:
        case Field::uid:
        case Field::l4_proto:
            return predicate->numbers.size();
        case Field::executable:
        case Field::user:
        case Field::unit:
            return predicate->texts.size();
        default:
            return std::nullopt;
    }
}

std::string out_of_reach(const Rule& rule) {
    if (rule.kind == RuleKind::distinct)
        if (const auto most = values_left(rule.when, rule.distinct); most && *most < rule.at_least)
            return "`when` leaves " + std::to_string(*most) + " values of " +
                   std::string(field_info(rule.distinct).name) + ": it never counts " +
                   std::to_string(rule.at_least);
    if (rule.kind != RuleKind::long_lived) return {};
    const Predicate* duration = rule.when.find(Field::duration);
    if (duration == nullptr) return {};
    const bool reached = std::ranges::any_of(duration->ranges, [&](const Range& range) {
        return range.max >= static_cast<std::int64_t>(rule.at_least);
    });
    return reached ? std::string() : "`when` asks for flows that are over before they are long-lived";
}

// An exception for every address, whatever else it leaves out.
bool is_for_everything(const Condition& condition) {
    return condition.predicates.size() == 1 && condition.all.empty() && condition.any.empty() &&
           condition.none.empty() && cover_everything(condition.predicates.front().cidrs);
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
        else if (covers(exception.match, rule.when) || is_for_everything(exception.match))
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
        if (const std::string why = out_of_reach(rule); !why.empty()) {
            out.push_back({true, i, "unreachable-rule", why, "lower `at_least`, or widen `when`"});
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
    // What keeps quiet for longer, or for more groups at once, may leave to the other what it says.
    if (above.suppress_for > rule.suppress_for || above.suppress_by != rule.suppress_by) return false;
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
