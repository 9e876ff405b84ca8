// rules/compile_condition.cpp - the selections: to, from, when, match.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "classifier/datapath/sender.h"
#include "rules/compiler.h"
#include "rules/field_rows.h"
#include "rules/limits.h"
#include "rules/value_lint.h"

namespace egresswatch::rules {

namespace {

constexpr std::array<std::string_view, datapath::KIND_COUNT> kind_words{"local", "home", "unknown",
                                                                        "outside"};
constexpr std::array<std::string_view, 6> local_words{"",        "host",      "link",
                                                      "private", "multicast", "unspecified"};

std::string joined(const std::vector<const Node*>& nodes) {
    std::string out;
    for (const Node* node : nodes) out += (out.empty() ? "" : ", ") + node->text;
    return out;
}

template <std::size_t Size>
std::uint32_t bit_of(const std::array<std::string_view, Size>& words, std::string_view word) {
    const auto found = std::ranges::find(words, word);
    return found == words.end() ? 0 : 1u << (found - words.begin());
}

std::uint32_t tunnel_bits(std::string_view word) {
    constexpr std::uint32_t any_tunnel = ((1u << datapath::TUNNEL_COUNT) - 1) & ~1u;
    for (std::uint8_t kind = 0; kind < datapath::TUNNEL_COUNT; kind++)
        if (tunnel_name(kind) == word) return 1u << kind;
    return any_tunnel;
}

std::uint32_t word_bits(Field field, std::string_view word) {
    switch (field) {
        case Field::address_class: {
            const std::uint32_t kind = bit_of(kind_words, word);
            return kind != 0 ? kind : bit_of(local_words, word) << 8;
        }
        case Field::disputed:
        case Field::allowed:
            return word == "true" ? 2u : 1u;
        case Field::initiator:
            return 1u << (word == "local" ? datapath::INITIATOR_LOCAL : datapath::INITIATOR_REMOTE);
        case Field::tunnel:
            return tunnel_bits(word);
        case Field::weekday:
            return bit_of(rows::weekday_words, word);
        case Field::hidden:
            return bit_of(rows::hidden_words, word);
        case Field::sender:
            return bit_of(rows::sender_words, word) << datapath::SENDER_PROCESS;
        default:
            return 0;
    }
}

void add_number(Predicate& out, std::string_view text) {
    if (out.field == Field::l4_proto) {
        if (const auto value = parse_l4_proto(text)) out.numbers.push_back(*value);
    } else if (out.field == Field::asn) {
        if (const auto value = parse_asn(text)) out.numbers.push_back(*value);
    } else if (const auto value = parse_whole(text, 0, 0xffffffff)) {
        out.numbers.push_back(static_cast<std::uint32_t>(*value));
    }
}

void add_range(Predicate& out, Form form, std::string_view text) {
    const auto range = form == Form::size_range       ? parse_size_range(text)
                       : form == Form::count_range    ? parse_count_range(text)
                       : form == Form::duration_range ? parse_duration_range(text)
                       : form == Form::rate_range     ? parse_rate_range(text)
                                                      : parse_instant_range(text);
    if (range) out.ranges.push_back(*range);
}

// The values whose meaning needs nothing but their text.
void add_plain_value(Predicate& out, Form form, std::string_view text) {
    switch (form) {
        case Form::country_list:
            if (auto value = parse_country(text)) out.countries.push_back(*std::move(value));
            break;
        case Form::port_list:
            if (const auto value = parse_ports(text)) out.ports.push_back(*value);
            break;
        case Form::asn_list:
        case Form::protocol_list:
        case Form::number_list:
            add_number(out, text);
            break;
        case Form::domain_list:
            if (auto value = parse_domain(text)) out.domains.push_back(domain_of(*value));
            break;
        case Form::hash_list:
            if (auto value = parse_sha256(text)) out.texts.push_back(*std::move(value));
            break;
        case Form::time_of_day_list:
            if (const auto value = parse_day_span(text)) out.spans.push_back(*value);
            break;
        case Form::text_list:
        case Form::path_list:
        case Form::id_list:
            out.texts.emplace_back(text);
            break;
        case Form::boolean:
        case Form::word:
        case Form::word_list:
            out.bits |= word_bits(out.field, text);
            break;
        default:
            add_range(out, form, text);
    }
}

// Whether the class of an address, or the host, decides it.
bool of_class(const Predicate& predicate) {
    const auto plain = [](const NamedSet& set) {
        return !set.prefixes.place_set && set.asns.empty() && set.domains.empty() && set.executables.empty();
    };
    switch (predicate.field) {
        case Field::site:
        case Field::address_class:
        case Field::country:
        case Field::disputed:
            return true;
        case Field::region:
        case Field::list:
            return std::ranges::all_of(predicate.sets, plain);
        default:
            return false;
    }
}

}  // namespace

namespace {

bool asks_for_hidden(const Condition& condition) {
    const auto any = [](const std::vector<Condition>& parts) {
        return std::ranges::any_of(parts, asks_for_hidden);
    };
    return condition.find(Field::hidden) != nullptr || any(condition.all) || any(condition.any) ||
           any(condition.none);
}

void let_hidden(Condition& condition) {
    for (Predicate& predicate : condition.predicates) predicate.takes_hidden = true;
    for (auto* parts : {&condition.all, &condition.any, &condition.none})
        for (Condition& part : *parts) let_hidden(part);
}

}  // namespace

void settle_hidden(Condition& condition) {
    if (asks_for_hidden(condition)) let_hidden(condition);
}

DomainName domain_of(std::string_view text) {
    const bool below = text.starts_with("*.");
    return {std::string(text.substr(below ? 2 : 0)), below};
}

void PolicyBuilder::read_condition(const Fields& fields, Selection selection, const std::string& name,
                                   Condition& condition, std::size_t depth) {
    if (depth > limits::nesting_max) {
        problems_.error(fields.where(), fields.node(), "too-nested",
                        "all, any and not are nested deeper than " + std::to_string(limits::nesting_max),
                        "write a flatter condition, or two rules");
        return;
    }
    for (const Key& key : fields.mapping().keys) {
        if (!fields.has(key.name)) continue;
        if (key.inner != nullptr) {
            auto& parts = key.name == "all"   ? condition.all
                          : key.name == "any" ? condition.any
                                              : condition.none;
            for (const Node* node : fields.nodes(key.name)) {
                const Fields inner(*node, *key.inner, fields.where(), problems_);
                if (node->kind == Node::Kind::mapping && node->entries.empty())
                    problems_.error(fields.where(), *node, "empty-condition", "the condition selects nothing",
                                    "write at least one field, or remove it");
                read_condition(inner, selection, name, parts.emplace_back(), depth + 1);
            }
            continue;
        }
        const bool senders = selection == Selection::from && key.name == "list";
        const FieldInfo* info = key.name == "cidr" ? &field_info(Field::remote) : find_field(key.name);
        if (info == nullptr) continue;
        Predicate predicate =
            read_predicate(fields, key, senders ? Field::executable : info->field, selection);
        if (key.source == Source::asn_data) ask_for_asn(fields, fields.key_node(key.name));
        condition.predicates.push_back(std::move(predicate));
    }
    const auto flow = std::ranges::stable_partition(condition.predicates, of_class);
    condition.flow_from = static_cast<std::size_t>(flow.begin() - condition.predicates.begin());
}

Predicate PolicyBuilder::read_predicate(const Fields& fields, const Key& key, Field field,
                                        Selection selection) {
    Predicate out;
    out.field = field;
    out.text = joined(fields.scalars(key.name));
    if (key.name == "list")
        read_list_names(fields, selection, out);
    else if (field == Field::region)
        read_region_names(fields, selection, out);
    else if (field == Field::remote)
        read_prefixes(fields, key, out);
    else
        for (const Node* node : fields.scalars(key.name)) read_value(fields, key, *node, out);
    return out;
}

void PolicyBuilder::read_value(const Fields& fields, const Key& key, const Node& node, Predicate& out) {
    if (key.takes_unknown && node.text == "unknown") {
        out.unknown = true;
        return;
    }
    if (const auto odd = odd_value(out.field, node.text))
        problems_.warning(fields.where(), node, odd->code, odd->message, odd->help);
    if (key.takes_pattern && is_pattern(node.text)) {
        if (++patterns_ > limits::patterns_max) {
            problems_.error(fields.where(), node, "too-many-patterns",
                            "more than " + std::to_string(limits::patterns_max) + " regular expressions",
                            "write names out, or join expressions with |");
            return;
        }
        if (auto pattern = parse_pattern(node.text)) out.patterns.push_back(*std::move(pattern));
        return;
    }
    if (out.field == Field::site) check_site(fields, node);
    add_plain_value(out, key.form, node.text);
}

void PolicyBuilder::check_site(const Fields& fields, const Node& node) {
    if (policy_->find_site(node.text) != nullptr || some_unreadable_) return;
    std::vector<std::string_view> names;
    for (const Site& site : policy_->sites) names.push_back(site.name);
    const std::string_view near = nearest(node.text, names);
    problems_.error(fields.where(), node, "unknown-site", "there is no site " + in_quotes(node.text),
                    !near.empty()   ? "write " + std::string(near)
                    : names.empty() ? "define it under `sites`"
                                    : "write " + one_of(names) + ", or define it under `sites`");
}

void PolicyBuilder::read_prefixes(const Fields& fields, const Key& key, Predicate& out) {
    out.cidrs = prefixes_of(fields, key.name);
    out.prefixes.place_set = add_place_set({}, out.cidrs);
}

void PolicyBuilder::read_list_names(const Fields& fields, Selection selection, Predicate& out) {
    for (const Node* node : fields.scalars("list")) {
        const auto found = lists_.find(node->text);
        if (found == lists_.end()) {
            if (some_unreadable_) continue;
            std::vector<std::string_view> names;
            for (const auto& [known, list] : lists_) names.push_back(known);
            const std::string_view near = nearest(node->text, names);
            problems_.error(fields.where(), *node, "unknown-list",
                            "there is no list " + in_quotes(node->text),
                            near.empty() ? "define it under `lists`" : "write " + std::string(near));
            continue;
        }
        Named& list = found->second;
        list.used = true;
        const bool sender = selection == Selection::from;
        if (!sender && !list.has_destinations && list.has_executables) {
            problems_.error(
                fields.where(), *node, "wrong-list",
                "the list " + in_quotes(node->text) +
                    " holds executables: they are senders, not destinations",
                selection == Selection::to ? "name it under `from`" : "name them under `executable`");
            continue;
        }
        if (sender && !list.has_executables && list.has_destinations)
            problems_.error(fields.where(), *node, "wrong-list",
                            "the list " + in_quotes(node->text) + " holds destinations, not senders",
                            "name it under `to`");
        if (sender) {
            out.texts.insert(out.texts.end(), list.set.executables.begin(), list.set.executables.end());
            continue;
        }
        out.sets.push_back(list.set);
        out.sets.back().executables.clear();
    }
}

void PolicyBuilder::read_region_names(const Fields& fields, Selection selection, Predicate& out) {
    for (const Node* node : fields.scalars("region")) {
        const std::uint32_t kind = bit_of(kind_words, node->text);
        if (kind != 0 && selection != Selection::to) {
            out.bits |= kind;
            continue;
        }
        const auto found = regions_.find(node->text);
        if (found != regions_.end()) {
            out.sets.push_back(found->second.set);
            continue;
        }
        if (some_unreadable_) continue;
        if (kind != 0) {
            problems_.error(fields.where(), *node, "unknown-region",
                            "an allow entry cannot allow all of " + in_quotes(node->text),
                            "name a region of this policy, a list, countries or prefixes");
            continue;
        }
        std::vector<std::string_view> names;
        for (const auto& [known, region] : regions_) names.push_back(known);
        if (selection != Selection::to) names.insert(names.end(), kind_words.begin(), kind_words.end());
        const std::string_view near = nearest(node->text, names);
        problems_.error(fields.where(), *node, "unknown-region",
                        "there is no region " + in_quotes(node->text),
                        near.empty() ? "write " + one_of(names) : "write " + std::string(near));
    }
}

void PolicyBuilder::ask_for_asn(const Fields& fields, const Node& node) {
    if (policy_->asks_for_asn_) return;
    const Where& where = fields.where();
    policy_->asks_for_asn_ = Diagnostic{Severity::warning,
                                        "rules/needs-as-data",
                                        {where.source->name(), node.line, node.column, node.length},
                                        "AS numbers are unknown: no AS data are loaded",
                                        "until they are, what asks for an AS number matches nothing",
                                        where.context,
                                        where.source->shown_line(node.line)};
}

const Predicate* Condition::find(Field field) const noexcept {
    const auto found = std::ranges::find(predicates, field, &Predicate::field);
    return found == predicates.end() ? nullptr : &*found;
}

std::string definition_of(const Condition& condition) {
    std::vector<std::string> parts;
    for (const Predicate& predicate : condition.predicates) {
        // The order in which values are written changes nothing.
        std::vector<std::string> values;
        for (std::size_t at = 0; at <= predicate.text.size();) {
            const std::size_t comma = std::min(predicate.text.find(", ", at), predicate.text.size());
            values.push_back(predicate.text.substr(at, comma - at));
            at = comma + 2;
        }
        std::ranges::sort(values);
        std::string part(field_info(predicate.field).name);
        for (const std::string& value : values) part += "=" + value;
        parts.push_back(std::move(part));
    }
    std::ranges::sort(parts);
    std::string out;
    for (const std::string& part : parts) out += part + ";";
    const auto nested = [&](std::string_view word, const std::vector<Condition>& conditions) {
        for (const Condition& part : conditions) out += std::string(word) + "(" + definition_of(part) + ")";
    };
    nested("all", condition.all);
    nested("any", condition.any);
    nested("not", condition.none);
    return out;
}

}  // namespace egresswatch::rules
