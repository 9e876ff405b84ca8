// agent/records/ecs.h - the Elastic Common Schema document of a record, and its shortening. Inside of body.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "agent/records/body.h"

namespace egresswatch::records {

// In the order in which they go: JSON pointers into the document. docs/siem.md lists them; a test compares.
[[nodiscard]] const std::vector<std::string>& ecs_droppable();
[[nodiscard]] const std::vector<std::string>& ocsf_droppable();

[[nodiscard]] std::string valid_utf8(const std::string& text);                // U+FFFD for what is not
[[nodiscard]] std::string cut_utf8(std::string text, std::size_t bytes_max);  // at a character's border

}  // namespace egresswatch::records
