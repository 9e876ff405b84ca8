// agent/sender.h - the process behind a flow: what rules compare, and what records carry.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "capture/process/origin.h"
#include "capture/process/process.h"
#include "classifier/datapath/sender.h"
#include "rules/flow_facts.h"

namespace egresswatch {

// Views into the process, or into where routed traffic comes from; null leaves everything about it unknown.
void add_sender_facts(const datapath::flow_sender& sender, const capture::Process* process,
                      const capture::Origin* origin, rules::FlowFacts& facts) noexcept;

// The members `sender` and `process` (null where there is none) of finding and flow records.
void add_sender_members(nlohmann::ordered_json& record, const datapath::flow_sender& sender,
                        const capture::Process* process, const capture::Origin* origin = nullptr);

}  // namespace egresswatch
