// agent/daemon/config_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/config_reader.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "rules/values.h"

namespace egresswatch::daemon {

using rules::Node;

void ConfigReader::error(const Node& node, std::string code, std::string message, std::string help) {
    rules::Diagnostic diagnostic;
    diagnostic.code = std::move(code);
    diagnostic.span = {source_.name(), node.line, node.column, std::max(1u, node.length)};
    diagnostic.message = std::move(message);
    diagnostic.help = std::move(help);
    diagnostic.context = context_;
    diagnostic.source_line = source_.line(node.line);
    diagnostics_.push_back(std::move(diagnostic));
}

std::vector<rules::Diagnostic> ConfigReader::take_diagnostics() {
    std::ranges::stable_sort(diagnostics_, {}, [](const rules::Diagnostic& diagnostic) {
        return std::tuple(diagnostic.span.line, diagnostic.span.column);
    });
    return std::move(diagnostics_);
}

bool ConfigReader::scalar(const Node& node, std::string_view wanted) {
    if (node.kind == Node::Kind::scalar) return true;
    const char* found = node.kind == Node::Kind::null      ? "nothing"
                        : node.kind == Node::Kind::mapping ? "a mapping"
                                                           : "a list";
    error(node, "config/type",
          "found " + std::string(found) + " where " + std::string(wanted) + " is expected",
          "write " + std::string(wanted) + ", or leave the key out for its default");
    return false;
}

std::optional<std::string> ConfigReader::text(const Node& node) {
    if (!scalar(node, "a text")) return std::nullopt;
    if (node.text.empty()) {
        error(node, "config/empty", "the text is empty", "leave the key out for its default");
        return std::nullopt;
    }
    return node.text;
}

std::optional<std::string> ConfigReader::path(const Node& node) {
    auto value = text(node);
    if (!value) return std::nullopt;
    if (value->front() != '/') {
        error(node, "config/relative-path", "\"" + *value + "\" is not an absolute path",
              "begin it with /: a daemon has no folder of its own to start from");
        return std::nullopt;
    }
    return value;
}

std::optional<bool> ConfigReader::boolean(const Node& node) {
    if (!scalar(node, "true or false")) return std::nullopt;
    if (node.text == "true") return true;
    if (node.text == "false") return false;
    error(node, "config/boolean", "\"" + node.text + "\" is neither true nor false", "write true or false");
    return std::nullopt;
}

std::optional<std::uint64_t> ConfigReader::integer(const Node& node, std::uint64_t min, std::uint64_t max) {
    if (!scalar(node, "a number")) return std::nullopt;
    const auto value = rules::parse_whole(node.text, min, max);
    if (value) return *value;
    error(node, "config/number", value.error().message, value.error().help);
    return std::nullopt;
}

std::optional<std::uint64_t> ConfigReader::size(const Node& node, std::uint64_t min, std::uint64_t max) {
    if (!scalar(node, "a size (64 MiB)")) return std::nullopt;
    const auto value = rules::parse_size(node.text);
    if (!value) {
        error(node, "config/size", value.error().message, value.error().help);
        return std::nullopt;
    }
    if (*value < min || *value > max) {
        error(node, "config/range", node.text + " is out of range",
              "write a size from " + std::to_string(min >> 20) + " MiB to " + std::to_string(max >> 20) +
                  " MiB");
        return std::nullopt;
    }
    return *value;
}

std::optional<std::chrono::seconds> ConfigReader::duration(const Node& node, std::chrono::seconds min,
                                                           std::chrono::seconds max) {
    if (!scalar(node, "a duration (10s, 5m, 90d)")) return std::nullopt;
    const auto value = rules::parse_duration(node.text);
    if (!value) {
        error(node, "config/duration", value.error().message, value.error().help);
        return std::nullopt;
    }
    if (*value < min || *value > max) {
        error(node, "config/range", node.text + " is out of range",
              "write a duration from " + rules::to_text(min) + " to " + rules::to_text(max));
        return std::nullopt;
    }
    return *value;
}

std::optional<std::size_t> ConfigReader::word(const Node& node, std::span<const std::string_view> words) {
    const std::string choices = rules::one_of(words);
    if (!scalar(node, choices)) return std::nullopt;
    if (const auto found = std::ranges::find(words, node.text); found != words.end())
        return static_cast<std::size_t>(found - words.begin());
    const auto near = rules::nearest(node.text, words);
    error(node, "config/word", "\"" + node.text + "\" is not " + choices,
          near.empty() ? "write " + choices : "did you mean " + std::string(near) + "?");
    return std::nullopt;
}

std::vector<const Node*> ConfigReader::list(const Node& node) {
    std::vector<const Node*> items;
    if (node.kind == Node::Kind::sequence)
        for (const auto& item : node.items) items.push_back(item.get());
    else if (node.kind != Node::Kind::null)
        items.push_back(&node);
    return items;
}

const Node* ConfigReader::find(const Node& mapping, std::string_view key) {
    for (const auto& entry : mapping.entries)
        if (entry.key->text == key) return entry.value.get();
    return nullptr;
}

std::vector<Node::Entry> ConfigReader::entries(const Node& node, std::span<const std::string_view> names,
                                               std::string_view what) {
    std::vector<Node::Entry> known;
    if (node.kind == Node::Kind::null) return known;
    if (node.kind != Node::Kind::mapping) {
        error(node, "config/type", "the " + std::string(what) + " is not a mapping",
              "write key: value lines");
        return known;
    }
    std::map<std::string_view, std::uint32_t> lines;
    for (const auto& entry : node.entries) {
        const std::string& name = entry.key->text;
        if (const auto [first, fresh] = lines.emplace(name, entry.key->line); !fresh) {
            error(*entry.key, "config/duplicate-key", "key \"" + name + "\" stands here for the second time",
                  "keep one; the first is in line " + std::to_string(first->second));
        } else if (std::ranges::find(names, name) == names.end()) {
            const auto near = rules::nearest(name, names);
            error(*entry.key, "config/unknown-key",
                  "unknown key \"" + name + "\" in the " + std::string(what),
                  near.empty() ? "known keys: " + rules::one_of(names)
                               : "did you mean " + std::string(near) + "?");
        } else {
            known.push_back(entry);
        }
    }
    return known;
}

}  // namespace egresswatch::daemon
