// agent/evidence/anchors.h - checkpoints that somebody else kept, found in whatever text they are in.
// SPDX-License-Identifier: Apache-2.0
//
// In:     signed notes one behind the other, syslog lines, JSON lines of a SIEM's export: a checkpoint is
//         recognised by its three lines and its signature line, whether line feeds stand as such, as \n or as
//         \\n. Fails: never; text that holds no checkpoint holds no anchors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/evidence/note.h"

namespace egresswatch::evidence {

struct Anchor {
    Checkpoint checkpoint;
    Note note;
};

// Each (origin, size, root) once.
[[nodiscard]] std::vector<Anchor> find_anchors(std::string_view text);

}  // namespace egresswatch::evidence
