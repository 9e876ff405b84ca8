// rules/selector.h - what a flow has to have for a condition to hold, as keys of an index. Internal to
// rules/. SPDX-License-Identifier: Apache-2.0
//
// A condition that asks for prefixes, names, executables, AS numbers and the like in all of their values can
// hold only for flows that have one of them. A key is no proof: two words may have one hash, and the rest of
// the condition is still to be compared.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "rules/matcher.h"
#include "rules/policy.h"

namespace egresswatch::rules {

// What a word can be, in the order in which an index prefers it: the rarest first. A bit of WordKinds each.
enum class WordKind : std::uint8_t { sha256, executable, container, unit, cgroup, name, asn, user, uid };
using WordKinds = std::uint32_t;

struct SelectorKeys {
    std::vector<std::uint32_t> sets;   // of the policy's PrefixIndex
    std::vector<std::uint64_t> words;  // hashes with their kind
    WordKinds kinds = 0;               // of `words`
};

// Nothing: a flow can satisfy the condition by what no index holds (a country, a pattern, `unknown`).
[[nodiscard]] std::optional<SelectorKeys> selector_keys(const Condition& condition);
// Replaces `out` by the words of these kinds that the flow has; of a name also those of the domains above it.
void words_of(const Subject& flow, WordKinds kinds, std::vector<std::uint64_t>& out);

}  // namespace egresswatch::rules
