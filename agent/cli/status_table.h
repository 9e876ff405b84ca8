// agent/cli/status_table.h - the daemon's status for people.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace egresswatch::cli {

// Total: whatever the object lacks is left out. Control characters in names are shown as '?'.
[[nodiscard]] std::string status_table(const nlohmann::json& status);

}  // namespace egresswatch::cli
