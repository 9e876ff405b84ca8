// agent/records/fit.h - the shortening that every JSON body shares, and small readers of records. Inside of
// body.h. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "agent/records/body.h"

namespace egresswatch::records {

// A member of a record, null where there is none.
[[nodiscard]] const Json& member(const Json& object, const char* name);
[[nodiscard]] std::string text_member(const Json& object, const char* name);  // empty: none, or no string
// Not for empty text and null.
void put(Json& object, const char* name, const Json& value);

// Unique over hosts and over journals: a journal that was begun anew counts from 1 again, at another time.
[[nodiscard]] std::string event_id(const Json& record);
// The rule of a finding; "egresswatch/<kind>" of every other kind, so that a SIEM can always filter by rule.
[[nodiscard]] std::string rule_or_kind(const Json& record);
struct Techniques {
    std::vector<std::string> ids;      // "T1567"
    std::vector<std::string> sub_ids;  // "T1567.002"
};
[[nodiscard]] Techniques attack_techniques(const Json& record);  // from tags "attack.t1567.002"

// Drops what the pointers name, in their order, until the text fits. The count goes to `mark`; what does not
// fit even then becomes `bare`.
[[nodiscard]] Body fit_document(Json document, const std::vector<std::string>& droppable, const char* mark,
                                std::string_view bare, std::size_t bytes_max);

[[nodiscard]] Body fit_ecs(const Json& record, std::size_t bytes_max, unsigned time_digits);
[[nodiscard]] Body fit_ocsf(const Json& record, std::size_t bytes_max);
[[nodiscard]] Body fit_cef(const Json& record, std::size_t bytes_max);
[[nodiscard]] Body fit_leef(const Json& record, std::size_t bytes_max);

}  // namespace egresswatch::records
