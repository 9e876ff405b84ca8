// rules/policy_text.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy_text.h"

#include <algorithm>
#include <map>

#include "rules/class_space.h"
#include "rules/limits.h"
#include "rules/matcher.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t classes_max = 500'000;  // looked at; a policy with more says so
constexpr std::size_t countries_named = 12;   // of a group of classes; of more the number only

// A scalar that another reader could take for something else stands in quotes.
std::string scalar(const std::string& text) {
    const bool plain = !text.empty() && text.find_first_of(":{}[],&*#?|<>=!%@\"'`") == std::string::npos &&
                       text.front() != ' ' && text.front() != '-' && text != "NO" && text != "ON";
    if (plain) return text;
    std::string out = "\"";
    for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return out + "\"";
}

// Predicate::text is the values with ", " between them.
std::string values(const std::string& text) {
    if (text.find(", ") == std::string::npos) return scalar(text);
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find(", ", at), text.size());
        out += (out.empty() ? "[" : ", ") + scalar(text.substr(at, end - at));
        at = end + 2;
    }
    return out + "]";
}

std::string condition_text(const Condition& condition) {
    std::string out;
    const auto add = [&](const std::string& part) { out += (out.empty() ? "" : ", ") + part; };
    for (const Predicate& predicate : condition.predicates)
        add(std::string(field_info(predicate.field).name) + ": " + values(predicate.text));
    const auto nested = [&](const char* key, const std::vector<Condition>& conditions) {
        if (conditions.empty()) return;
        std::string inner;
        for (const Condition& one : conditions) inner += (inner.empty() ? "" : ", ") + condition_text(one);
        add(std::string(key) + ": [" + inner + "]");
    };
    nested("all", condition.all);
    nested("any", condition.any);
    for (const Condition& none : condition.none) add("not: " + condition_text(none));
    return "{" + out + "}";
}

std::string by_text(const std::vector<Field>& by) {
    std::string out;
    for (const Field field : by) out += (out.empty() ? "" : ", ") + std::string(field_info(field).name);
    return "[" + out + "]";
}

std::string amount_text(const Rule& rule) {
    return std::to_string(rule.at_least) + (rule.measure_text.starts_with("bytes") ? " B"
                                            : rule.kind == RuleKind::long_lived    ? "s"
                                                                                   : "");
}

std::string countries_text(const std::set<Country>& countries) {
    std::string out;
    for (const Country& country : countries) out += (out.empty() ? "" : ", ") + scalar(country);
    return "[" + out + "]";
}

std::string allow_text(const AllowEntry& entry) {
    std::string out =
        "  - id: " + entry.id +
        "\n    # to, from, direction and when, as one condition\n    match: " + condition_text(entry.match) +
        "\n";
    if (entry.ceiling)
        out += "    ceiling: {bytes_out: " + std::to_string(entry.ceiling->bytes_out) +
               " B, per: " + to_text(entry.ceiling->per) + "}\n";
    return out + "    owner: " + scalar(entry.owner) + "\n    reason: " + scalar(entry.reason) +
           "\n    expires: " + scalar(entry.expires.text) + "\n";
}

std::string rule_text(const Rule& rule) {
    std::string tags;
    for (const std::string& tag : rule.tags) tags += (tags.empty() ? "" : ", ") + tag;
    std::string out = "  - id: " + rule.id + "\n    title: " + scalar(rule.title) +
                      "\n    revision: " + std::to_string(rule.revision) +
                      "\n    level: " + std::string(level_name(rule.level)) + "\n    tags: [" + tags +
                      "]\n    when: " + condition_text(rule.when) + "\n    " +
                      (rule.kind == RuleKind::sum ? "window: {sum: " + rule.measure_text + ", over: "
                       : rule.kind == RuleKind::distinct
                           ? "window: {distinct: " + std::string(field_info(rule.distinct).name) + ", over: "
                           : std::string(rule_kind_name(rule.kind)) + ": {over: ") +
                      to_text(rule.over) + ", by: " + by_text(rule.by) + ", at_least: " + amount_text(rule) +
                      "}\n    suppress: {for: " + to_text(rule.suppress_for) +
                      ", by: " + by_text(rule.suppress_by) + "}\n";
    if (!rule.exceptions.empty()) out += "    exceptions:\n";
    for (const RuleException& exception : rule.exceptions)
        out += "      - {match: " + condition_text(exception.match) + ", owner: " + scalar(exception.owner) +
               ", expires: " + scalar(exception.expires.text) + "}\n";
    return out;
}

// Classes that can match the same.
struct Bundle {
    std::vector<std::string> allows, rules;
    std::set<Country> countries;
    std::size_t classes = 0;
};

std::string joined(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
    return out.empty() ? "none" : out;
}

std::string label_of(const Policy& policy, const ClassInfo& info) {
    std::string out = kind_name(info.kind);
    std::string lists;
    for (const std::uint16_t list : info.lists)
        lists += (lists.empty() ? "" : ", ") + policy.region_spec().list_names[list];
    return lists.empty() ? out : out + ", in " + lists;
}

std::map<std::string, Bundle> bundles_of(const Policy& policy, const std::string& site, bool& cut) {
    std::map<std::string, Bundle> out;
    std::size_t seen = 0;
    const ClassSpace space(policy);
    cut = space.any_of([&](const ClassInfo& info) {
        Bundle bundle;
        std::string key = label_of(policy, info);
        for (const AllowEntry& entry : policy.allows)
            if (possible(entry.match, info, site, Purpose::allow)) bundle.allows.push_back(entry.id);
        for (const Rule& rule : policy.rules)
            if (possible(rule.when, info, site, Purpose::rule)) bundle.rules.push_back(rule.id);
        for (const std::string& id : bundle.allows) key += "\n" + id;
        key += "\n";
        for (const std::string& id : bundle.rules) key += "\n" + id;
        Bundle& into = out.try_emplace(std::move(key), std::move(bundle)).first->second;
        ++into.classes;
        if (!info.country.empty()) into.countries.insert(info.country);
        return ++seen >= classes_max;
    });
    return out;
}

std::string windows_text(const Policy& policy) {
    constexpr std::uint64_t group_bytes = 170, cell_bytes = 32;  // limits.h
    std::string out = "windows\n";
    for (const Rule& rule : policy.rules) {
        const auto bucket = rule.over / static_cast<std::int64_t>(limits::window_buckets);
        out += "  " + rule.id + ": " + rule.measure_text + " over " + to_text(rule.over) + " in " +
               std::to_string(limits::window_buckets) + " buckets of " +
               (bucket.count() > 0 ? to_text(bucket) : "less than 1s") + ", by " + by_text(rule.by) +
               ", at least " + amount_text(rule) + "; at most " + std::to_string(limits::window_groups_max) +
               " groups of " + std::to_string(group_bytes) + " to " +
               std::to_string(group_bytes + cell_bytes * (limits::window_buckets + 1)) + " bytes\n";
    }
    const std::uint64_t total =
        limits::window_groups_total_max * group_bytes + limits::window_cells_total_max * cell_bytes;
    return out + "  all of them together: at most " + std::to_string(limits::window_groups_total_max) +
           " groups and " + std::to_string(limits::window_cells_total_max) + " buckets, " +
           std::to_string(total >> 20) +
           " MiB; beyond, the group that was quiet longest is evicted and counted\n";
}

}  // namespace

std::string effective_policy(const Policy& policy) {
    std::string out = "policy: egresswatch/v1\nname: " + policy.name +
                      "\nrevision: " + std::to_string(policy.revision) + "\nowner: " + scalar(policy.owner) +
                      "\nhome: " + policy.home + "\n# sha256 " + policy.content_hash() + "\n\nregions:\n";
    for (const Region& region : policy.regions) {
        out += "  " + region.name + ": {countries: " + countries_text(region.countries);
        std::string prefixes;
        for (const Prefix& prefix : region.prefixes)
            prefixes += (prefixes.empty() ? "" : ", ") + scalar(prefix.to_string());
        if (!prefixes.empty()) out += ", cidr: [" + prefixes + "]";
        out += "}\n";
    }
    out += "\nallow:" + std::string(policy.allows.empty() ? " []\n" : "\n");
    for (const AllowEntry& entry : policy.allows) out += allow_text(entry);
    out += "\nrules:" + std::string(policy.rules.empty() ? " []\n" : "\n");
    for (const Rule& rule : policy.rules) out += rule_text(rule);
    return out;
}

std::string explain_compiled(const Policy& policy, const std::string& site) {
    bool cut = false;
    const std::map<std::string, Bundle> bundles = bundles_of(policy, site, cut);
    std::string out =
        "policy " + policy.name + " revision " + std::to_string(policy.revision) + ", sha256 " +
        policy.content_hash() + ", on a host of " + (site.empty() ? "no site" : "site " + site) +
        "\n\nclasses: what an update of a flow can still match, in the order in which it is asked\n";
    for (const auto& [key, bundle] : bundles) {
        out += "  " + key.substr(0, key.find('\n'));
        if (bundle.countries.size() > countries_named)
            out += " (" + std::to_string(bundle.countries.size()) + " countries)";
        else if (!bundle.countries.empty())
            out += " " + countries_text(bundle.countries);
        out += "\n    allow: " + joined(bundle.allows) + "\n    rules: " + joined(bundle.rules) + "\n";
    }
    if (cut) out += "  and more: only " + std::to_string(classes_max) + " classes were looked at\n";
    return out + "\n" + windows_text(policy);
}

}  // namespace egresswatch::rules
