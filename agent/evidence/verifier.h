// agent/evidence/verifier.h - checks a journal from the outside: nothing but its files and the genesis key.
// SPDX-License-Identifier: Apache-2.0
//
// In:      a journal's directory (or a copy), the genesis key, checkpoints that a SIEM kept.
// Out:     what is wrong, each with its place; what the journal proves.
// Cost:    one pass, one SHA-256 of each line and about one more of each record; the leaf hashes since the
//          last checkpoint in memory (leaves_waiting_max). No record is parsed but checkpoints, gaps and the
//          like.
// Limits:  problems_max are kept, the rest is counted.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/evidence/anchors.h"
#include "agent/evidence/key_chain.h"

namespace egresswatch::evidence {

inline constexpr std::size_t problems_max = 200;
inline constexpr std::size_t leaves_waiting_max = 1 << 20;  // 32 MiB

struct Problem {
    std::string code;  // "altered", "deleted", ...: the table in egresswatch-verify(1)
    std::string message;
    std::string file;
    std::optional<std::uint64_t> seq;
};

struct LogReport {
    std::string origin;
    std::uint64_t first_index = 0;  // of the oldest leaf hash that is kept
    std::uint64_t size = 0;
    std::uint64_t signed_size = 0;  // of the last checkpoint that is right
    std::string root;               // base64, of the whole tree
    std::uint64_t checkpoints = 0;
    std::uint64_t keys = 0;
    std::uint64_t anchors = 0;  // that agree
    std::uint64_t anchored_size = 0;
};

struct VerifyReport {
    std::vector<Problem> problems;
    std::uint64_t problems_not_shown = 0;
    std::vector<std::string> notes;  // worth knowing, nothing wrong
    std::vector<LogReport> logs;
    std::uint64_t records = 0;
    std::uint64_t erased = 0;  // records of which only the hash is left
    std::uint64_t bytes = 0;
    std::uint64_t first_seq = 0;
    std::uint64_t last_seq = 0;
    std::uint64_t not_signed = 0;  // at the end: forgeable by root until the next checkpoint
    std::string covered_from;      // time, by coverage records
    std::string covered_to;
    [[nodiscard]] bool good() const noexcept { return problems.empty(); }
};

struct VerifyOptions {
    std::filesystem::path journal;
    PublicKey genesis;
    std::vector<Anchor> anchors;
    bool anchors_given = false;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes
};

// The error is for a directory that cannot be read at all.
[[nodiscard]] std::expected<VerifyReport, std::string> verify_journal(const VerifyOptions& options);

// Keys of one log by generation, and what each may have signed: a checkpoint of key g lies between the sizes
// at which g and g + 1 came into force. So a stolen key cannot sign the past.
class LogKeys {
public:
    explicit LogKeys(const KeyChain& chain, const std::string& origin);
    [[nodiscard]] bool known() const noexcept { return !keys_.empty(); }
    // Empty: signed by the right key. Otherwise what is wrong.
    [[nodiscard]] std::string objection(const Checkpoint& checkpoint, const Note& note) const;
    [[nodiscard]] const std::vector<const KeyLink*>& links() const noexcept { return keys_; }

private:
    std::vector<const KeyLink*> keys_;
};

}  // namespace egresswatch::evidence
