// tests/support/test_region.h - a region table from a few lines of "prefix country".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/region/region_table.h"

namespace egresswatch::test {

// `lines`: a CIDR list ("1.0.0.0/8 US\n"). Home: IE, DE and NO. Aborts the test program where it does not
// compile.
[[nodiscard]] std::shared_ptr<const RegionTable> make_region(
    std::string_view lines, const RegionTable* previous = nullptr,
    const std::vector<std::string>& list_prefixes = {});

}  // namespace egresswatch::test
