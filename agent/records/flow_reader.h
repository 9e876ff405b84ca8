// agent/records/flow_reader.h - the inverse of flow_fields() (record.h): a flow's members as a FlowUpdate
// again. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "agent/records/record.h"
#include "rules/owned_facts.h"

namespace egresswatch::records {

// Nothing where the addresses cannot be read; any other member that is missing or of another type is zero.
// `delta` is zero and the class id is 0: the region table at hand gives it (flow_class.h).
[[nodiscard]] std::optional<FlowUpdate> read_flow_fields(const Json& flow);

// What a flow record says of names and sender. Names that the configuration keeps out of records stay
// unknown.
[[nodiscard]] rules::OwnedFacts read_flow_facts(const Json& record);

}  // namespace egresswatch::records
