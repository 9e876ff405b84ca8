// rules/fields.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/fields.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "rules/limits.h"
#include "rules/placeholder.h"

namespace egresswatch::rules {

namespace {

// A node that an override brought stands in another file than the entry.
const SourceText& source_of(const Where& where, const Node& node) {
    return node.source == nullptr ? *where.source : *node.source;
}

Diagnostic make(Severity severity, const Where& where, const Node& node, std::string_view code,
                std::string message, std::string help) {
    return {severity,
            "rules/" + std::string(code),
            {source_of(where, node).name(), node.line, node.column, node.length},
            std::move(message),
            std::move(help),
            where.context,
            source_of(where, node).shown_line(node.line)};
}

Value<std::string> check_text(std::string_view text) {
    if (text.find_first_not_of(' ') == std::string_view::npos)
        return std::unexpected(ValueError{"empty-text", "the text is empty", "write it, or remove the key"});
    if (text.size() > limits::text_length_max)
        return std::unexpected(
            ValueError{"long-text", "the text is longer than a record carries",
                       "write one line of at most " + std::to_string(limits::text_length_max) + " bytes"});
    if (text.find('\n') != std::string_view::npos)
        return std::unexpected(ValueError{"many-lines", "the text has several lines, and a record one",
                                          "write it on one line; `>-` in the place of `|` joins lines"});
    if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
        return std::unexpected(ValueError{"control-character", "the text has a character that no reader sees",
                                          "remove the escape sequence"});
    return std::string(text);
}

Value<std::string> check_version(std::string_view text) {
    const ValueError refused{"bad-version", in_quotes(text) + " is not a version", "write it as in >=1.0"};
    if (!text.starts_with(">=")) return std::unexpected(refused);
    text.remove_prefix(2);
    while (text.starts_with(' ')) text.remove_prefix(1);
    const std::size_t point = text.find('.');
    if (point == std::string_view::npos || !parse_whole(text.substr(0, point), 0, 9999) ||
        !parse_whole(text.substr(point + 1), 0, 9999))
        return std::unexpected(refused);
    return std::string(text);
}

Value<std::string> check_word(const Key& key, std::string_view text) {
    if (std::ranges::find(key.words, text) != key.words.end()) return std::string(text);
    const std::string_view near = nearest(text, key.words);
    return std::unexpected(
        ValueError{"unknown-word", in_quotes(text) + " is not a value of `" + std::string(key.name) + "`",
                   near.empty() ? "write " + one_of(key.words)
                                : "write " + std::string(near) +
                                      (key.words.size() > 1 ? "; permitted are " + one_of(key.words) : "")});
}

template <typename T>
std::optional<ValueError> problem_of(const Value<T>& value) {
    return value ? std::nullopt : std::optional(value.error());
}

// The one place that says which text a form takes.
std::optional<ValueError> check_scalar(const Key& key, std::string_view text) {
    if (text == placeholder)
        return ValueError{"fill-in", "`" + std::string(key.name) + "` is still to be filled in",
                          "write it in the place of " + std::string(placeholder) +
                              ": a person answers for what is allowed. " + std::string(key.doc)};
    if (key.takes_unknown && text == "unknown") return std::nullopt;
    if (is_pattern(text) && key.takes_pattern) return problem_of(parse_pattern(text));
    if (is_pattern(text) && key.form != Form::text)
        return ValueError{"no-pattern", "`" + std::string(key.name) + "` takes no regular expression",
                          "write the values out"};
    switch (key.form) {
        case Form::text:
        case Form::text_list:
            return problem_of(check_text(text));
        case Form::id:
        case Form::id_list:
            return problem_of(parse_id(text));
        case Form::integer:
            return problem_of(parse_whole(text, 1, 1'000'000'000));
        case Form::count:
            return problem_of(parse_whole(text, 0, 0xffffffff));
        case Form::decimal: {
            if (key.name == "latitude") return problem_of(parse_decimal(text, -90, 90));
            if (key.name == "longitude") return problem_of(parse_decimal(text, -180, 180));
            if (key.name == "at_least") return problem_of(parse_decimal(text, 1, 1'000'000));
            return problem_of(parse_decimal(text, 0, key.name == "jitter_at_most" ? 1 : 8));
        }
        case Form::country:
        case Form::country_list:
            return problem_of(parse_country(text));
        case Form::date:
            return problem_of(parse_date(text));
        case Form::expiry:
            return problem_of(parse_expiry(text));
        case Form::size:
            return std::nullopt;  // bytes or packets: whoever reads it knows which
        case Form::duration:
            return problem_of(parse_duration(text));
        case Form::level:
            return problem_of(parse_level_word(text));
        case Form::version:
            return problem_of(check_version(text));
        case Form::word:
        case Form::word_list:
            return problem_of(check_word(key, text));
        case Form::boolean:
            return problem_of(parse_bool(text));
        case Form::cidr_list:
            return problem_of(parse_prefix(text));
        case Form::asn_list:
            return problem_of(parse_asn(text));
        case Form::domain_list:
            return problem_of(parse_domain(text));
        case Form::path_list:
            return problem_of(parse_path(text));
        case Form::port_list:
            return problem_of(parse_ports(text));
        case Form::protocol_list:
            return problem_of(parse_l4_proto(text));
        case Form::number_list:
            return problem_of(parse_whole(text, 0, 0xffffffff));
        case Form::hash_list:
            return problem_of(parse_sha256(text));
        case Form::time_of_day_list:
            return problem_of(parse_day_span(text));
        case Form::tag_list:
            return problem_of(parse_tag(text));
        case Form::size_range:
            return problem_of(parse_size_range(text));
        case Form::count_range:
            return problem_of(parse_count_range(text));
        case Form::duration_range:
            return problem_of(parse_duration_range(text));
        case Form::rate_range:
            return problem_of(parse_rate_range(text));
        case Form::instant_range:
            return problem_of(parse_instant_range(text));
        case Form::zone:
            return problem_of(parse_zone(text));
        case Form::mapping:
        case Form::fragment:
        case Form::mapping_list:
        case Form::named_mappings:
            break;
    }
    return std::nullopt;
}

std::string example_of(const Key& key) {
    switch (key.form) {
        case Form::mapping:
        case Form::mapping_list: {
            std::string first = key.inner != nullptr && !key.inner->keys.empty()
                                    ? std::string(key.inner->keys.front().name)
                                    : "key";
            const std::string entry = "{" + first + ": ..., ...}";
            return "write `" + std::string(key.name) + ": " +
                   (key.form == Form::mapping ? entry : "[" + entry + "]") +
                   "`, or its keys on the lines below";
        }
        case Form::named_mappings:
            return "write a name and its keys on the lines below, as in `name: {...}`";
        default:
            return "write " +
                   std::string(takes_list(key.form) ? "one value, or a list as in [a, b]" : "one value");
    }
}

std::string with_article(std::string_view noun) {
    const bool vowel = noun.find_first_of("aeiou") == 0;
    return (vowel ? "an " : "a ") + std::string(noun);
}

std::string_view kind_name_of(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null:
            return "nothing";
        case Node::Kind::scalar:
            return "a single value";
        case Node::Kind::sequence:
            return "a list";
        case Node::Kind::mapping:
            return "a mapping";
    }
    return "";
}

}  // namespace

bool may_be_empty(const Key& key) noexcept {
    return key.name == "by" || key.form == Form::tag_list;
}

void Problems::add(Diagnostic diagnostic) {
    errors_ += diagnostic.severity == Severity::error ? 1 : 0;
    if (full())
        ++beyond_;
    else
        list_.push_back(std::move(diagnostic));
}

bool Problems::full() const noexcept {
    return list_.size() >= 10 * limits::diagnostics_max;
}

void Problems::add(std::vector<Diagnostic> more) {
    for (Diagnostic& diagnostic : more) add(std::move(diagnostic));
}

void Problems::error(const Where& where, const Node& node, std::string_view code, std::string message,
                     std::string help) {
    add(make(Severity::error, where, node, code, std::move(message), std::move(help)));
}

void Problems::warning(const Where& where, const Node& node, std::string_view code, std::string message,
                       std::string help) {
    add(make(Severity::warning, where, node, code, std::move(message), std::move(help)));
}

void Problems::error(std::string file, std::string_view code, std::string message, std::string help) {
    add(Diagnostic{Severity::error,
                   "rules/" + std::string(code),
                   {std::move(file), 0, 0, 1},
                   std::move(message),
                   std::move(help),
                   {},
                   {}});
}

void Problems::warning(std::string file, std::string_view code, std::string message, std::string help) {
    add(Diagnostic{Severity::warning,
                   "rules/" + std::string(code),
                   {std::move(file), 0, 0, 1},
                   std::move(message),
                   std::move(help),
                   {},
                   {}});
}

std::vector<Diagnostic> Problems::take() {
    const std::size_t found = list_.size() + beyond_;
    const bool too_many = found > limits::diagnostics_max;
    std::vector<std::size_t> order(list_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, [&](std::size_t left, std::size_t right) {
        const Diagnostic& a = list_[left];
        const Diagnostic& b = list_[right];
        // Of too many the errors come first: a flood of warnings must not hide one.
        if (too_many && a.severity != b.severity) return a.severity == Severity::error;
        return std::tie(a.span.file, a.span.line, a.span.column, left) <
               std::tie(b.span.file, b.span.line, b.span.column, right);
    });
    if (too_many) order.resize(limits::diagnostics_max);
    std::vector<Diagnostic> out;
    for (const std::size_t index : order) out.push_back(std::move(list_[index]));
    if (too_many)
        out.push_back({errors_ > 0 ? Severity::error : Severity::warning,
                       "rules/too-many-diagnostics",
                       {out.front().span.file, 0, 0, 1},
                       std::to_string(found - limits::diagnostics_max) + " more problems are not shown",
                       "mend these first",
                       {},
                       {}});
    list_.clear();
    return out;
}

Fields::Fields(const Node& node, const Mapping& mapping, Where where, Problems& problems)
    : node_(&node), mapping_(&mapping), where_(std::move(where)), problems_(&problems) {
    if (node.kind != Node::Kind::mapping) {
        problems.error(where_, node, "wrong-form",
                       with_article(mapping.name) + " is a mapping, not " + std::string(kind_name_of(node)),
                       "write `key: value` lines");
        return;
    }
    for (const Node::Entry& entry : node.entries) {
        if (problems.full()) return;
        read_entry(entry);
    }
    require_keys();
}

const Fields::Slot* Fields::slot(std::string_view key) const noexcept {
    const auto found = std::ranges::find_if(slots_, [&](const Slot& s) { return s.key->name == key; });
    return found == slots_.end() ? nullptr : &*found;
}

bool Fields::has(std::string_view key) const noexcept {
    return slot(key) != nullptr;
}

bool Fields::misspelt(std::string_view key) const noexcept {
    return std::ranges::find(misspelt_, key) != misspelt_.end();
}

const Node& Fields::key_node(std::string_view key) const {
    const Slot* found = slot(key);
    return found == nullptr ? *node_ : *found->key_node;
}

const std::vector<const Node*>& Fields::scalars(std::string_view key) const {
    static const std::vector<const Node*> none;
    const Slot* found = slot(key);
    return found == nullptr ? none : found->scalars;
}

const std::vector<const Node*>& Fields::nodes(std::string_view key) const {
    static const std::vector<const Node*> none;
    const Slot* found = slot(key);
    return found == nullptr ? none : found->nodes;
}

const std::vector<Node::Entry>& Fields::named(std::string_view key) const {
    static const std::vector<Node::Entry> none;
    const Slot* found = slot(key);
    return found == nullptr ? none : found->named;
}

std::string Fields::text(std::string_view key) const {
    return scalars(key).empty() ? std::string() : scalars(key).front()->text;
}

void Fields::read_entry(const Node::Entry& entry) {
    const Key* key = mapping_->find(entry.key->text);
    if (key == nullptr) {
        unknown_key(*entry.key);
        return;
    }
    if (const Slot* first = slot(key->name)) {
        problems_->error(
            where_, *entry.key, "duplicate-key", "`" + std::string(key->name) + "` is written twice",
            "the first one is in line " + std::to_string(first->key_node->line) + ": keep one of them");
        return;
    }
    slots_.push_back({key, entry.key.get(), {}, {}, {}});
    read_value(slots_.back(), *entry.value);
}

void Fields::read_value(Slot& slot, const Node& value) {
    const Key& key = *slot.key;
    const bool wants_many = key.form == Form::mapping_list || key.form == Form::named_mappings;
    if (value.kind == Node::Kind::null) {
        // `rules:` with every entry commented out is an empty list; anywhere else nothing means a slip.
        if (!wants_many || key.need == Need::required)
            problems_->error(where_, *slot.key_node, "no-value",
                             "`" + std::string(key.name) + "` has no value", example_of(key));
        return;
    }
    const auto wrong_form = [&] {
        problems_->error(where_, value, "wrong-form",
                         "`" + std::string(key.name) + "` is a " + std::string(form_name(key.form)) +
                             ", not " + std::string(kind_name_of(value)),
                         example_of(key));
    };
    switch (key.form) {
        case Form::fragment:
        case Form::mapping: {
            if (value.kind != Node::Kind::mapping) return wrong_form();
            slot.nodes.push_back(&value);
            return;
        }
        case Form::mapping_list: {
            if (value.kind != Node::Kind::sequence) return wrong_form();
            for (const NodePtr& item : value.items) slot.nodes.push_back(item.get());
            return;
        }
        case Form::named_mappings:
            if (value.kind != Node::Kind::mapping) return wrong_form();
            return read_names(slot, value);
        default:
            break;
    }
    const bool list_here = takes_list(key.form) && value.kind == Node::Kind::sequence;
    if (value.kind != Node::Kind::scalar && !list_here) return wrong_form();
    read_scalars(slot, value);
}

void Fields::read_scalars(Slot& slot, const Node& value) {
    if (value.kind == Node::Kind::scalar) return read_scalar(slot, value);
    const Key& key = *slot.key;
    // An empty list would have to mean "none", and a selection without values means "any".
    if (value.items.empty() && !may_be_empty(key))
        problems_->error(where_, value, "empty-list", "the list `" + std::string(key.name) + "` is empty",
                         "name at least one value, or remove the key");
    if (value.items.size() > limits::list_items_max)
        problems_->error(where_, value, "too-many-values",
                         "`" + std::string(key.name) + "` has more than " +
                             std::to_string(limits::list_items_max) + " values",
                         "split it");
    for (const NodePtr& item : value.items) {
        if (item->kind == Node::Kind::scalar) {
            read_scalar(slot, *item);
            continue;
        }
        problems_->error(
            where_, *item, "wrong-form",
            "a value of `" + std::string(key.name) + "` cannot be " + std::string(kind_name_of(*item)),
            "write single values");
    }
}

void Fields::read_scalar(Slot& slot, const Node& value) {
    if (auto problem = check_scalar(*slot.key, value.text)) {
        problems_->error(where_, value, problem->code, std::move(problem->message), std::move(problem->help));
        return;
    }
    slot.scalars.push_back(&value);
}

void Fields::read_names(Slot& slot, const Node& value) {
    std::map<std::string_view, std::uint32_t> lines;
    for (const Node::Entry& entry : value.entries) {
        if (problems_->full()) return;
        if (auto problem = problem_of(parse_id(entry.key->text))) {
            problems_->error(where_, *entry.key, problem->code, std::move(problem->message),
                             std::move(problem->help));
            continue;
        }
        const auto [first, is_new] = lines.emplace(entry.key->text, entry.key->line);
        if (!is_new) {
            problems_->error(
                where_, *entry.key, "duplicate-key", in_quotes(entry.key->text) + " is written twice",
                "the first one is in line " + std::to_string(first->second) + ": keep one of them");
            continue;
        }
        slot.named.push_back(entry);
    }
}

void Fields::unknown_key(const Node& key) {
    const std::string name = shown(key.text);
    for (const Renamed& renamed : renamed_keys()) {
        if (renamed.mapping != mapping_->name || renamed.wrong != key.text) continue;
        misspelt_.push_back(renamed.right);
        problems_->error(where_, key, "unknown-key",
                         with_article(mapping_->name) + " has no key `" + name + "`",
                         "it is called `" + std::string(renamed.right) + "` here");
        return;
    }
    if (key.text == "<<") {
        problems_->error(where_, key, "unknown-key", "merge keys are not part of the policy language",
                         "write the keys out");
        return;
    }
    std::vector<std::string_view> names;
    for (const Key& known : mapping_->keys) names.push_back(known.name);
    const std::string_view near = nearest(key.text, names);
    if (!near.empty()) misspelt_.push_back(near);
    problems_->error(where_, key, "unknown-key", with_article(mapping_->name) + " has no key `" + name + "`",
                     near.empty() ? "its keys are " + one_of(names) : "write `" + std::string(near) + "`");
}

void Fields::require_keys() {
    if (mapping_ == &schema::policy) return;  // over all files together: policy.cpp
    for (const Key& key : mapping_->keys) {
        if (key.need == Need::optional || has(key.name) || misspelt(key.name)) continue;
        problems_->error(where_, *node_, "missing-key",
                         "this " + std::string(mapping_->name) + " has no `" + std::string(key.name) + "`",
                         "add `" + std::string(key.name) + ":`. " + std::string(key.doc));
    }
}

}  // namespace egresswatch::rules
