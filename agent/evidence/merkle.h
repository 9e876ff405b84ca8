// agent/evidence/merkle.h - the RFC 6962 Merkle tree over the journal's lines: hashes, frontier, proofs.
// SPDX-License-Identifier: Apache-2.0
//
// Leaf = SHA-256(0x00 || line without its line feed), node = SHA-256(0x01 || left || right), RFC 6962
// section 2.1. Threads: pure functions and values; each thread has a hashing context of its own.
// Cost: O(log n) memory for a tree of any size; one leaf and, on average, one node hash a record.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace egresswatch::evidence {

using Hash = std::array<std::uint8_t, 32>;

[[nodiscard]] Hash sha256(std::string_view bytes);
[[nodiscard]] Hash leaf_hash(std::string_view line);
[[nodiscard]] Hash node_hash(const Hash& left, const Hash& right);
[[nodiscard]] Hash empty_root();  // SHA-256 of nothing

[[nodiscard]] std::string to_hex(const Hash& hash);
[[nodiscard]] std::optional<Hash> hash_from_hex(std::string_view hex);

// The roots of the complete subtrees that make up a tree, largest first: all that is needed to go on.
class Frontier {
public:
    void append(const Hash& leaf);
    [[nodiscard]] Hash root() const;
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] const std::vector<Hash>& nodes() const noexcept { return nodes_; }
    // Nothing where the number of nodes is not that of the bits set in `size`.
    [[nodiscard]] static std::optional<Frontier> restore(std::uint64_t size, std::vector<Hash> nodes);

private:
    std::uint64_t size_ = 0;
    std::vector<Hash> nodes_;
};

struct Range {  // of leaves: first <= index < last
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    friend bool operator==(const Range&, const Range&) = default;
};

// The subtrees whose roots prove that leaf `index` is in a tree of `size` leaves, the leaf's sibling first
// (RFC 6962 section 2.1.1).
[[nodiscard]] std::vector<Range> inclusion_ranges(std::uint64_t index, std::uint64_t size);
// Root of the tree that leaf and proof lead to; nothing where the proof has the wrong length.
[[nodiscard]] std::optional<Hash> root_from_inclusion(const Hash& leaf, std::uint64_t index,
                                                      std::uint64_t size, std::span<const Hash> proof);
// RFC 6962 section 2.1.2: what proves that the tree of `old_size` is the beginning of the tree of `size`.
[[nodiscard]] std::vector<Range> consistency_ranges(std::uint64_t old_size, std::uint64_t size);
[[nodiscard]] bool consistent(std::uint64_t old_size, const Hash& old_root, std::uint64_t size,
                              const Hash& root, std::span<const Hash> proof);

}  // namespace egresswatch::evidence
