// agent/journal/line.h - a record as the line that goes into the file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "agent/records/record.h"

namespace egresswatch::journal {

struct Line {
    std::string text;  // with its line feed; empty: the record is no JSON object
    bool cut = false;
};

// `{"seq":N,"written":"...","nonce":"...",` + (`"time":` where the record has none) + the record's members +
// `}`. ASCII only: what is not is escaped, so that a line shown in a terminal does nothing but show itself.
// Longer than line_bytes_max: members go in the order of `droppable_members` until it fits; the rest of the
// way, all but the core. `cut` names what went.
[[nodiscard]] Line make_line(const records::Json& record, std::uint64_t seq, Timestamp written,
                             std::string_view nonce);

inline constexpr std::string_view droppable_members[] = {
    "problems", "detail", "interfaces", "classes", "losses", "group", "lists", "decision", "rule", "flow"};

}  // namespace egresswatch::journal
