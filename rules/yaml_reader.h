// rules/yaml_reader.h - YAML text to a plain tree in which every node knows its place.
// SPDX-License-Identifier: Apache-2.0
//
// In:      one file's text.   Out: Node, the root mapping of its only document.
// Threads: any.               Limits: file_bytes_max, yaml_depth_max, yaml_nodes_max (limits.h).
// Fails:   diagnostics; yaml-cpp and its exceptions stay inside yaml_reader.cpp.
//
// A scalar stays text: whether `NO` is Norway or a refusal is for the key it stands under to say, never for
// YAML 1.1, which reads it as false.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rules/diagnostics.h"

namespace egresswatch::rules {

struct Node;
class SourceText;
using NodePtr = std::shared_ptr<const Node>;

struct Node {
    enum class Kind : std::uint8_t { null, scalar, sequence, mapping };
    struct Entry {
        NodePtr key;  // a scalar
        NodePtr value;
    };

    Kind kind = Kind::null;
    const SourceText* source = nullptr;  // outlives the node
    bool quoted = false;
    std::string text;            // of a scalar
    std::uint32_t line = 1;      // 1-based
    std::uint32_t column = 1;    // 1-based, code points
    std::uint32_t length = 1;    // code points on that line
    std::size_t subtree = 1;     // nodes in it, aliases counted as often as they are used
    std::vector<NodePtr> items;  // of a sequence
    std::vector<Entry> entries;  // of a mapping, in file order, duplicates and all
};

// The text of every file of a load, for the source lines of diagnostics.
class SourceText {
public:
    SourceText(std::string name, std::string text);
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::string_view text() const noexcept { return text_; }
    [[nodiscard]] std::string_view line(
        std::uint32_t number) const noexcept;  // 1-based; empty beyond the end
    // The line as far as a diagnostic shows it: one that fills the file is not copied into every diagnostic.
    [[nodiscard]] std::string shown_line(std::uint32_t number) const;
    [[nodiscard]] std::uint32_t lines() const noexcept { return static_cast<std::uint32_t>(starts_.size()); }

private:
    std::string name_;
    std::string text_;  // without a byte order mark
    std::vector<std::size_t> starts_;
};

[[nodiscard]] Compiled<NodePtr> read_yaml(const SourceText& source);

}  // namespace egresswatch::rules
