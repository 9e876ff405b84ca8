// rules/policy_text.h - a compiled policy in words: what is in effect, and what it compiled to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "rules/policy.h"

namespace egresswatch::rules {

// Regions with their groups resolved, allow entries and rules with every default filled in, in the language's
// own form, over all files; without what no machine reads (descriptions, titles of sites stay). Compiles to
// the same policy. In policy_dump.cpp.
[[nodiscard]] std::string effective_policy(const Policy& policy);

// For each class that an address can have, on a host of the site: the allow entries and rules that it can
// still match, in the order in which they are asked; and the windows with the memory that they may take.
[[nodiscard]] std::string explain_compiled(const Policy& policy, const std::string& site);

}  // namespace egresswatch::rules
