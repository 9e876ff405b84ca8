// rules/matcher.h - whether a selection holds for a class and for a flow. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// Answers are Truth: `no` beats `unknown` beats `yes` over members; over the values of one member any `yes`
// suffices. Total functions, no allocation but in why_not().
#pragma once

#include <string>

#include "rules/policy.h"

namespace egresswatch::rules {

// A country on which the geo sources disagree is a fact for a rule and no permission for an allow entry.
enum class Purpose : std::uint8_t { rule, allow };

// The members that the destination class decides.
[[nodiscard]] Truth match_class(const Match& match, const ClassInfo& info, Purpose purpose) noexcept;
// The members that the flow decides, without `allowed`.
[[nodiscard]] Truth match_flow(const Match& match, const FlowUpdate& flow) noexcept;
// The member on which match_flow() failed, in words: "port 8443/tcp is not in 443/tcp".
[[nodiscard]] std::string why_not(const Match& match, const FlowUpdate& flow);
// The same for match_class() where it answered `unknown`.
[[nodiscard]] std::string why_unknown(const Match& match, const ClassInfo& info);

}  // namespace egresswatch::rules
