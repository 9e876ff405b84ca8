// agent/evidence/key_chain.cpp - see key_chain.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/key_chain.h"

#include <charconv>
#include <sstream>

namespace egresswatch::evidence {
namespace {

std::string base64_of(const PublicKeyBytes& key) {
    return to_base64(std::string_view(reinterpret_cast<const char*>(key.data()), key.size()));
}

std::optional<std::uint64_t> number(const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream in(line);
    std::vector<std::string> out;
    for (std::string word; in >> word;) out.push_back(word);
    return out;
}

// The text of the first note: up to its last signature line.
std::string_view first_note(std::string_view text) {
    bool signatures = false;
    std::size_t at = 0;
    while (at < text.size()) {
        const bool is_signature = text.substr(at).starts_with(signature_mark);
        if (signatures && !is_signature) break;
        signatures = signatures || is_signature;
        const auto end = text.find('\n', at);
        if (end == std::string_view::npos) return {};  // torn
        at = end + 1;
    }
    return signatures ? text.substr(0, at) : std::string_view{};
}

// Why this link may not follow that one; empty: it may.
std::string objection(const KeyLink& link, const KeyLink* before, const std::optional<PublicKey>& genesis) {
    const std::string name = "link " + std::to_string(link.generation) + " of " + link.sealed.origin;
    if (before == nullptr) {
        if (!link.begins_log() || link.generation != 0) return name + " does not begin a chain";
        if (genesis && link.public_key() != *genesis)
            return "the journal begins with the key " + link.public_key().vkey() +
                   ", not with the genesis key that was given";
        return {};
    }
    if (!link.begins_log()) {
        if (link.sealed.origin != before->sealed.origin) return name + " belongs to another log";
        if (link.generation != before->generation + 1) return name + " is out of order";
        if (link.sealed.size < before->sealed.size) return name + " seals less than the one before";
        return {};
    }
    if (link.key != before->key || link.generation != before->generation)
        return name + " begins with a key that the chain does not know: the private key was lost or replaced";
    if (!link.previous) return name + " does not say which log went before it";
    return {};
}

}  // namespace

std::vector<std::string> link_extensions(std::uint64_t generation, const PublicKeyBytes& key,
                                         const std::optional<PreviousLog>& previous) {
    std::vector<std::string> out{"key " + std::to_string(generation) + " " + base64_of(key)};
    if (previous)
        out.push_back("previous " + previous->origin + " " + std::to_string(previous->size) + " " +
                      to_base64(previous->root));
    return out;
}

std::expected<KeyLink, std::string> parse_link(std::string_view text) {
    const auto note = parse_note(text);
    if (!note) return std::unexpected(note.error());
    auto sealed = Checkpoint::parse(note->text);
    if (!sealed) return std::unexpected(sealed.error());
    KeyLink link;
    link.note = text;
    for (const auto& line : sealed->extensions) {
        const auto words = words_of(line);
        if (words.size() == 3 && words[0] == "key") {
            const auto generation = number(words[1]);
            const auto key = hash_from_base64(words[2]);  // 32 bytes as well
            if (!generation || !key) return std::unexpected("a damaged line: " + line);
            link.generation = *generation;
            link.key = *key;
        } else if (words.size() == 4 && words[0] == "previous") {
            const auto size = number(words[2]);
            const auto root = hash_from_base64(words[3]);
            if (!size || !root) return std::unexpected("a damaged line: " + line);
            link.previous = PreviousLog{words[1], *size, *root};
        } else {
            return std::unexpected("a line that is not known: " + line);
        }
    }
    if (link.key == PublicKeyBytes{}) return std::unexpected("it names no key");
    link.sealed = std::move(*sealed);
    return link;
}

KeyChain KeyChain::read(std::string_view text, const std::optional<PublicKey>& genesis) {
    KeyChain chain;
    while (chain.good_bytes < text.size()) {
        const auto piece = first_note(text.substr(chain.good_bytes));
        if (piece.empty()) {
            chain.problem = "the file ends in the middle of a note";
            break;
        }
        auto link = parse_link(piece);
        if (!link) {
            chain.problem = "link " + std::to_string(chain.links.size()) + ": " + link.error();
            break;
        }
        const KeyLink* before = chain.last();
        chain.problem = objection(*link, before, genesis);
        if (!chain.problem.empty()) break;
        const PublicKey signer{link->sealed.origin, before == nullptr ? link->key : before->key};
        if (!parse_note(piece)->signed_by(signer)) {
            chain.problem =
                "link " + std::to_string(chain.links.size()) + " is not signed by the key in force before it";
            break;
        }
        chain.good_bytes += piece.size();
        chain.links.push_back(std::move(*link));
    }
    if (chain.links.empty() && chain.problem.empty()) chain.problem = "there is no key in it";
    return chain;
}

}  // namespace egresswatch::evidence
