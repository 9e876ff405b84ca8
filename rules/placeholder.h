// rules/placeholder.h - what stands where a person has to write something.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace egresswatch::rules {

// `egresswatch learn` writes it; no key takes it for a value (fields.cpp).
inline constexpr std::string_view placeholder = "FILL-IN";

}  // namespace egresswatch::rules
