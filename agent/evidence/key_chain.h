// agent/evidence/key_chain.h - which key signed when: a chain of signed notes from the genesis key on.
// SPDX-License-Identifier: Apache-2.0
//
// Every link is a checkpoint with extension lines, signed by the key in force before it:
//   begin of a log   size 0, `key <generation> <public key>`, and `previous <origin> <size> <root>` where
//                    another log went before it; signed by the key that it names, which the log before knows
//   next key         size and root of the tree at this moment, `key <generation + 1> <public key>`
// So each link seals, by a key that is then destroyed, all that was recorded before it.
// File: <journal>/keys, the notes one behind the other; kept for ever (about 300 bytes an hour).
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/evidence/note.h"

namespace egresswatch::evidence {

inline constexpr std::string_view keys_file_name = "keys";
inline constexpr std::uint64_t keys_bytes_max = 64ULL << 20;  // of a file that is read: 25 years of hours

struct PreviousLog {
    std::string origin;
    std::uint64_t size = 0;
    Hash root{};
};

struct KeyLink {
    Checkpoint sealed;  // of `sealed.origin`; size 0: a log begins
    std::uint64_t generation = 0;
    PublicKeyBytes key{};  // in force from here on
    std::optional<PreviousLog> previous;
    std::string note;  // as it stands in the file
    [[nodiscard]] bool begins_log() const noexcept { return sealed.size == 0; }
    [[nodiscard]] PublicKey public_key() const { return {sealed.origin, key}; }
};

// Extension lines of a link.
[[nodiscard]] std::vector<std::string> link_extensions(std::uint64_t generation, const PublicKeyBytes& key,
                                                       const std::optional<PreviousLog>& previous);
// A note that may be a link; its signature is not looked at yet.
[[nodiscard]] std::expected<KeyLink, std::string> parse_link(std::string_view note);

struct KeyChain {
    std::vector<KeyLink> links;
    std::string problem;         // why it ends where it ends, empty: the whole file is good
    std::size_t good_bytes = 0;  // of the text, up to the end of the last good link

    // Follows the notes of `text` while each is signed by the key that the one before put in force.
    // `genesis`: the first link has to begin with this key; none: any.
    [[nodiscard]] static KeyChain read(std::string_view text, const std::optional<PublicKey>& genesis);
    [[nodiscard]] const KeyLink* last() const noexcept { return links.empty() ? nullptr : &links.back(); }
};

}  // namespace egresswatch::evidence
