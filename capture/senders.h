// capture/senders.h - who sends: what an engine knows of it that sees the sockets of its host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "classifier/datapath/sender.h"
#include "classifier/flow_update.h"

namespace egresswatch::capture {

struct Origin;   // capture/process/origin.h
struct Process;  // capture/process/process.h

// Beside Engine. From the engine's thread; answers are valid until the next call of poll(), stop() or this.
class SenderSource {
public:
    virtual ~SenderSource() = default;
    // Of an update while it is handed over: the object itself, not a copy of it.
    [[nodiscard]] virtual datapath::flow_sender sender_of(const FlowUpdate& update) const noexcept = 0;
    // Of a flow that is there now, whether an update has told of it or not; unseen where it has no entry.
    [[nodiscard]] virtual datapath::flow_sender sender_of(const datapath::flow_key& key) const noexcept = 0;
    // Null where it names no process.
    [[nodiscard]] virtual const Process* process_of(const datapath::flow_sender& sender) = 0;
    // Of routed traffic; null where it is none, or its interface is gone.
    [[nodiscard]] virtual const Origin* origin_of(const datapath::flow_sender& sender) = 0;
};

}  // namespace egresswatch::capture
