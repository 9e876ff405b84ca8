// agent/evidence/anchors.cpp - see anchors.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/anchors.h"

#include <cctype>
#include <optional>
#include <set>
#include <tuple>

namespace egresswatch::evidence {
namespace {

// Undoes any depth of escaping: JSON inside JSON doubles backslashes, structured data escapes quotes.
std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t slashes = at;
        while (slashes < text.size() && text[slashes] == '\\') slashes++;
        if (slashes == at || slashes == text.size()) {
            out += text[at++];
            continue;
        }
        const auto rest = text.substr(slashes);
        if (rest[0] == 'n') {
            out += '\n';
            at = slashes + 1;
        } else if (rest.starts_with("u2014")) {
            out += signature_mark.substr(0, 3);
            at = slashes + 5;
        } else if (rest[0] == '/') {  // some JSON writers escape it
            out += '/';
            at = slashes + 1;
        } else if (rest[0] == 'x' && rest.starts_with("x0a")) {
            out += '\n';
            at = slashes + 3;
        } else {
            out += rest[0];
            at = slashes + 1;
        }
    }
    return out;
}

// rsyslog writes control characters and bytes above ASCII in octal: #012, #342#200#224.
std::string without_octal(std::string text) {
    const auto replace_all = [&text](std::string_view from, std::string_view to) {
        for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
            text.replace(at, from.size(), to);
    };
    replace_all("#012", "\n");
    replace_all("#342#200#224", signature_mark.substr(0, 3));
    return text;
}

// Start of the line that ends at `end`; a line of a checkpoint is at the start of the text or behind a quote,
// too.
std::size_t line_start(std::string_view text, std::size_t end) {
    const auto before = end == 0 ? std::string_view::npos : text.rfind('\n', end - 1);
    return before == std::string_view::npos ? 0 : before + 1;
}

std::optional<Anchor> anchor_before(std::string_view text, std::size_t mark) {
    // mark: the em dash, in front of it "\n\n".
    auto line_end = text.find('\n', mark);
    if (line_end == std::string_view::npos) line_end = text.size();
    std::string signature(text.substr(mark, line_end - mark));
    // What follows the base64 text on this line belongs to whatever the note is in.
    const auto name_at = signature_mark.size();
    const auto space = signature.find(' ', name_at);
    if (space == std::string::npos) return std::nullopt;
    auto end = space + 1;
    const auto is_base64 = [](char c) {
        return (std::isalnum(static_cast<unsigned char>(c)) != 0) || c == '+' || c == '/' || c == '=';
    };
    while (end < signature.size() && is_base64(signature[end])) end++;
    signature.resize(end);
    const std::string name = signature.substr(name_at, space - name_at);
    // Up to four lines of extensions between root and signature.
    const std::size_t text_end = mark - 1;  // behind the last line feed of the note's text
    std::size_t start = text_end;
    for (int lines = 0; lines < 7 && start > 0; lines++) {
        const std::size_t this_end = start - 1;
        start = line_start(text, this_end);
        const auto line = text.substr(start, this_end - start);
        if (lines < 2 || !line.ends_with(name)) continue;
        const std::string body(text.substr(this_end - name.size(), text_end - (this_end - name.size())));
        auto note = parse_note(body + "\n" + signature + "\n");
        if (!note) return std::nullopt;
        auto checkpoint = Checkpoint::parse(note->text);
        if (!checkpoint) return std::nullopt;
        return Anchor{std::move(*checkpoint), std::move(*note)};
    }
    return std::nullopt;
}

}  // namespace

std::vector<Anchor> find_anchors(std::string_view text) {
    std::vector<Anchor> out;
    std::set<std::tuple<std::string, std::uint64_t, Hash>> seen;
    const std::string plain = without_octal(unescaped(text));
    const std::string pattern = "\n\n" + std::string(signature_mark);
    for (std::size_t at = 0; (at = plain.find(pattern, at)) != std::string::npos; at += pattern.size()) {
        auto anchor = anchor_before(plain, at + 2);
        if (!anchor) continue;
        const auto key =
            std::tuple(anchor->checkpoint.origin, anchor->checkpoint.size, anchor->checkpoint.root);
        if (!seen.insert(key).second) continue;
        out.push_back(std::move(*anchor));
    }
    return out;
}

}  // namespace egresswatch::evidence
