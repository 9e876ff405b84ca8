// rules/rule_test_schema.h - the form of a file of rule tests, as tables (schema.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "rules/schema.h"

namespace egresswatch::rules {

namespace schema {
extern const Mapping rule_tests, rule_case, test_flow, expected_finding;
}

// As manual_tables() (schema.h), of any mappings.
[[nodiscard]] std::string manual_tables_of(std::span<const Mapping* const> mappings);
// The key tables in mdoc, for docs/man/egresswatch-test.1.
[[nodiscard]] std::string rule_test_manual_tables();

}  // namespace egresswatch::rules
