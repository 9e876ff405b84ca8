// agent/cli/json_schema.h - the tables of rules/schema.h as JSON Schema (2020-12), for editors.
// SPDX-License-Identifier: Apache-2.0
//
// It accepts every file that `egresswatch check` accepts, and refuses what is wrong in a file's form: unknown
// and missing keys, values of another form. What is wrong between keys or between files is for `check`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "rules/schema.h"

namespace egresswatch::cli {

// `root`: the mapping at the top of a file. `required`: its keys that every single file must have.
[[nodiscard]] nlohmann::ordered_json json_schema(const rules::Mapping& root, const std::string& id,
                                                 const std::string& title,
                                                 const std::vector<std::string>& required);

}  // namespace egresswatch::cli
