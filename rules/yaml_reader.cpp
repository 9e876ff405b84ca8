// rules/yaml_reader.cpp - the only file that knows yaml-cpp.
// SPDX-License-Identifier: Apache-2.0
#include "rules/yaml_reader.h"

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "rules/limits.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t token_bytes_max = 400;  // a caret line is no longer anyway
constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

std::uint32_t code_points(std::string_view text) {
    return static_cast<std::uint32_t>(
        std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// Length of the UTF-8 sequence that starts here; 0 where it is none (RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(0);
    if (lead < 0x80) return 1;
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
    for (std::size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80) return 0;
    if (lead == 0xe0 && byte(1) < 0xa0) return 0;
    if (lead == 0xed && byte(1) > 0x9f) return 0;
    if (lead == 0xf0 && byte(1) < 0x90) return 0;
    if (lead == 0xf4 && byte(1) > 0x8f) return 0;
    return length;
}

Diagnostic problem(const SourceText& source, std::uint32_t line, std::uint32_t column, std::uint32_t length,
                   std::string code, std::string message, std::string help) {
    return {Severity::error,        std::move(code), {source.name(), line, column, length},
            std::move(message),     std::move(help), {},
            source.shown_line(line)};
}

// The first byte that no policy file has: not UTF-8, or a control character. yaml-cpp would convert UTF-16,
// take 0x04 for the end of the file, and pass the rest through.
std::optional<Diagnostic> check_characters(const SourceText& source) {
    const std::string_view text = source.text();
    if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
        return problem(source, 0, 0, 1, "rules/encoding", "the file is UTF-16", "save it as UTF-8");
    std::uint32_t line = 1;
    std::size_t line_start = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = utf8_length(text.substr(at));
        const auto byte = static_cast<unsigned char>(text[at]);
        const auto column = [&] { return code_points(text.substr(line_start, at - line_start)) + 1; };
        if (length == 0) {
            Diagnostic bad = problem(source, line, column(), 1, "rules/encoding", "the file is not UTF-8",
                                     "save it as UTF-8");
            bad.source_line.clear();  // a record or a JSON answer that quotes it has to be UTF-8
            return bad;
        }
        const bool line_end = byte == '\r' && at + 1 < text.size() && text[at + 1] == '\n';
        if ((byte < 0x20 && byte != '\n' && byte != '\t' && !line_end) || byte == 0x7f)
            return problem(source, line, column(), 1, "rules/control-character",
                           "control character with code " + std::to_string(byte), "remove it");
        at += length;
        if (byte == '\n') {
            ++line;
            line_start = at;
        }
    }
    return std::nullopt;
}

// YAML forbids tabs in indentation; yaml-cpp sometimes takes them for nothing and moves a key a level up.
std::optional<Diagnostic> check_tabs(const SourceText& source) {
    for (std::uint32_t number = 1; number <= source.lines(); ++number) {
        const std::string_view line = source.line(number);
        const std::size_t content = line.find_first_not_of(" \t\r");
        const std::size_t tab = line.find('\t');
        if (content == std::string_view::npos || tab > content || line[content] == '#') continue;
        return problem(source, number, static_cast<std::uint32_t>(tab) + 1,
                       static_cast<std::uint32_t>(content - tab), "rules/tab", "a tab in the indentation",
                       "indent with spaces");
    }
    return std::nullopt;
}

struct Refused {  // thrown by TreeBuilder, caught in read_yaml
    Diagnostic diagnostic;
};

class TreeBuilder final : public YAML::EventHandler {
public:
    explicit TreeBuilder(const SourceText& source) : source_(source) {}

    NodePtr root;

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnAnchor(const YAML::Mark&, const std::string&) override {}

    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        add(make(mark, Node::Kind::null), anchor);
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        const auto found = anchors_.find(anchor);
        if (found == anchors_.end())
            refuse(mark, "rules/alias-cycle", "the alias stands inside what it names",
                   "write the values out");
        place(found->second);
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        check_tag(mark, tag);
        auto node = make(mark, Node::Kind::scalar);
        node->text = value;
        node->quoted = tag == "!";
        add(std::move(node), anchor);
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, Node::Kind::sequence);
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, Node::Kind::mapping);
    }
    void OnMapEnd() override { close(); }

    [[noreturn]] void refuse(const Node& node, std::string code, std::string message, std::string help) {
        throw Refused{problem(source_, node.line, node.column, node.length, std::move(code),
                              std::move(message), std::move(help))};
    }
    [[noreturn]] void refuse(const YAML::Mark& mark, std::string code, std::string message,
                             std::string help) {
        refuse(*make(mark, Node::Kind::null), std::move(code), std::move(message), std::move(help));
    }

private:
    struct Open {
        std::shared_ptr<Node> node;
        YAML::anchor_t anchor;
        NodePtr key;  // of a mapping: read, its value not yet
    };

    // yaml-cpp marks are 0-based and count bytes: the one place where that changes.
    std::shared_ptr<Node> make(const YAML::Mark& mark, Node::Kind kind) const {
        auto node = std::make_shared<Node>();
        node->kind = kind;
        node->source = &source_;
        node->line = static_cast<std::uint32_t>(std::max(0, mark.line)) + 1;
        std::string_view line = source_.line(node->line);
        const std::size_t column = std::min(line.size(), static_cast<std::size_t>(std::max(0, mark.column)));
        node->column = column_of(node->line, line, column);
        node->length = std::max(1u, code_points(token(line.substr(column, token_bytes_max))));
        return node;
    }

    // Counts on from the last mark of the same line: a file may be one long line.
    std::uint32_t column_of(std::uint32_t number, std::string_view line, std::size_t bytes) const {
        if (number != last_.line || bytes < last_.bytes) last_ = {number, 0, 0};
        last_.code_points += code_points(line.substr(last_.bytes, bytes - last_.bytes));
        last_.bytes = bytes;
        return last_.code_points + 1;
    }

    // What an author would point at: the quoted text, the word, the path or list up to where it ends.
    static std::string_view token(std::string_view rest) {
        if (rest.empty()) return rest;
        if (rest[0] == '[' || rest[0] == '{' || rest[0] == '|' || rest[0] == '>') return rest.substr(0, 1);
        if (rest[0] == '"' || rest[0] == '\'') {
            const std::size_t end = rest.find(rest[0], 1);
            return end == std::string_view::npos ? rest : rest.substr(0, end + 1);
        }
        std::size_t end = 0;
        while (end < rest.size() && rest[end] != ',' && rest[end] != ']' && rest[end] != '}' &&
               rest[end] != '\r' && !(rest[end] == ':' && (end + 1 == rest.size() || rest[end + 1] == ' ')) &&
               !(rest[end] == '#' && end > 0 && rest[end - 1] == ' '))
            ++end;
        while (end > 1 && (rest[end - 1] == ' ' || rest[end - 1] == '\t')) --end;
        return rest.substr(0, end);
    }

    void check_tag(const YAML::Mark& mark, const std::string& tag) {
        if (!tag.empty() && tag != "?" && tag != "!")
            refuse(mark, "rules/yaml-tag", "YAML tags are not part of the policy language", "remove the tag");
    }

    void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node::Kind kind) {
        check_tag(mark, tag);
        if (open_.size() >= limits::yaml_depth_max)
            refuse(mark, "rules/too-deep",
                   "nested more than " + std::to_string(limits::yaml_depth_max) + " levels deep",
                   "a policy needs six levels");
        open_.push_back({make(mark, kind), anchor, nullptr});
    }

    void close() {
        Open done = std::move(open_.back());
        open_.pop_back();
        add(std::move(done.node), done.anchor);
    }

    void add(std::shared_ptr<Node> node, YAML::anchor_t anchor) {
        NodePtr finished = std::move(node);
        if (anchor != YAML::NullAnchor) anchors_[anchor] = finished;
        place(std::move(finished));
    }

    void place(NodePtr node) {
        if (open_.empty()) {
            root = std::move(node);
            return;
        }
        Open& parent = open_.back();
        parent.node->subtree += node->subtree;
        total_ += node->subtree;
        if (parent.node->subtree > limits::yaml_nodes_max || total_ > 8 * limits::yaml_nodes_max)
            refuse(*node, "rules/too-many-values",
                   "more than " + std::to_string(limits::yaml_nodes_max) +
                       " values, those that aliases repeat included",
                   "split the file, or write fewer aliases");
        if (parent.node->kind == Node::Kind::sequence) {
            parent.node->items.push_back(std::move(node));
        } else if (!parent.key) {
            if (node->kind != Node::Kind::scalar)
                refuse(*node, "rules/yaml-key", "a key has to be a word", "write `name: value`");
            parent.key = std::move(node);
        } else {
            parent.node->entries.push_back({std::move(parent.key), std::move(node)});
            parent.key = nullptr;
        }
    }

    const SourceText& source_;
    std::vector<Open> open_;
    std::map<YAML::anchor_t, NodePtr> anchors_;
    std::size_t total_ = 0;
    struct Counted {
        std::uint32_t line = 0;
        std::size_t bytes = 0;
        std::uint32_t code_points = 0;
    };
    mutable Counted last_;
};

std::string syntax_help(const std::string& message) {
    if (message.find("bad indentation") != std::string::npos ||
        message.find("end of map") != std::string::npos ||
        message.find("end of sequence") != std::string::npos)
        return "check that this line is indented like its neighbours, and that every [ { and quote above it "
               "is "
               "closed";
    if (message.find("illegal map value") != std::string::npos)
        return "a text that holds \": \" has to be in quotes";
    if (message.find("unknown token") != std::string::npos)
        return "a value that starts with @ ` % or another sign has to be in quotes, as in \">= 10 MiB\"";
    if (message.find("alias") != std::string::npos) return "a value that starts with * has to be in quotes";
    return "check quotes, brackets and the colon on this line and the one above; a value that starts with a "
           "sign, as in "
           "\">= 10 MiB\" or \"*.example.org\", has to be in quotes";
}

Diagnostic syntax_error(const SourceText& source, const YAML::Exception& error) {
    const auto line = static_cast<std::uint32_t>(std::max(0, error.mark.line)) + 1;
    const std::string_view text = source.line(line);
    const std::size_t column =
        std::min(text.size(), static_cast<std::size_t>(std::max(0, error.mark.column)));
    return problem(source, line, code_points(text.substr(0, column)) + 1, 1, "rules/yaml-syntax",
                   "not YAML: " + error.msg, syntax_help(error.msg));
}

Compiled<NodePtr> parse(const SourceText& source) {
    TreeBuilder tree(source);
    try {
        std::istringstream stream{std::string(source.text())};
        YAML::Parser parser(stream);
        if (!parser.HandleNextDocument(tree) || !tree.root || tree.root->kind == Node::Kind::null)
            return std::unexpected(
                std::vector{problem(source, 0, 0, 1, "rules/empty-file", "the file is empty",
                                    "remove it, or write `policy: egresswatch/v1`")});
        TreeBuilder second(source);
        if (parser.HandleNextDocument(second) && second.root) {
            return std::unexpected(std::vector{problem(source, second.root->line, second.root->column, 1,
                                                       "rules/several-documents",
                                                       "a second YAML document starts above this line",
                                                       "one file holds one document: remove the `---`, or "
                                                       "move this part to a file of its own")});
        }
        return tree.root;
    } catch (Refused& refused) {
        return std::unexpected(std::vector{std::move(refused.diagnostic)});
    } catch (const YAML::DeepRecursion&) {
        return std::unexpected(
            std::vector{problem(source, 0, 0, 1, "rules/too-deep",
                                "nested more than " + std::to_string(limits::yaml_depth_max) + " levels deep",
                                "a policy needs six levels")});
    } catch (const YAML::Exception& error) {
        return std::unexpected(std::vector{syntax_error(source, error)});
    }
}

}  // namespace

SourceText::SourceText(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
    if (text_.starts_with(byte_order_mark)) text_.erase(0, byte_order_mark.size());
    starts_.push_back(0);
    for (std::size_t at = text_.find('\n'); at != std::string::npos; at = text_.find('\n', at + 1))
        starts_.push_back(at + 1);
}

std::string_view SourceText::line(std::uint32_t number) const noexcept {
    if (number == 0 || number > starts_.size()) return {};
    const std::size_t begin = starts_[number - 1];
    std::size_t end = number < starts_.size() ? starts_[number] - 1 : text_.size();
    if (end > begin && text_[end - 1] == '\r') --end;
    return std::string_view(text_).substr(begin, end - begin);
}

std::string SourceText::shown_line(std::uint32_t number) const {
    const std::string_view whole = line(number);
    std::size_t end = std::min<std::size_t>(whole.size(), 1024);
    while (end < whole.size() && end > 0 && (static_cast<unsigned char>(whole[end]) & 0xc0) == 0x80) --end;
    return std::string(whole.substr(0, end));
}

Compiled<NodePtr> read_yaml(const SourceText& source) {
    if (source.text().size() > limits::file_bytes_max)
        return std::unexpected(
            std::vector{problem(source, 0, 0, 1, "rules/file-too-big",
                                "the file has " + std::to_string(source.text().size()) + " bytes; at most " +
                                    std::to_string(limits::file_bytes_max) + " are read",
                                "split it: every *.yaml of the directory is read")});
    if (auto bad = check_characters(source)) return std::unexpected(std::vector{std::move(*bad)});
    if (auto bad = check_tabs(source)) return std::unexpected(std::vector{std::move(*bad)});
    return parse(source);
}

}  // namespace egresswatch::rules
