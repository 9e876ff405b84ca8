// rules/value_lint.h - values that are well formed and that no flow has: other people's ways of writing them.
// Internal to rules/. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "rules/field_table.h"
#include "rules/values.h"

namespace egresswatch::rules {

// What is wrong with a value of that field as it is written, with the cure; a regular expression with its
// "re:".
[[nodiscard]] std::optional<ValueError> odd_value(Field field, std::string_view text);

}  // namespace egresswatch::rules
