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
    for (const Country& country : countries) out += (out.empty() ? "" : ", ") + country;
    return "[" + out + "]";
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

// About what a group takes, one with several buckets or values beside it, one with intervals, a bucket:
// limits.h.
constexpr std::uint64_t group_bytes = 120, several_bytes = 70, intervals_bytes = 230, cell_bytes = 32;

std::string group_size_text(const Rule& rule) {
    const auto up_to = [](std::uint64_t cells) {
        return std::to_string(group_bytes) + " to " +
               std::to_string(group_bytes + several_bytes + cell_bytes * cells) + " bytes";
    };
    switch (rule.kind) {
        case RuleKind::sum:
        case RuleKind::upload_ratio:
            return up_to(limits::window_buckets + 1);
        case RuleKind::distinct:
            return up_to(rule.at_least);
        case RuleKind::periodic:
            return std::to_string(intervals_bytes) + " bytes";
        case RuleKind::long_lived:
        case RuleKind::first_contact:
        case RuleKind::sequence:
            break;
    }
    return std::to_string(group_bytes) + " bytes";
}

std::string window_text(const Rule& rule) {
    const std::string over = to_text(rule.over);
    const std::string amount = ", by " + by_text(rule.by) + ", at least " + amount_text(rule);
    const auto bucket = rule.over / static_cast<std::int64_t>(limits::window_buckets);
    const std::string buckets = " in " + std::to_string(limits::window_buckets) + " buckets of " +
                                (bucket.count() > 0 ? to_text(bucket) : "less than 1s");
    switch (rule.kind) {
        case RuleKind::sum:
        case RuleKind::upload_ratio:
            return rule.measure_text + " over " + over + buckets + amount;
        case RuleKind::distinct:
            return rule.measure_text + " over " + over + ", each value with the time of its last flow" +
                   amount;
        case RuleKind::periodic:
            return "the last " + std::to_string(limits::periods_max) + " intervals" + amount;
        case RuleKind::long_lived:
            return "the age of each flow" + amount;
        case RuleKind::first_contact:
            return "the last contact, forgotten after " + over + ", by " + by_text(rule.by);
        case RuleKind::sequence:
            break;
    }
    return "when its first part was reached, within " + over + ", by " + by_text(rule.by);
}

std::string windows_text(const Policy& policy) {
    std::string out = "windows\n";
    for (const Rule& rule : policy.rules)
        out += "  " + rule.id + ": " + window_text(rule) + "; at most " + std::to_string(rule.groups_max()) +
               " groups of " + group_size_text(rule) + "\n";
    const std::uint64_t total = limits::window_groups_total_max * (group_bytes + several_bytes) +
                                limits::window_cells_total_max * cell_bytes;
    return out + "  all of them together: at most " + std::to_string(limits::window_groups_total_max) +
           " groups and " + std::to_string(limits::window_cells_total_max) + " buckets, " +
           std::to_string(total >> 20) +
           " MiB; beyond, the group that was quiet longest is evicted and counted\n";
}

}  // namespace

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
