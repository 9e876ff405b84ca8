// rules/explanation.h - why a flow is, or is not, a finding: every entry and rule beside it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "rules/finding.h"

namespace egresswatch::rules {

struct AllowExplanation {
    std::string id;
    bool covers = false;
    std::string why_not;  // the first field on which it failed; empty where it covers the flow
    bool close = false;   // it names the destination
};

struct RuleExplanation {
    std::string id;
    std::string kind;
    bool counts = false;
    std::string
        why_not;  // the first field on which it failed, or the exception; empty where it counts the flow
    std::vector<GroupField> group;
    std::uint64_t value = 0;  // what the group's window holds now
    std::uint64_t threshold = 0;
    std::string measure;
    std::chrono::seconds window{};
    bool suppressed = false;  // a finding of this group would not be told now
    std::string second;       // what else has to be so, and how far it is; empty: nothing
};

struct Explanation {
    Decision decision;
    std::vector<AllowExplanation> allows;  // in file order
    std::vector<RuleExplanation> rules;
};

}  // namespace egresswatch::rules
