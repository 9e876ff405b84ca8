// agent/evidence/merkle.cpp - see merkle.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/merkle.h"

#include <openssl/evp.h>

#include <bit>
#include <cstdlib>
#include <memory>

namespace egresswatch::evidence {
namespace {

// Fetching the algorithm costs more than hashing a line: done once a thread.
class Hasher {
public:
    Hasher() : context_(EVP_MD_CTX_new()), algorithm_(EVP_MD_fetch(nullptr, "SHA256", nullptr)) {
        if (context_ == nullptr || algorithm_ == nullptr) std::abort();  // no memory, or no SHA-256 at all
    }
    ~Hasher() {
        EVP_MD_CTX_free(context_);
        EVP_MD_free(algorithm_);
    }
    Hasher(const Hasher&) = delete;
    Hasher& operator=(const Hasher&) = delete;

    Hasher& start() {
        check(EVP_DigestInit_ex2(context_, algorithm_, nullptr));
        return *this;
    }
    Hasher& add(const void* bytes, std::size_t count) {
        check(EVP_DigestUpdate(context_, bytes, count));
        return *this;
    }
    Hash finish() {
        Hash out;
        check(EVP_DigestFinal_ex(context_, out.data(), nullptr));
        return out;
    }

private:
    static void check(int done) {
        if (done != 1) std::abort();  // SHA-256 over memory cannot fail
    }
    EVP_MD_CTX* context_;
    EVP_MD* algorithm_;
};

Hasher& hasher() {
    static thread_local Hasher instance;
    return instance;
}

std::uint64_t largest_power_below(std::uint64_t size) {  // size > 1
    return std::bit_floor(size - 1);
}

}  // namespace

Hash sha256(std::string_view bytes) {
    return hasher().start().add(bytes.data(), bytes.size()).finish();
}

Hash leaf_hash(std::string_view line) {
    static constexpr std::uint8_t prefix = 0;
    return hasher().start().add(&prefix, 1).add(line.data(), line.size()).finish();
}

Hash node_hash(const Hash& left, const Hash& right) {
    std::array<std::uint8_t, 65> bytes;
    bytes[0] = 1;
    std::copy(left.begin(), left.end(), bytes.begin() + 1);
    std::copy(right.begin(), right.end(), bytes.begin() + 33);
    return hasher().start().add(bytes.data(), bytes.size()).finish();
}

Hash empty_root() {
    return sha256({});
}

std::string to_hex(const Hash& hash) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out;
    for (const std::uint8_t byte : hash) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

std::optional<Hash> hash_from_hex(std::string_view hex) {
    Hash out{};
    if (hex.size() != 2 * out.size()) return std::nullopt;
    for (std::size_t i = 0; i < hex.size(); i++) {
        const char c = hex[i];
        int value = 0;
        if (c >= '0' && c <= '9')
            value = c - '0';
        else if (c >= 'a' && c <= 'f')
            value = c - 'a' + 10;
        else
            return std::nullopt;
        out[i / 2] = static_cast<std::uint8_t>(out[i / 2] << 4 | value);
    }
    return out;
}

void Frontier::append(const Hash& leaf) {
    Hash node = leaf;
    // Each bit set at the low end of the size is a complete subtree that the new leaf completes further.
    for (std::uint64_t bits = size_; (bits & 1) != 0; bits >>= 1) {
        node = node_hash(nodes_.back(), node);
        nodes_.pop_back();
    }
    nodes_.push_back(node);
    ++size_;
}

Hash Frontier::root() const {
    if (nodes_.empty()) return empty_root();
    Hash root = nodes_.back();
    for (std::size_t i = nodes_.size() - 1; i-- > 0;) root = node_hash(nodes_[i], root);
    return root;
}

std::optional<Frontier> Frontier::restore(std::uint64_t size, std::vector<Hash> nodes) {
    if (static_cast<std::size_t>(std::popcount(size)) != nodes.size()) return std::nullopt;
    Frontier out;
    out.size_ = size;
    out.nodes_ = std::move(nodes);
    return out;
}

std::vector<Range> inclusion_ranges(std::uint64_t index, std::uint64_t size) {
    std::vector<Range> out;
    Range tree{0, size};
    while (tree.last - tree.first > 1) {
        const std::uint64_t middle = tree.first + largest_power_below(tree.last - tree.first);
        if (index < middle) {
            out.push_back({middle, tree.last});
            tree.last = middle;
        } else {
            out.push_back({tree.first, middle});
            tree.first = middle;
        }
    }
    return {out.rbegin(), out.rend()};
}

std::optional<Hash> root_from_inclusion(const Hash& leaf, std::uint64_t index, std::uint64_t size,
                                        std::span<const Hash> proof) {
    if (index >= size) return std::nullopt;
    const auto ranges = inclusion_ranges(index, size);
    if (ranges.size() != proof.size()) return std::nullopt;
    Hash root = leaf;
    for (std::size_t i = 0; i < proof.size(); i++)
        root = ranges[i].first > index ? node_hash(root, proof[i]) : node_hash(proof[i], root);
    return root;
}

std::vector<Range> consistency_ranges(std::uint64_t old_size, std::uint64_t size) {
    std::vector<Range> out;
    if (old_size == 0 || old_size >= size) return out;
    Range tree{0, size};
    std::uint64_t old_last = old_size;
    bool whole = true;  // the old tree is a complete subtree of the new one: its root is known
    while (old_last != tree.last) {
        const std::uint64_t middle = tree.first + largest_power_below(tree.last - tree.first);
        if (old_last <= middle) {
            out.push_back({middle, tree.last});
            tree.last = middle;
        } else {
            out.push_back({tree.first, middle});
            tree.first = middle;
            whole = false;
        }
    }
    if (!whole) out.push_back(tree);
    return {out.rbegin(), out.rend()};
}

bool consistent(std::uint64_t old_size, const Hash& old_root, std::uint64_t size, const Hash& root,
                std::span<const Hash> proof) {
    if (old_size > size) return false;
    if (old_size == size) return proof.empty() && old_root == root;
    if (old_size == 0) return proof.empty();
    const auto ranges = consistency_ranges(old_size, size);
    if (ranges.size() != proof.size()) return false;
    // The first range ends where the old tree ends, or the old tree itself is the first subtree.
    std::size_t at = 0;
    Hash old_part = old_root;
    if (ranges[0].last == old_size) old_part = proof[at++];
    Hash new_part = old_part;
    for (; at < proof.size(); at++) {
        if (ranges[at].first >= old_size) {
            new_part = node_hash(new_part, proof[at]);
        } else {
            old_part = node_hash(proof[at], old_part);
            new_part = node_hash(proof[at], new_part);
        }
    }
    return old_part == old_root && new_part == root;
}

}  // namespace egresswatch::evidence
