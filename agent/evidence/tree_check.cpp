// agent/evidence/tree_check.cpp - see tree_check.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/tree_check.h"

#include "agent/evidence/verifier.h"

namespace egresswatch::evidence {

bool TreeCheck::expect(std::uint64_t size, const Hash& root, Outcome outcome) {
    if (size < frontier_.size()) return false;
    expected_.emplace(size, Expected{root, std::move(outcome)});
    // A checkpoint stands behind the leaves that it signs: now is the time.
    if (size <= this->size()) fold(size);
    return true;
}

void TreeCheck::add(const Hash& leaf) {
    waiting_.push_back(leaf);
    // Nobody signed for long: memory is bounded, and later checkpoints are of later sizes.
    if (waiting_.size() - taken_ > leaves_waiting_max) fold(size() - leaves_waiting_max / 2);
}

void TreeCheck::finish() {
    fold(size());
}

void TreeCheck::fold(std::uint64_t size) {
    settle();
    while (frontier_.size() < size) {
        frontier_.append(waiting_[taken_++]);
        settle();
    }
    if (taken_ == waiting_.size()) {
        waiting_.clear();
        taken_ = 0;
    } else if (taken_ > waiting_.size() / 2) {
        waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken_));
        taken_ = 0;
    }
}

void TreeCheck::settle() {
    if (expected_.empty() || expected_.begin()->first != frontier_.size()) return;
    const Hash root = frontier_.root();
    while (!expected_.empty() && expected_.begin()->first == frontier_.size()) {
        const auto node = expected_.extract(expected_.begin());
        node.mapped().outcome(node.mapped().root == root);
    }
}

std::vector<std::uint64_t> TreeCheck::unmet() const {
    std::vector<std::uint64_t> out;
    for (const auto& [size, expected] : expected_) out.push_back(size);
    return out;
}

}  // namespace egresswatch::evidence
