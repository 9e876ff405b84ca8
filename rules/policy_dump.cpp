// rules/policy_dump.cpp - the policy in effect, in the language that it was written in. See policy_text.h.
// SPDX-License-Identifier: Apache-2.0
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "rules/policy_text.h"
#include "rules/schema.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

using std::chrono::seconds;

// A scalar that another reader could take for something else stands in quotes.
std::string scalar(const std::string& text) {
    const bool plain = !text.empty() && text.find_first_of(":{}[],&*#?|<>=!%@\"'`~\\") == std::string::npos &&
                       text.front() != ' ' && text.back() != ' ' && text.front() != '-' && text != "NO" &&
                       text != "ON";
    if (plain) return text;
    std::string out = "\"";
    for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return out + "\"";
}

template <typename Values, typename ToText>
std::string sequence(const Values& values, ToText to_text) {
    std::string out;
    for (const auto& value : values) out += (out.empty() ? "" : ", ") + scalar(to_text(value));
    return "[" + out + "]";
}

std::string same(const std::string& text) {
    return text;
}

std::string by_text(const std::vector<Field>& by) {
    return sequence(by, [](Field field) { return std::string(field_info(field).name); });
}

std::string domain_text(const DomainName& domain) {
    return (domain.below ? "*." : "") + domain.name;
}

std::string decimal(double value) {
    std::array<char, 32> out{};
    const auto end = std::to_chars(out.data(), out.data() + out.size(), value).ptr;
    return {out.data(), end};
}

// Predicate::text is the values with ", " between them. Names of lists of executables stand for what they
// hold.
std::string values(const Predicate& predicate) {
    std::vector<std::string> out;
    if (!predicate.texts.empty() || !predicate.patterns.empty()) {
        out = predicate.texts;
        for (const DomainName& domain : predicate.domains) out.push_back(domain_text(domain));
        for (const auto& pattern : predicate.patterns) out.push_back("re:" + pattern->pattern());
        if (predicate.unknown) out.emplace_back("unknown");
    } else {
        for (std::size_t at = 0; at < predicate.text.size();) {
            const std::size_t end = std::min(predicate.text.find(", ", at), predicate.text.size());
            out.push_back(predicate.text.substr(at, end - at));
            at = end + 2;
        }
    }
    return out.size() == 1 ? scalar(out.front()) : sequence(out, same);
}

// Keys of one mapping, one after the other; a key that is there already goes below `all`.
class KeysText {
public:
    void add(const std::string& key, const std::string& value) {
        if (std::ranges::find(keys_, key) != keys_.end()) {
            again_ += (again_.empty() ? "{" : ", {") + key + ": " + value + "}";
            return;
        }
        keys_.push_back(key);
        text_ += (text_.empty() ? "" : ", ") + key + ": " + value;
    }
    void add_all(const std::string& conditions) { again_ += (again_.empty() ? "" : ", ") + conditions; }
    [[nodiscard]] std::string close() const {
        if (again_.empty()) return "{" + text_ + "}";
        return "{" + text_ + (text_.empty() ? "" : ", ") + "all: [" + again_ + "]}";
    }
    [[nodiscard]] bool empty() const noexcept { return text_.empty() && again_.empty(); }

private:
    std::vector<std::string> keys_;
    std::string text_, again_;
};

std::string condition_text(const Condition& condition);

void add_nested(const Condition& condition, KeysText& out) {
    for (const Condition& part : condition.all) out.add_all(condition_text(part));
    std::string any;
    for (const Condition& part : condition.any) any += (any.empty() ? "" : ", ") + condition_text(part);
    if (!any.empty()) out.add("any", "[" + any + "]");
    for (const Condition& none : condition.none) out.add("not", condition_text(none));
}

std::string condition_text(const Condition& condition) {
    KeysText out;
    for (const Predicate& predicate : condition.predicates)
        out.add(std::string(field_info(predicate.field).name), values(predicate));
    add_nested(condition, out);
    return out.close();
}

// What selects a destination stands under `to`, all the rest, sender and direction too, under `when`.
std::string allow_text(const AllowEntry& entry) {
    KeysText to, when;
    std::vector<Field> used;
    for (const Predicate& predicate : entry.match.predicates) {
        const std::string name =
            predicate.field == Field::remote ? "cidr" : std::string(field_info(predicate.field).name);
        const bool twice = std::ranges::find(used, predicate.field) != used.end();
        if (!twice && schema::to.find(name) != nullptr)
            to.add(name, values(predicate));
        else
            when.add(std::string(field_info(predicate.field).name), values(predicate));
        used.push_back(predicate.field);
    }
    add_nested(entry.match, when);
    std::string out = "  - id: " + entry.id + "\n    to: " + to.close() + "\n";
    if (!when.empty()) out += "    when: " + when.close() + "\n";
    if (entry.ceiling)
        out += "    ceiling: {bytes_out: " + std::to_string(entry.ceiling->bytes_out) +
               " B, per: " + to_text(entry.ceiling->per) + "}\n";
    out += "    owner: " + scalar(entry.owner) + "\n    reason: " + scalar(entry.reason) + "\n";
    if (!entry.ticket.empty()) out += "    ticket: " + scalar(entry.ticket) + "\n";
    if (!entry.legal_basis.empty()) out += "    legal_basis: " + scalar(entry.legal_basis) + "\n";
    return out + "    expires: " + scalar(entry.expires.text) + "\n";
}

std::string window_text(const Rule& rule) {
    const bool distinct = rule.kind == RuleKind::distinct;
    const std::string unit = !distinct && rule.measure_text.starts_with("bytes") ? " B" : "";
    std::string out = "window: {" +
                      (distinct ? "distinct: " + std::string(field_info(rule.distinct).name)
                                : "sum: " + rule.measure_text) +
                      ", over: " + to_text(rule.over) + ", by: " + by_text(rule.by) +
                      ", at_least: " + std::to_string(rule.at_least) + unit;
    if (rule.bytes_each_at_most)
        out += ", bytes_each_at_most: " + std::to_string(*rule.bytes_each_at_most) + " B";
    if (rule.entropy_at_least) out += ", entropy_at_least: " + decimal(*rule.entropy_at_least);
    return out + "}";
}

std::string kind_text(const Policy& policy, const Rule& rule) {
    const std::string by = "by: " + by_text(rule.by);
    switch (rule.kind) {
        case RuleKind::upload_ratio:
            return "upload_ratio: {over: " + to_text(rule.over) + ", " + by +
                   ", at_least: " + decimal(static_cast<double>(rule.at_least) / 100) +
                   ", floor: " + std::to_string(rule.floor) + " B}";
        case RuleKind::periodic:
            return "periodic: {" + by + ", at_least: " + std::to_string(rule.at_least) +
                   ", every: " + to_text(seconds(rule.every.min)) + ".." + to_text(seconds(rule.every.max)) +
                   ", jitter_at_most: " + decimal(rule.jitter_at_most) + "}";
        case RuleKind::long_lived:
            return "long_lived: {at_least: " + to_text(rule.over) + ", " + by + "}";
        case RuleKind::first_contact:
            return "first_contact: {of: " + by_text(rule.by) + ", learn: " + to_text(rule.learn) +
                   ", forget: " + to_text(rule.forget) + "}";
        case RuleKind::sequence:
            return "sequence: {first: " + policy.rules[rule.first].id +
                   ", then: " + policy.rules[rule.then].id + ", within: " + to_text(rule.over) + ", " + by +
                   "}";
        case RuleKind::sum:
        case RuleKind::distinct:
            break;
    }
    return window_text(rule);
}

std::string exception_text(const RuleException& exception) {
    std::string out =
        "      - {match: " + condition_text(exception.match) + ", owner: " + scalar(exception.owner);
    if (!exception.reason.empty()) out += ", reason: " + scalar(exception.reason);
    if (!exception.ticket.empty()) out += ", ticket: " + scalar(exception.ticket);
    return out + ", expires: " + scalar(exception.expires.text) + "}\n";
}

std::string rule_text(const Policy& policy, const Rule& rule) {
    std::string out = "  - id: " + rule.id + "\n    title: " + scalar(rule.title) +
                      "\n    revision: " + std::to_string(rule.revision) +
                      "\n    status: " + (rule.test ? "test" : "live") +
                      "\n    level: " + std::string(level_name(rule.level)) + "\n";
    if (!rule.tags.empty()) out += "    tags: " + sequence(rule.tags, same) + "\n";
    if (rule.kind != RuleKind::sequence) out += "    when: " + condition_text(rule.when) + "\n";
    out += "    " + kind_text(policy, rule) + "\n    suppress: {for: " + to_text(rule.suppress_for);
    if (!rule.suppress_by.empty()) out += ", by: " + by_text(rule.suppress_by);
    out += "}\n";
    if (!rule.exceptions.empty()) out += "    exceptions:\n";
    for (const RuleException& exception : rule.exceptions) out += exception_text(exception);
    return out;
}

std::string site_text(const Site& site) {
    KeysText keys;
    if (!site.title.empty()) keys.add("title", scalar(site.title));
    keys.add("country", scalar(site.country));
    if (!site.timezone.empty()) keys.add("timezone", scalar(site.timezone));
    if (site.latitude) keys.add("latitude", decimal(*site.latitude));
    if (site.longitude) keys.add("longitude", decimal(*site.longitude));
    return "  " + site.name + ": " + keys.close() + "\n";
}

std::string prefix_text(const Prefix& prefix) {
    return prefix.to_string();
}

std::string asn_text(std::uint32_t asn) {
    return std::to_string(asn);
}

std::string region_text(const Region& region) {
    KeysText keys;
    if (!region.countries.empty()) keys.add("countries", sequence(region.countries, same));
    if (!region.prefixes.empty()) keys.add("cidr", sequence(region.prefixes, prefix_text));
    if (!region.asns.empty()) keys.add("asn", sequence(region.asns, asn_text));
    return "  " + region.name + ": " + keys.close() + "\n";
}

std::string list_text(const List& list) {
    KeysText keys;
    if (!list.prefixes.empty()) keys.add("cidr", sequence(list.prefixes, prefix_text));
    if (!list.set.countries.empty()) keys.add("country", sequence(list.set.countries, same));
    if (!list.set.asns.empty()) keys.add("asn", sequence(list.set.asns, asn_text));
    if (!list.set.domains.empty()) keys.add("domain", sequence(list.set.domains, domain_text));
    if (!list.set.executables.empty()) keys.add("executable", sequence(list.set.executables, same));
    return "  " + list.name + ": " + keys.close() + "\n";
}

}  // namespace

std::string effective_policy(const Policy& policy) {
    std::string out = "policy: egresswatch/v1\nname: " + policy.name +
                      "\nrevision: " + std::to_string(policy.revision) + "\nowner: " + scalar(policy.owner) +
                      "\nhome: " + policy.home +
                      "\nunknown_country: " + (policy.region_spec().unknown_is_home ? "home" : "outside") +
                      "\n# sha256 of the files " + policy.content_hash() + "\n";
    const auto section = [&](const char* key, const auto& entries, auto to_text) {
        if (entries.empty()) return;
        out += "\n" + std::string(key) + ":\n";
        for (const auto& entry : entries) out += to_text(entry);
    };
    section("sites", policy.sites, site_text);
    section("regions", policy.regions, region_text);
    section("lists", policy.lists, list_text);
    section("allow", policy.allows, allow_text);
    section("rules", policy.rules, [&](const Rule& rule) { return rule_text(policy, rule); });
    return out;
}

}  // namespace egresswatch::rules
