// agent/evidence/prover.h - that one record is in a signed tree, without the others.
// SPDX-License-Identifier: Apache-2.0
//
// Format:  c2sp.org/tlog-proof@v1; its `extra` line carries the record itself in base64. Cost of making one:
// a node hash for each record of the log; of checking one: a node hash for each bit of its size.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "agent/evidence/key_chain.h"

namespace egresswatch::evidence {

struct Proof {
    std::uint64_t index = 0;
    std::string record;  // the line, without its line feed; empty: only the proof of a hash
    std::vector<Hash> hashes;
    std::string checkpoint;  // the signed note
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static std::expected<Proof, std::string> parse(std::string_view text);
};

// Proves record `seq` towards `checkpoint`, or towards the first checkpoint of the journal that signs it.
[[nodiscard]] std::expected<Proof, std::string> prove(const std::filesystem::path& journal, std::uint64_t seq,
                                                      const std::optional<std::string>& checkpoint);

struct ProofResult {
    Checkpoint checkpoint;
    std::uint64_t generation = 0;
};
// The error is why the proof proves nothing.
[[nodiscard]] std::expected<ProofResult, std::string> check_proof(const Proof& proof, const KeyChain& chain);

}  // namespace egresswatch::evidence
