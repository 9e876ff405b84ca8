// classifier/datapath/section.h - what a section of the flow table remembers beside its flows.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "classifier/datapath/types.h"

DATAPATH_BEGIN

// Per section, written by its owner only.
struct section_state {
    __u64 spilled;        // flows that were ever put into their second window
    __u64 full_event_ns;  // when the last EVENT_FLOWS_FULL was sent
    __u32 wish_slot;      // the kernel engine: whose sender is to be looked at ...
    __u32 wish_event;     // ... and the event to send then; 0: none
    __u64 number;         // scratch
};

DATAPATH_END
