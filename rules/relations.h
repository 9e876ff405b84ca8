// rules/relations.h - what can be told of two conditions without a flow. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// Each answers `false` where it is not plain to see: a warning is given only for what is certain.
#pragma once

#include <string>

#include "rules/policy.h"

namespace egresswatch::rules {

// Whether every value of `b` is one of `a`'s.
[[nodiscard]] bool covers(const Predicate& a, const Predicate& b);
// Whether `a` holds wherever `b` does.
[[nodiscard]] bool covers(const Condition& a, const Condition& b);
// Why no flow can satisfy the condition, in words: "`port` 443/tcp and `port` 22/tcp exclude each other".
// Empty: some may. Compares the fields of one flow with each other; what an address can be is
// class_space.h's.
[[nodiscard]] std::string contradiction(const Condition& condition);
// Whether the prefixes together are all of IPv4 or all of IPv6.
[[nodiscard]] bool cover_everything(const std::vector<Prefix>& prefixes);

}  // namespace egresswatch::rules
