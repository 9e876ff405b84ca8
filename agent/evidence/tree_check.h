// agent/evidence/tree_check.h - rebuilds the tree of one log and compares its root wherever somebody signed
// one. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/evidence/merkle.h"

namespace egresswatch::evidence {

class TreeCheck {
public:
    // Called for each expectation with whether the root was the expected one.
    using Outcome = std::function<void(bool agrees)>;

    TreeCheck() = default;
    explicit TreeCheck(Frontier start) : frontier_(std::move(start)), first_(frontier_.size()) {}

    // "The first `size` leaves have this root." Told at once where the leaves are known, else when they come.
    // False where the tree is already beyond that size and the root can no longer be told.
    bool expect(std::uint64_t size, const Hash& root, Outcome outcome);
    void add(const Hash& leaf);
    // All leaves are known. What is still expected lies beyond the end and stays in unmet().
    void finish();

    [[nodiscard]] std::uint64_t size() const noexcept { return frontier_.size() + waiting_.size() - taken_; }
    [[nodiscard]] std::uint64_t first() const noexcept { return first_; }
    [[nodiscard]] Hash root() const { return frontier_.root(); }  // after finish()
    [[nodiscard]] std::vector<std::uint64_t> unmet() const;       // sizes

private:
    struct Expected {
        Hash root;
        Outcome outcome;
    };
    void fold(std::uint64_t size);
    void settle();

    Frontier frontier_;
    std::uint64_t first_ = 0;
    std::vector<Hash> waiting_;  // leaves behind the frontier, from taken_ on
    std::size_t taken_ = 0;
    std::multimap<std::uint64_t, Expected> expected_;
};

}  // namespace egresswatch::evidence
