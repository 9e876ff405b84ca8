// agent/daemon/config_reader.h - reads the values of a configuration file and gathers every complaint.
// SPDX-License-Identifier: Apache-2.0
//
// In:    the tree of rules/yaml_reader.h.   Out: values; nothing where a diagnostic was made instead.
// Not here: which keys there are (config.cpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rules/diagnostics.h"
#include "rules/yaml_reader.h"

namespace egresswatch::daemon {

class ConfigReader;

template <typename Target>
struct ConfigKey {
    std::string_view name;
    void (*read)(ConfigReader&, const rules::Node&, Target&);
};

class ConfigReader {
public:
    explicit ConfigReader(const rules::SourceText& source) : source_(source) {}

    void error(const rules::Node& node, std::string code, std::string message, std::string help);
    [[nodiscard]] std::size_t error_count() const noexcept { return diagnostics_.size(); }
    // In the order of the file.
    [[nodiscard]] std::vector<rules::Diagnostic> take_diagnostics();

    [[nodiscard]] std::optional<std::string> text(const rules::Node& node);  // not empty
    [[nodiscard]] std::optional<std::string> path(const rules::Node& node);  // absolute
    [[nodiscard]] std::optional<bool> boolean(const rules::Node& node);
    [[nodiscard]] std::optional<std::uint64_t> integer(const rules::Node& node, std::uint64_t min,
                                                       std::uint64_t max);
    [[nodiscard]] std::optional<std::uint64_t> size(const rules::Node& node, std::uint64_t min,
                                                    std::uint64_t max);
    [[nodiscard]] std::optional<std::chrono::seconds> duration(const rules::Node& node,
                                                               std::chrono::seconds min,
                                                               std::chrono::seconds max);
    // Index into `words`.
    [[nodiscard]] std::optional<std::size_t> word(const rules::Node& node,
                                                  std::span<const std::string_view> words);
    // The items of a sequence; a single value stands for a list of one.
    [[nodiscard]] static std::vector<const rules::Node*> list(const rules::Node& node);
    [[nodiscard]] static const rules::Node* find(const rules::Node& mapping, std::string_view key);

    template <typename Value, typename Target>
    void assign(const std::optional<Value>& value, Target& target) {
        if (value) target = *value;
    }

    // Diagnostics made while it lives say that they are inside this entry.
    class Context {
    public:
        Context(ConfigReader& reader, std::string text)
            : reader_(reader), outer_(std::move(reader.context_)) {
            reader_.context_ = std::move(text);
        }
        ~Context() { reader_.context_ = std::move(outer_); }
        Context(const Context&) = delete;
        Context& operator=(const Context&) = delete;

    private:
        ConfigReader& reader_;
        std::string outer_;
    };
    [[nodiscard]] Context enter(const std::string& what, const rules::Node& node) {
        return {*this, "in " + what + " (line " + std::to_string(node.line) + ")"};
    }

    template <typename Target>
    void mapping(const rules::Node& node, std::span<const ConfigKey<Target>> keys, std::string_view what,
                 Target& target) {
        std::vector<std::string_view> names;
        for (const auto& key : keys) names.push_back(key.name);
        for (const auto& entry : entries(node, names, what))
            for (const auto& key : keys)
                if (key.name == entry.key->text) key.read(*this, *entry.value, target);
    }
    template <typename Target, std::size_t Count>
    void mapping(const rules::Node& node, const ConfigKey<Target> (&keys)[Count], std::string_view what,
                 Target& target) {
        mapping<Target>(node, std::span<const ConfigKey<Target>>(keys), what, target);
    }

private:
    // Those with a known key and a value, each key once; complains of the others.
    std::vector<rules::Node::Entry> entries(const rules::Node& node, std::span<const std::string_view> names,
                                            std::string_view what);
    bool scalar(const rules::Node& node, std::string_view wanted);

    const rules::SourceText& source_;
    std::vector<rules::Diagnostic> diagnostics_;
    std::string context_;
};

}  // namespace egresswatch::daemon
