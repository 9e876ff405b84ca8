// agent/records/names.h - the names of a flow as members of a record, shown, shortened or hidden.
//
// In:      inspect::FlowNames.   Out: the members `name` to `ssh` of docs/records.md, and text for people.
// Threads: pure functions, any thread. Fails: never.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/records/record.h"

namespace egresswatch::inspect {
struct FlowNames;
}

namespace egresswatch::records {

enum class ShownNames : std::uint8_t {
    full,
    registered_domain,  // example.co.uk of a.b.example.co.uk
    hashed,             // of each name a keyed hash: equal names stay equal
    none
};

// What records show of names. Rules see all of them always.
struct NamePrivacy {
    ShownNames shown = ShownNames::full;
    std::string hash_key;

    // The name as records have it; empty: not at all.
    [[nodiscard]] std::string of(std::string_view name) const;
};

// Adds the members to those of a flow.
void add_names(Json& flow, const inspect::FlowNames& names, const NamePrivacy& privacy = {});
// The same to the `flow` of a finding or flow record; null: nothing is known. Names that are not to be shown
// in full are taken out of what the record says beside: group, message, reason of a decision against the
// flow.
void name_record(Json& record, const inspect::FlowNames* names, const NamePrivacy& privacy = {});

}  // namespace egresswatch::records
