// rules/compile_rules.cpp - rules, their windows, suppression and exceptions; what only the whole set shows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "rules/compiler.h"
#include "rules/limits.h"
#include "rules/relations.h"

namespace egresswatch::rules {

void PolicyBuilder::read_rules(const File& file) {
    const auto& nodes = file.fields->nodes("rules");
    for (std::size_t i = 0; i < nodes.size() && !problems_.full(); ++i)
        if (const Node* node = overridden("rule", id_in(*nodes[i]), *nodes[i]))
            read_rule(Fields(*node, schema::rule, entry_where(file, *nodes[i], "rule", i), problems_));
}

void PolicyBuilder::read_rule(const Fields& fields) {
    if (fields.node().kind != Node::Kind::mapping) return;
    Rule rule;
    rule.id = fields.text("id");
    rule.place = {fields.where().source->name(), fields.node().line, fields.node().column,
                  fields.node().length};
    if (!rule.id.empty()) claim("rule", rule.id, fields.where(), *fields.scalars("id").front());
    rule.title = fields.text("title");
    rule.revision = static_cast<std::uint32_t>(
        fields.value("revision", [](std::string_view t) { return parse_whole(t, 1, 1'000'000'000); })
            .value_or(1));
    rule.level = fields.value("level", parse_level_word).value_or(Level::low);
    rule.tags = fields.list("tags", parse_tag);
    if (!fields.nodes("when").empty()) {
        read_condition(Fields(*fields.nodes("when").front(), schema::when, fields.where(), problems_),
                       Selection::when, "rule:" + rule.id, rule.when);
    }
    rule.test = fields.text("status") == "test";
    read_kind(fields, rule);
    if (!fields.nodes("suppress").empty())
        read_suppress(Fields(*fields.nodes("suppress").front(), schema::suppress, fields.where(), problems_),
                      rule);
    read_exceptions(fields, rule);
    rule.definition = definition_of(rule);
    policy_->rules.push_back(std::move(rule));
    rule_nodes_.emplace_back(fields.where(), &fields.node());
}

void PolicyBuilder::read_by(const Fields& fields, std::string_view key, std::vector<Field>& by) {
    for (const Node* node : fields.scalars(key)) {
        const Field field = find_field(node->text)->field;
        if (field == Field::asn) ask_for_asn(fields, *node);
        if (std::ranges::find(by, field) == by.end())
            by.push_back(field);
        else
            problems_.error(fields.where(), *node, "duplicate-value",
                            "`" + std::string(key) + "` names " + node->text + " twice", "name it once");
    }
}

void PolicyBuilder::read_suppress(const Fields& fields, Rule& rule) {
    if (const auto time = fields.value("for", parse_duration)) {
        rule.suppress_for = *time;
        if (*time > limits::window_over_max)
            problems_.error(fields.where(), *fields.scalars("for").front(), "out-of-range",
                            "a finding cannot be suppressed for " + fields.text("for"), "write 0s to 90d");
    }
    if (!fields.has("by")) return;
    std::vector<Field> by;
    read_by(fields, "by", by);
    const auto in_window = [&](Field field) { return std::ranges::find(rule.by, field) != rule.by.end(); };
    // What an address decides is no finer than the address.
    const auto of_remote = [](Field field) {
        return field == Field::remote_prefix || field == Field::country || field == Field::asn;
    };
    for (const Node* node : fields.scalars("by")) {
        const Field field = find_field(node->text)->field;
        if (in_window(field) || (of_remote(field) && in_window(Field::remote))) continue;
        problems_.error(
            fields.where(), *node, "finer-suppression",
            "the window is not grouped by " + node->text + ": its groups cannot be suppressed by it",
            "name fields of the window's `by`, or leave `by` out here");
    }
    rule.suppress_by = std::move(by);
}

void PolicyBuilder::read_exceptions(const Fields& fields, Rule& rule) {
    for (const Node* node : fields.nodes("exceptions")) {
        const Fields entry(*node, schema::exception, fields.where(), problems_);
        RuleException exception;
        exception.owner = entry.text("owner");
        exception.reason = entry.text("reason");
        exception.ticket = entry.text("ticket");
        exception.expires = read_expiry(entry);
        if (!entry.nodes("match").empty()) {
            const Fields match(*entry.nodes("match").front(), schema::match, fields.where(), problems_);
            if (match.node().entries.empty())
                problems_.error(fields.where(), match.node(), "empty-match",
                                "the exception would excuse every flow", "name the flows under `match`");
            read_condition(match, Selection::match, "rule:" + rule.id, exception.match);
            settle_hidden(exception.match);
        }
        rule.exceptions.push_back(std::move(exception));
    }
}

void PolicyBuilder::warn_covered_allows() {
    constexpr std::size_t compared_max =
        500;  // each against each: beyond that it would take longer than it helps
    const auto& allows = policy_->allows;
    if (allows.size() > compared_max) return;
    for (std::size_t later = 0; later < allows.size(); ++later) {
        for (std::size_t earlier = 0; earlier < allows.size(); ++earlier) {
            if (earlier == later || allows[earlier].expires.at < allows[later].expires.at) continue;
            // Above its ceiling an entry allows nothing: what the other allows then is its own.
            if (allows[earlier].ceiling || !covers(allows[earlier].match, allows[later].match)) continue;
            // Of two equal entries the one that comes first stays.
            if (earlier > later && covers(allows[later].match, allows[earlier].match) &&
                allows[later].expires.at == allows[earlier].expires.at)
                continue;
            problems_.warning(
                allow_nodes_[later].first, *allow_nodes_[later].second, "covered-entry",
                "\"" + allows[earlier].id + "\" already allows all that this entry allows, and for as long",
                "remove one of them");
            break;
        }
    }
}

void PolicyBuilder::warn_equal_rules() {
    std::map<std::string_view, std::size_t> first;
    for (std::size_t i = 0; i < policy_->rules.size(); ++i) {
        const auto [known, is_new] = first.emplace(policy_->rules[i].definition, i);
        if (!is_new)
            problems_.warning(rule_nodes_[i].first, *rule_nodes_[i].second, "equal-rule",
                              "this rule counts the same as \"" + policy_->rules[known->second].id + "\"",
                              "remove one of them: each finding would come twice");
    }
}

}  // namespace egresswatch::rules
