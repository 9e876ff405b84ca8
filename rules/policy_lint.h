// rules/policy_lint.h - what is well formed and can never do what it is there for. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// By trial: every class that an address can have under the policy is held against each condition; and by
// comparing conditions with each other (relations.h). A warning is given only for what is certain. Limits:
// trials_max and comparisons_max, beyond which nothing more is warned of.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "rules/policy.h"

namespace egresswatch::rules {

struct LintFinding {
    bool of_rule = false;   // else of an allow entry
    std::size_t index = 0;  // in Policy::rules or Policy::allows
    std::string code, message, help;
};

[[nodiscard]] std::vector<LintFinding> lint_policy(const Policy& policy);

}  // namespace egresswatch::rules
