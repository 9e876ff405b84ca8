// agent/records/body.h - a journal record as a SIEM wants to read it: ECS or OCSF JSON, CEF, LEEF, or one
// line for people. SPDX-License-Identifier: Apache-2.0
//
// In:      a record as it stands in the journal.   Out: text without line feeds.
// Limits:  a body that must fit in fewer bytes loses optional fields in the order of docs/siem.md; the cut is
// marked. Not here: syslog header and structured data (agent/outputs/rfc5424.h).
#pragma once

#include <cstddef>
#include <string>

#include "agent/records/level.h"
#include "agent/records/record.h"

namespace egresswatch::records {

struct Body {
    std::string text;
    std::size_t dropped = 0;  // optional fields left out; 0: complete
    bool cut =
        false;  // even the required part did not fit: text ends early, or the ECS body is the bare mark
};

// The whole body, however long.
[[nodiscard]] Json ecs_document(const Json& record);
[[nodiscard]] Json ocsf_document(const Json& record);
[[nodiscard]] std::string text_line(const Json& record);  // also what `replay` prints for people

inline constexpr std::size_t body_unlimited = static_cast<std::size_t>(-1);
// At most `bytes_max` bytes. `time_digits` of a second in ECS; CEF, LEEF and OCSF know milliseconds only.
[[nodiscard]] Body fit_body(BodyKind kind, const Json& record, std::size_t bytes_max,
                            unsigned time_digits = 9);

}  // namespace egresswatch::records
