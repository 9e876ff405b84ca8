// agent/naming.h - names of flows between the engine that samples payload and the rules that ask for names.
//
// In:      payload samples of an engine.   Out: rules::FlowFacts, and what records say of a flow.
// Threads: the one that drives the engine.
// Limits:  those of inspect::Inspection.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/records/names.h"
#include "classifier/inspect/inspection.h"
#include "rules/flow_facts.h"
#include "rules/owned_facts.h"

namespace egresswatch {

// What is known of one flow by name, in the words of rules and of records. Refers to itself: stays where it
// is, and holds until the next payload sample or forget().
class NamedFlow {
public:
    NamedFlow() = default;
    NamedFlow(const inspect::Inspection& inspection, const FlowUpdate& update);
    NamedFlow(const NamedFlow&) = delete;
    NamedFlow& operator=(const NamedFlow&) = delete;

    [[nodiscard]] const inspect::FlowNames* names() const noexcept {
        return names_.any() ? &names_ : nullptr;
    }
    // Adds what the names say to the facts of a flow.
    void add_to(rules::FlowFacts& facts) const noexcept;

private:
    inspect::FlowNames names_;
};

// The same of names that are known already, and as facts that outlive them; null: nothing is known.
void add_name_facts(const inspect::FlowNames& names, rules::FlowFacts& facts) noexcept;
[[nodiscard]] rules::OwnedFacts owned_facts_of(const inspect::FlowNames* names);

// The flow of a question to a name server as an evaluator wants it: the packet is all that is known of it.
[[nodiscard]] FlowUpdate update_of(const PayloadSample& question) noexcept;

}  // namespace egresswatch
