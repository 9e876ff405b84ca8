// rules/compile_overrides.cpp - what a file changes in entries of another: append, replace, disable by id.
// SPDX-License-Identifier: Apache-2.0
//
// Worked out on the tree of nodes, before an entry is read: what comes out is checked as if it had been
// written so, and a mistake in it is told where its node stands, in whichever file.
#include <algorithm>
#include <array>

#include "rules/compiler.h"

namespace egresswatch::rules {

namespace {

struct Target {
    std::string_view key;   // of the override
    std::string_view kind;  // as claim() calls it
    const Mapping* mapping;
};
constexpr std::array targets{
    Target{"rule", "rule", &schema::rule},
    Target{"allow", "allow entry", &schema::allow},
    Target{"list", "list", &schema::list},
};

std::vector<NodePtr> items_of(const NodePtr& value) {
    return value->kind == Node::Kind::sequence ? value->items : std::vector<NodePtr>{value};
}

Node::Entry* find_entry(Node& node, std::string_view key) {
    const auto found =
        std::ranges::find_if(node.entries, [&](const Node::Entry& e) { return e.key->text == key; });
    return found == node.entries.end() ? nullptr : &*found;
}

}  // namespace

void PolicyBuilder::read_overrides(const File& file) {
    const auto& nodes = file.fields->nodes("overrides");
    for (std::size_t i = 0; i < nodes.size() && !problems_.full(); ++i) {
        Where where{file.source,
                    "override " + std::to_string(i + 1) + " (line " + std::to_string(nodes[i]->line) + ")"};
        read_override(Fields(*nodes[i], schema::override_entry, std::move(where), problems_));
    }
}

void PolicyBuilder::read_override(const Fields& fields) {
    if (fields.node().kind != Node::Kind::mapping) return;
    const Target* target = nullptr;
    for (const Target& one : targets) {
        if (!fields.has(one.key)) continue;
        if (target != nullptr)
            problems_.error(fields.where(), fields.key_node(one.key), "two-targets",
                            "an override changes one entry: `" + std::string(target->key) + "` or `" +
                                std::string(one.key) + "`",
                            "write two overrides");
        target = &one;
    }
    const bool misspelt =
        std::ranges::any_of(targets, [&](const Target& t) { return fields.misspelt(t.key); });
    if (target == nullptr && !misspelt)
        problems_.error(fields.where(), fields.node(), "override-target",
                        "this override does not say of what",
                        "add `rule:`, `allow:` or `list:` with the id of the entry");
    if (!fields.has("append") && !fields.has("replace") && !fields.has("disable"))
        problems_.error(fields.where(), fields.node(), "empty-override", "this override changes nothing",
                        "add `append:`, `replace:` or `disable: true`");
    if (target == nullptr || fields.scalars(target->key).empty()) return;
    Override out;
    out.where = fields.where();
    out.target = fields.scalars(target->key).front();
    if (fields.has("disable")) out.disable = fields.text("disable") == "true";
    for (const Node* node : fields.nodes("append")) out.append = node;
    for (const Node* node : fields.nodes("replace")) out.replace = node;
    overrides_[std::string(target->kind) + " " + out.target->text].push_back(std::move(out));
}

const Node* PolicyBuilder::overridden(std::string_view kind, const std::string& id, const Node& node) {
    const auto found = overrides_.find(std::string(kind) + " " + id);
    if (found == overrides_.end() || node.kind != Node::Kind::mapping) return &node;
    const Mapping& mapping = *std::ranges::find(targets, kind, &Target::kind)->mapping;
    auto merged = std::make_shared<Node>(node);
    bool disabled = false;
    for (Override& change : found->second) {
        change.used = true;
        disabled = change.disable.value_or(disabled);  // the last word counts, as with every other key
        if (change.replace != nullptr) {
            for (const Node::Entry& entry : change.replace->entries) {
                if (entry.key->text == "id") {
                    problems_.error(change.where, *entry.key, "cannot-rename",
                                    "an override cannot give " + in_quotes(id) + " another id",
                                    "disable it, and write a rule or an entry of your own");
                    continue;
                }
                if (Node::Entry* known = find_entry(*merged, entry.key->text))
                    *known = entry;
                else
                    merged->entries.push_back(entry);
            }
        }
        if (change.append != nullptr) append_to(*merged, *change.append, mapping, change.where);
    }
    if (disabled) {
        disabled_.insert(std::string(kind) + " " + id);
        return nullptr;
    }
    merged_.push_back(std::move(merged));
    return merged_.back().get();
}

// Values behind the values that are there; below a mapping key by key.
void PolicyBuilder::append_to(Node& node, const Node& more, const Mapping& mapping, const Where& where,
                              bool within_not) {
    for (const Node::Entry& entry : more.entries) {
        Node::Entry* known = find_entry(node, entry.key->text);
        const Key* key = mapping.find(entry.key->text);
        if (known == nullptr || key == nullptr) {  // an unknown key is told when the entry is read
            if (within_not && key != nullptr && !node.entries.empty())
                problems_.error(where, *entry.key, "cannot-append",
                                "`not` names other fields: with `" + std::string(key->name) +
                                    "` beside them it would exclude less than before",
                                "append `all: [{not: {" + std::string(key->name) + ": ...}}]` to `when`");
            node.entries.push_back(entry);
            continue;
        }
        auto value = std::make_shared<Node>(*known->value);
        const bool list = takes_list(key->form) || key->form == Form::mapping_list;
        if (key->form == Form::mapping && value->kind == Node::Kind::mapping &&
            entry.value->kind == Node::Kind::mapping) {
            append_to(*value, *entry.value, *key->inner, where, key->name == "not");
        } else if (list) {
            value->items = items_of(known->value);
            for (const NodePtr& item : items_of(entry.value)) value->items.push_back(item);
            value->kind = Node::Kind::sequence;
        } else {
            problems_.error(where, *entry.key, "cannot-append",
                            "`" + std::string(key->name) + "` has one value: nothing can be appended to it",
                            "write it under `replace`");
            continue;
        }
        known->value = std::move(value);
    }
}

void PolicyBuilder::check_overrides() {
    if (some_unreadable_) return;
    for (const auto& [name, changes] : overrides_) {
        for (const Override& change : changes) {
            if (change.used) continue;
            const std::string kind = name.substr(0, name.size() - change.target->text.size() - 1);
            std::vector<std::string_view> names;
            for (const auto& [claimed, place] : claimed_)
                if (claimed.starts_with(kind + " "))
                    names.push_back(std::string_view(claimed).substr(kind.size() + 1));
            const std::string_view near = nearest(change.target->text, names);
            problems_.error(change.where, *change.target, "unknown-entry",
                            "there is no " + kind + " " + in_quotes(change.target->text),
                            near.empty() ? "name the " + kind + " by its id" : "write " + std::string(near));
        }
    }
}

}  // namespace egresswatch::rules
