// agent/records/flow_reader.h - the inverse of flow_fields() (record.h): a flow's members as a FlowUpdate
// again. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "agent/records/record.h"

namespace egresswatch::records {

// Nothing where the addresses cannot be read; any other member that is missing or of another type is zero.
// `delta` is zero and the class id is 0: the region table at hand gives it (flow_class.h).
[[nodiscard]] std::optional<FlowUpdate> read_flow_fields(const Json& flow);

}  // namespace egresswatch::records
