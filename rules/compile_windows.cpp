// rules/compile_windows.cpp - what a rule looks for: its kind, and the figures of that kind.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>

#include "rules/compiler.h"
#include "rules/limits.h"

namespace egresswatch::rules {

namespace {

using std::chrono::seconds;

constexpr seconds day{86'400};

struct KindKey {
    std::string_view key;
    RuleKind kind;
    const Mapping* mapping;
};
constexpr std::array kind_keys{
    KindKey{"window", RuleKind::sum, &schema::window},
    KindKey{"upload_ratio", RuleKind::upload_ratio, &schema::upload_ratio},
    KindKey{"periodic", RuleKind::periodic, &schema::periodic},
    KindKey{"long_lived", RuleKind::long_lived, &schema::long_lived},
    KindKey{"first_contact", RuleKind::first_contact, &schema::first_contact},
    KindKey{"sequence", RuleKind::sequence, &schema::sequence},
};

std::string kinds_text() {
    std::vector<std::string_view> out;
    for (const KindKey& kind : kind_keys) out.push_back(kind.key);
    return one_of(out);
}

bool counts_bytes(Measure measure) {
    return measure == Measure::bytes_out || measure == Measure::bytes_in;
}

Measure measure_of(std::string_view word) {
    for (const Measure measure :
         {Measure::packets_out, Measure::bytes_in, Measure::packets_in, Measure::flows})
        if (measure_name(measure) == word) return measure;
    return Measure::bytes_out;
}

}  // namespace

void PolicyBuilder::read_kind(const Fields& fields, Rule& rule) {
    const KindKey* found = nullptr;
    bool misspelt = false;
    for (const KindKey& kind : kind_keys) {
        misspelt |= fields.misspelt(kind.key);
        if (!fields.has(kind.key)) continue;
        if (found != nullptr)
            problems_.error(
                fields.where(), fields.key_node(kind.key), "two-kinds",
                "the rule has `" + std::string(found->key) + "` and `" + std::string(kind.key) + "`",
                "make two rules of them");
        else
            found = &kind;
    }
    if (found == nullptr) {
        if (!misspelt)
            problems_.error(fields.where(), fields.node(), "no-kind",
                            "this rule does not say what it looks for",
                            "add `window:`, or one of " + kinds_text());
        return;
    }
    rule.kind = found->kind;
    if (rule.kind != RuleKind::sequence && !fields.has("when") && !fields.misspelt("when"))
        problems_.error(fields.where(), fields.node(), "no-when", "this rule has no `when`",
                        "add `when:`. Which flows it counts.");
    if (rule.kind == RuleKind::sequence && fields.has("when"))
        problems_.error(fields.where(), fields.key_node("when"), "when-of-sequence",
                        "a sequence counts what its two rules report, and no flows",
                        "write the conditions in these rules");
    if (fields.nodes(found->key).empty()) return;
    const Fields inner(*fields.nodes(found->key).front(), *found->mapping, fields.where(), problems_);
    switch (rule.kind) {
        case RuleKind::sum:
        case RuleKind::distinct:
            read_window(inner, rule);
            break;
        case RuleKind::upload_ratio:
            read_upload_ratio(inner, rule);
            break;
        case RuleKind::periodic:
            read_periodic(inner, rule);
            break;
        case RuleKind::long_lived:
            read_long_lived(inner, rule);
            break;
        case RuleKind::first_contact:
            read_first_contact(inner, rule);
            break;
        case RuleKind::sequence:
            read_sequence(inner, rule);
            break;
    }
    const std::string_view by = rule.kind == RuleKind::first_contact ? "of" : "by";
    if (inner.has(by)) check_group(inner, by, rule);
    rule.suppress_by = rule.by;
}

seconds PolicyBuilder::read_duration(const Fields& fields, std::string_view key, seconds otherwise) {
    const auto time = fields.value(key, parse_duration);
    if (!time) return otherwise;
    if (*time < limits::window_over_min || *time > limits::window_over_max)
        problems_.error(fields.where(), *fields.scalars(key).front(), "out-of-range",
                        "a window cannot be " + fields.text(key) + " long", "write 1s to 90d");
    return *time;
}

std::uint64_t PolicyBuilder::read_amount(const Fields& fields, std::string_view key, bool bytes) {
    for (const Node* node : fields.scalars(key)) {
        const auto amount = bytes ? parse_size(node->text) : parse_packets(node->text);
        if (!amount)
            problems_.error(fields.where(), *node, amount.error().code, amount.error().message,
                            amount.error().help);
        else if (*amount == 0)
            problems_.error(fields.where(), *node, "out-of-range",
                            "a window of at least nothing is always full", "write an amount above zero");
        else
            return *amount;
    }
    return 0;
}

void PolicyBuilder::read_window(const Fields& fields, Rule& rule) {
    rule.over = read_duration(fields, "over", seconds{});
    rule.suppress_for = rule.over;
    read_by(fields, "by", rule.by);
    if (fields.has("sum") && fields.has("distinct"))
        problems_.error(fields.where(), fields.key_node("distinct"), "two-kinds",
                        "a window adds up or counts values, not both", "make two rules of them");
    else if (!fields.has("sum") && !fields.has("distinct") && !fields.misspelt("sum") &&
             !fields.misspelt("distinct"))
        problems_.error(fields.where(), fields.node(), "no-measure", "this window has no `sum`",
                        "add `sum:`, or `distinct:` with the field whose values it counts");
    if (fields.has("distinct")) return read_distinct(fields, rule);
    rule.measure = measure_of(fields.text("sum"));
    rule.measure_text = measure_name(rule.measure);
    rule.counts_inbound = rule.measure == Measure::bytes_in || rule.measure == Measure::packets_in;
    rule.at_least = read_amount(fields, "at_least", counts_bytes(rule.measure));
    for (const std::string_view key : {"bytes_each_at_most", "entropy_at_least"})
        if (fields.has(key))
            problems_.error(fields.where(), fields.key_node(key), "needs-distinct",
                            "`" + std::string(key) + "` goes with `distinct` only", "remove it");
}

void PolicyBuilder::read_distinct(const Fields& fields, Rule& rule) {
    rule.kind = RuleKind::distinct;
    rule.at_least = read_amount(fields, "at_least", false);
    if (rule.at_least == 1 || rule.at_least > limits::distinct_max)
        problems_.error(fields.where(), *fields.scalars("at_least").front(), "out-of-range",
                        "different values are counted from 2 to " + std::to_string(limits::distinct_max),
                        "write a number in between");
    if (fields.scalars("distinct").empty()) return;
    const Node& node = *fields.scalars("distinct").front();
    const FieldInfo& field = *find_field(node.text);
    rule.distinct = field.field;
    rule.counts_names = field.field == Field::name;
    rule.measure_text = "distinct_" + std::string(field.name);
    if (field.field == Field::asn) ask_for_asn(fields, node);
    if (fields.has("bytes_each_at_most"))
        rule.bytes_each_at_most = read_amount(fields, "bytes_each_at_most", true);
    if (fields.has("entropy_at_least")) {
        rule.entropy_at_least =
            fields.value("entropy_at_least", [](std::string_view t) { return parse_decimal(t, 0, 8); });
        if (!rule.counts_names)
            problems_.error(fields.where(), fields.key_node("entropy_at_least"), "needs-names",
                            "only names have an entropy", "write `distinct: name`, or remove it");
    }
}

void PolicyBuilder::read_upload_ratio(const Fields& fields, Rule& rule) {
    rule.over = read_duration(fields, "over", seconds{});
    rule.suppress_for = rule.over;
    read_by(fields, "by", rule.by);
    const auto ratio =
        fields.value("at_least", [](std::string_view t) { return parse_decimal(t, 1, 1'000'000); });
    rule.at_least = static_cast<std::uint64_t>(std::llround(100 * ratio.value_or(1)));
    rule.floor = read_amount(fields, "floor", true);
    rule.measure_text = "upload_ratio_percent";
    rule.counts_inbound = true;
}

void PolicyBuilder::read_periodic(const Fields& fields, Rule& rule) {
    rule.every = fields.value("every", parse_duration_range).value_or(Range{10, day.count()});
    // An open end is that of windows.
    rule.every.min = std::max<std::int64_t>(rule.every.min, 1);
    rule.every.max = std::min<std::int64_t>(rule.every.max, limits::window_over_max.count());
    if (rule.every.max < rule.every.min)
        problems_.error(fields.where(), *fields.scalars("every").front(), "out-of-range",
                        "periods are looked for from 1s to 90d", "write a range in between");
    rule.jitter_at_most =
        fields.value("jitter_at_most", [](std::string_view t) { return parse_decimal(t, 0, 1); })
            .value_or(0.1);
    const auto count =
        fields.value("at_least", [](std::string_view t) { return parse_whole(t, 1, 1'000'000'000); });
    rule.at_least = count.value_or(limits::periods_min);
    if (rule.at_least < limits::periods_min || rule.at_least > limits::periods_max)
        problems_.error(fields.where(), *fields.scalars("at_least").front(), "out-of-range",
                        "intervals are counted from " + std::to_string(limits::periods_min) + " to " +
                            std::to_string(limits::periods_max),
                        "write a number in between");
    read_by(fields, "by", rule.by);
    rule.over = day;
    rule.suppress_for = day;
    rule.measure_text = "intervals";
}

void PolicyBuilder::read_long_lived(const Fields& fields, Rule& rule) {
    rule.over = read_duration(fields, "at_least", seconds{});
    rule.at_least = static_cast<std::uint64_t>(rule.over.count());
    rule.by = {Field::remote, Field::port, Field::local_port, Field::l4_proto};
    if (fields.has("by")) {
        rule.by.clear();
        read_by(fields, "by", rule.by);
    }
    rule.suppress_for = day;
    rule.measure_text = "duration_s";
    rule.counts_inbound = true;
}

void PolicyBuilder::read_first_contact(const Fields& fields, Rule& rule) {
    rule.learn = read_duration(fields, "learn", 7 * day);
    rule.forget = read_duration(fields, "forget", 90 * day);
    rule.over = rule.forget;
    rule.at_least = 1;
    read_by(fields, "of", rule.by);
    if (rule.by.empty() && !fields.scalars("of").empty()) return;
    rule.measure_text = "first_contact";
}

void PolicyBuilder::read_sequence(const Fields& fields, Rule& rule) {
    rule.over = read_duration(fields, "within", seconds{});
    rule.suppress_for = rule.over;
    rule.at_least = 1;
    read_by(fields, "by", rule.by);
    rule.measure_text = "sequence";
    if (fields.scalars("first").empty() || fields.scalars("then").empty()) return;
    sequences_.push_back({policy_->rules.size(), fields.where(), fields.scalars("first").front(),
                          fields.scalars("then").front()});
}

std::optional<std::size_t> PolicyBuilder::find_rule(const Where& where, const Node& node) {
    const auto found = std::ranges::find(policy_->rules, node.text, &Rule::id);
    if (found == policy_->rules.end()) {
        if (some_unreadable_) return std::nullopt;
        if (disabled_.contains("rule " + node.text)) {
            problems_.error(
                where, node, "disabled-rule", "an override disables the rule " + in_quotes(node.text),
                "disable this sequence too, or let the rule count: `replace: {status: test}` records "
                "without alerting");
            return std::nullopt;
        }
        std::vector<std::string_view> names;
        for (const Rule& rule : policy_->rules) names.push_back(rule.id);
        const std::string_view near = nearest(node.text, names);
        problems_.error(where, node, "unknown-rule", "there is no rule " + in_quotes(node.text),
                        near.empty() ? "name a rule of this policy by its id" : "write " + std::string(near));
        return std::nullopt;
    }
    if (found->kind == RuleKind::sequence) {
        problems_.error(where, node, "sequence-of-sequence", in_quotes(node.text) + " is a sequence itself",
                        "name a rule that counts flows");
        return std::nullopt;
    }
    return static_cast<std::size_t>(found - policy_->rules.begin());
}

void PolicyBuilder::join_sequences() {
    for (const Sequence& sequence : sequences_) {
        const auto first = find_rule(sequence.where, *sequence.first);
        const auto then = find_rule(sequence.where, *sequence.then);
        if (!first || !then) continue;
        if (first == then)
            problems_.error(sequence.where, *sequence.then, "same-rule", "both parts are the same rule",
                            "name two rules; one rule that reports twice is a longer window of it");
        Rule& rule = policy_->rules[sequence.rule];
        rule.first = *first;
        rule.then = *then;
        rule.definition += "|" + policy_->rules[*first].id + "," + policy_->rules[*then].id;
    }
}

void PolicyBuilder::check_group(const Fields& fields, std::string_view key, const Rule& rule) {
    if (rule.counts_names || std::ranges::find(rule.by, Field::registered_domain) == rule.by.end()) return;
    problems_.error(fields.where(), fields.key_node(key), "needs-names",
                    "only a window of `distinct: name` knows registered domains", "group by remote");
}

std::string definition_of(const Rule& rule) {
    std::string out = definition_of(rule.when) + "|" + std::string(rule_kind_name(rule.kind)) + " " +
                      rule.measure_text + " over " + to_text(rule.over) + " at_least " +
                      std::to_string(rule.at_least) + " suppress " + to_text(rule.suppress_for);
    const auto add = [&](std::string_view name, auto value) {
        out += " " + std::string(name) + std::to_string(value);
    };
    add("floor", rule.floor);
    add("each", rule.bytes_each_at_most.value_or(0));
    add("entropy", rule.entropy_at_least.value_or(0));
    add("jitter", rule.jitter_at_most);
    add("every", rule.every.min);
    add("to", rule.every.max);
    add("learn", rule.learn.count());
    out += " by";
    for (const Field by : rule.by) out += " " + std::string(field_info(by).name);
    out += " /";
    for (const Field by : rule.suppress_by) out += " " + std::string(field_info(by).name);
    for (const RuleException& exception : rule.exceptions)
        out += "|" + definition_of(exception.match) + " until " + exception.expires.text;
    return out;
}

}  // namespace egresswatch::rules
