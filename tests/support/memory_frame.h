// tests/support/memory_frame.h - the platform of the header walk for a frame that lies in memory.
//
// Instead of classifier/datapath/walk.h, which wants to know its platform first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "classifier/datapath/walk_platform_memory.h"

namespace egresswatch::datapath {
struct MemoryFrame {
    const __u8* data;
    __u32 captured;
};
using platform_ctx = const MemoryFrame*;
DATAPATH_INLINE int platform_read(platform_ctx ctx, __u32 offset, void* to, __u32 size) {
    return read_memory(ctx->data, ctx->captured, offset, to, size);
}
}  // namespace egresswatch::datapath

#include "classifier/datapath/walk.h"
