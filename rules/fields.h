// rules/fields.h - a mapping of a policy file, checked against its table of keys.
// SPDX-License-Identifier: Apache-2.0
//
// In:      Node and Mapping.    Out: for each key the values that are well formed.
// Fails:   into Problems, every mistake; a value with a mistake is left out, and reading goes on.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rules/diagnostics.h"
#include "rules/schema.h"
#include "rules/values.h"
#include "rules/yaml_reader.h"

namespace egresswatch::rules {

// Where a node stands: its file, and the entry that it is part of.
struct Where {
    const SourceText* source = nullptr;
    std::string context{};
};

class Problems {
public:
    void error(const Where& where, const Node& node, std::string_view code, std::string message,
               std::string help);
    void warning(const Where& where, const Node& node, std::string_view code, std::string message,
                 std::string help);
    // Of a whole file or directory.
    void error(std::string file, std::string_view code, std::string message, std::string help);
    void warning(std::string file, std::string_view code, std::string message, std::string help);
    void add(std::vector<Diagnostic> more);

    [[nodiscard]] std::size_t errors() const noexcept { return errors_; }
    // So many problems that looking for more helps nobody: readers stop.
    [[nodiscard]] bool full() const noexcept;
    // In the order of files, lines and columns; beyond diagnostics_max one line says how many more.
    [[nodiscard]] std::vector<Diagnostic> take();

private:
    void add(Diagnostic diagnostic);
    std::vector<Diagnostic> list_;
    std::size_t errors_ = 0;
    std::size_t beyond_ = 0;  // found when full: counted, not kept
};

// Of a list, whether it may hold nothing: an empty one elsewhere would have to mean "none".
[[nodiscard]] bool may_be_empty(const Key& key) noexcept;

class Fields {
public:
    Fields(const Node& node, const Mapping& mapping, Where where, Problems& problems);

    [[nodiscard]] const Where& where() const noexcept { return where_; }
    [[nodiscard]] const Node& node() const noexcept { return *node_; }
    [[nodiscard]] const Mapping& mapping() const noexcept { return *mapping_; }
    [[nodiscard]] bool has(std::string_view key) const noexcept;  // written, well formed or not
    // An unknown key that was reported with this one as its hint: that it is missing needs no second error.
    [[nodiscard]] bool misspelt(std::string_view key) const noexcept;
    [[nodiscard]] const Node& key_node(std::string_view key) const;  // of a key that is there
    // The well-formed scalars of a key; the one of a scalar form.
    [[nodiscard]] const std::vector<const Node*>& scalars(std::string_view key) const;
    // The mapping, the mappings of a list, the named mappings.
    [[nodiscard]] const std::vector<const Node*>& nodes(std::string_view key) const;
    [[nodiscard]] const std::vector<Node::Entry>& named(std::string_view key) const;

    [[nodiscard]] std::string text(std::string_view key) const;  // empty where absent

    // The values of a key by a function of values.h whose form the table has checked already.
    template <typename Parse>
    [[nodiscard]] auto list(std::string_view key, Parse parse) const {
        std::vector<typename decltype(parse(std::string_view{}))::value_type> out;
        for (const Node* scalar : scalars(key))
            if (auto value = parse(scalar->text)) out.push_back(*std::move(value));
        return out;
    }
    template <typename Parse>
    [[nodiscard]] auto value(std::string_view key, Parse parse) const {
        std::optional<typename decltype(parse(std::string_view{}))::value_type> out;
        if (!scalars(key).empty())
            if (auto parsed = parse(scalars(key).front()->text)) out = *std::move(parsed);
        return out;
    }

private:
    struct Slot {
        const Key* key;
        const Node* key_node;
        std::vector<const Node*> scalars;
        std::vector<const Node*> nodes;
        std::vector<Node::Entry> named;
    };
    [[nodiscard]] const Slot* slot(std::string_view key) const noexcept;
    void read_entry(const Node::Entry& entry);
    void read_value(Slot& slot, const Node& value);
    void read_scalars(Slot& slot, const Node& value);
    void read_scalar(Slot& slot, const Node& value);
    void read_names(Slot& slot, const Node& value);
    void unknown_key(const Node& key);
    void require_keys();

    const Node* node_;
    const Mapping* mapping_;
    Where where_;
    Problems* problems_;
    std::vector<Slot> slots_;
    std::vector<std::string_view> misspelt_;
};

}  // namespace egresswatch::rules
