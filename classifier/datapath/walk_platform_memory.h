// classifier/datapath/walk_platform_memory.h - platform_read() for frames that lie in memory whole.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "classifier/datapath/types.h"

DATAPATH_BEGIN

// 0, or non-zero when the bytes are not all there. `offset` + `size` may exceed 32 bits.
DATAPATH_INLINE int read_memory(const __u8* frame, __u32 captured, __u32 offset, void* to, __u32 size) {
    if (UNLIKELY(offset > captured || size > captured - offset)) return 1;
    __builtin_memcpy(to, frame + offset, size);
    return 0;
}

DATAPATH_END
