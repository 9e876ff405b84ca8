// classifier/datapath/region.h - the region block: which destination class an address belongs to.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// One flat block of memory, the same bytes in a file, in user space and as the value of a BPF array:
//   struct region_header (a whole number of cells), then cells of 16 bits in host order:
//   root4   2^18 cells     indexed by the upper 18 bits of an IPv4 address
//   narrow  n * 64 cells   IPv4 bits 18..23
//   wide4   n * 256 cells  IPv4 bits 24..31
//   root6   2^16 cells     indexed by the upper 16 bits of an IPv6 address
//   wide6   n * 256 cells  eight further bits of an IPv6 address, at any depth
//   classes CLASS_CELLS for each class: kind | local << 8, country as two letters (0 where none), list set,
//   flags
// A cell below CLASSES_MAX is a class id; any other is CLASSES_MAX + number of a block of the next level.
// Equal blocks are shared. Section starts are in cells from the start of the block. All indices are validated
// by region_validate() before a block is used; the lookup checks them again against `cells`, so that even a
// block that was not validated cannot make it read outside.
#pragma once

#include "classifier/datapath/layout.h"

DATAPATH_BEGIN

enum {
    REGION_MAGIC = 0x52575745,  // "EWWR"
    REGION_VERSION = 1,
    REGION_ROOT4_BITS = 18,
    REGION_NARROW_BITS = 6,
    REGION_ROOT6_BITS = 16,
    REGION_WIDE_BITS = 8,
    REGION_BLOCKS_MAX = 65536 - CLASSES_MAX,  // per section: what a cell can name
    REGION_CLASS_CELLS = 4,
    REGION_LEVELS6 = 14  // wide levels below root6: (128 - 16) / 8
};

// may_alias: it lies at the start of an array of cells.
struct __attribute__((may_alias)) region_header {
    __u32 magic;
    __u32 version;
    __u32 cells;  // of the whole block, this header included
    __u32 generation;
    __u32 root4, narrow, wide4, root6, wide6, classes;  // section starts, in cells
    __u32 narrow_count, wide4_count, wide6_count, class_count;
    __u32 reserved[2];
};
LAYOUT_ASSERT(sizeof(struct region_header) == 64, "region_header");

// The class id of an IPv4 address (host order). `cells` is the size that the caller knows the block to have.
DATAPATH_INLINE __u32 region_lookup4(const __u16* block, __u32 cells, __u32 address) {
    const struct region_header* header = (const struct region_header*)block;
    __u32 at = header->root4 + (address >> (32 - REGION_ROOT4_BITS));
    if (UNLIKELY(at >= cells)) return 0;
    __u32 cell = block[at];
    if (cell < CLASSES_MAX) return cell;
    at = header->narrow + ((cell - CLASSES_MAX) << REGION_NARROW_BITS) + ((address >> 8) & 63);
    if (UNLIKELY(at >= cells)) return 0;
    cell = block[at];
    if (cell < CLASSES_MAX) return cell;
    at = header->wide4 + ((cell - CLASSES_MAX) << REGION_WIDE_BITS) + (address & 255);
    if (UNLIKELY(at >= cells)) return 0;
    cell = block[at];
    return cell < CLASSES_MAX ? cell : 0;
}

// The class id of an IPv6 address given as 16 bytes in network order.
DATAPATH_INLINE __u32 region_lookup6(const __u16* block, __u32 cells, const __u8* address) {
    const struct region_header* header = (const struct region_header*)block;
    __u32 at = header->root6 + ((__u32)address[0] << 8 | address[1]);
    for (int level = 0; level < REGION_LEVELS6; level++) {
        if (UNLIKELY(at >= cells)) return 0;
        __u32 cell = block[at];
        if (cell < CLASSES_MAX) return cell;
        at = header->wide6 + ((cell - CLASSES_MAX) << REGION_WIDE_BITS) + address[2 + level];
    }
    if (UNLIKELY(at >= cells)) return 0;
    __u32 last = block[at];
    return last < CLASSES_MAX ? last : 0;
}

// The class of an address in flow_key form. NAT64 (RFC 6052, 64:ff9b::/96) and 6to4 (RFC 3056, 2002::/16)
// addresses stand for the IPv4 address inside them: that is where the bytes go.
DATAPATH_INLINE __u32 region_lookup(const __u16* block, __u32 cells, const __u8* address) {
    __u64 head = load64(address);
    __u32 third = load32(address + 8);
    if ((head == 0 && third == 0xffff0000u) || (head == 0x9bff6400u && third == 0))
        return region_lookup4(block, cells, host32(load32(address + 12)));
    if (address[0] == 0x20 && address[1] == 0x02)
        return region_lookup4(
            block, cells,
            (__u32)address[2] << 24 | (__u32)address[3] << 16 | (__u32)address[4] << 8 | address[5]);
    return region_lookup6(block, cells, address);
}

// The kind (enum region_kind) of a class. A class that the block does not have is unknown.
DATAPATH_INLINE __u32 region_kind_of(const __u16* block, __u32 cells, __u32 class_id) {
    const struct region_header* header = (const struct region_header*)block;
    __u32 at = header->classes + class_id * REGION_CLASS_CELLS;
    if (UNLIKELY(class_id >= header->class_count || at >= cells)) return KIND_UNKNOWN;
    __u32 kind = block[at] & 0xff;
    return kind < KIND_COUNT ? kind : (__u32)KIND_UNKNOWN;
}

DATAPATH_END
