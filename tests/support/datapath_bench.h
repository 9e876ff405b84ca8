// tests/support/datapath_bench.h - the smallest platform of the data path: arrays, a clock that tests set, no
// threads. SPDX-License-Identifier: Apache-2.0
//
// For tests of classifier/datapath alone. Include in one translation unit per program part: its functions are
// static.
#pragma once

#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"

namespace egresswatch::datapath {

struct walk_state;
struct section_state;
struct walk_result;

struct SentEvent {
    __u32 kind;
    __u32 slot;
    flow_key key;
    __u64 bytes_out;
};

struct Bench;
using platform_ctx = Bench*;

}  // namespace egresswatch::datapath

namespace egresswatch::datapath {
DATAPATH_INLINE int platform_read(platform_ctx ctx, __u32 offset, void* to, __u32 size);
DATAPATH_INLINE walk_state* platform_walk_state(platform_ctx ctx);
DATAPATH_INLINE const __u16* platform_region(platform_ctx ctx);
DATAPATH_INLINE __u32 platform_region_cells(platform_ctx ctx);
DATAPATH_INLINE iface_direction* platform_iface(platform_ctx ctx, __u8 direction);
DATAPATH_INLINE class_traffic* platform_class(platform_ctx ctx, __u16 class_id, __u8 direction);
DATAPATH_INLINE section_state* platform_section(platform_ctx ctx);
DATAPATH_INLINE flow_head* platform_flow(platform_ctx ctx, __u32 slot);
DATAPATH_INLINE flow_counts* platform_counts(platform_ctx ctx, __u32 slot, flow_head* head);
DATAPATH_INLINE flow_outer* platform_outer(platform_ctx ctx, __u32 slot);
DATAPATH_INLINE __u32 platform_slot_mask(platform_ctx ctx);
DATAPATH_INLINE __u64 platform_hash_seed(platform_ctx ctx);
DATAPATH_INLINE int platform_track_all(platform_ctx ctx);
DATAPATH_INLINE __u64 platform_now(platform_ctx ctx);
DATAPATH_INLINE __u64 platform_now_coarse(platform_ctx ctx);
DATAPATH_INLINE void platform_lose(platform_ctx ctx, __u32 reason, __u64 amount);
DATAPATH_INLINE void platform_event(platform_ctx ctx, __u32 kind, __u32 slot, const flow_key* key,
                                    __u64 bytes_out);
}  // namespace egresswatch::datapath

#include "classifier/datapath/account.h"

namespace egresswatch::datapath {

struct Bench {
    std::vector<__u8> frame;
    std::vector<__u16> region;
    std::vector<flow_entry> flows;
    std::vector<flow_outer> outers;
    std::array<class_totals, CLASSES_MAX> classes{};
    iface_totals iface{};
    std::array<__u64, LOSS_REASON_COUNT> losses{};
    std::vector<SentEvent> events;
    walk_state scratch{};
    section_state section{};
    __u64 now = 1'000'000'000;
    bool track_all = false;

    explicit Bench(std::size_t slots = 64) : flows(slots), outers(slots) {}

    // A region block from host prefixes: class i + 1 holds kinds[i] for its prefix; everything else is class
    // 0.
    void set_region(const std::vector<std::pair<Prefix, region_kind>>& prefixes);

    void account(const std::vector<__u8>& bytes, direction way, __u32 gso_segments = 0, __u32 gso_bytes = 0,
                 __u8 start = 1, __u32 ifindex = 0) {
        packet_facts p{};
        frame = bytes;
        p.frame.wire_bytes = static_cast<__u32>(bytes.size());
        p.frame.captured_bytes = p.frame.wire_bytes;
        p.frame.start = start;
        p.gso_segments = gso_segments;
        p.gso_bytes = gso_bytes;
        p.ifindex = ifindex;
        p.direction = static_cast<__u8>(way);
        account_packet(this, frame.data(), frame.data() + frame.size(), &p);
    }

    [[nodiscard]] std::vector<flow_entry> live() const {
        std::vector<flow_entry> entries;
        for (const auto& entry : flows)
            if (entry.head.tag & FLOW_LIVE) entries.push_back(entry);
        return entries;
    }
};

inline void Bench::set_region(const std::vector<std::pair<Prefix, region_kind>>& prefixes) {
    // Only prefixes up to the root's resolution: /18 and shorter for IPv4, /16 for IPv6.
    const __u32 head = sizeof(region_header) / 2;
    const __u32 root4_cells = 1u << REGION_ROOT4_BITS;
    const __u32 root6_cells = 1u << REGION_ROOT6_BITS;
    const auto class_count = static_cast<__u32>(prefixes.size()) + 1;
    region.assign(head + root4_cells + root6_cells + class_count * REGION_CLASS_CELLS, 0);
    region_header header{};
    header.magic = REGION_MAGIC;
    header.version = REGION_VERSION;
    header.cells = static_cast<__u32>(region.size());
    header.root4 = head;
    header.narrow = header.wide4 = header.root6 = head + root4_cells;
    header.wide6 = header.classes = header.root6 + root6_cells;
    header.class_count = class_count;
    std::memcpy(region.data(), &header, sizeof header);
    region[header.classes] = KIND_UNKNOWN;
    for (std::size_t i = 0; i < prefixes.size(); i++) {
        const auto& [prefix, kind] = prefixes[i];
        const auto id = static_cast<__u16>(i + 1);
        region[header.classes + id * REGION_CLASS_CELLS] = kind;
        const bool v4 = prefix.is_ipv4();
        const auto first = v4 ? prefix.base.ipv4() >> 14
                              : static_cast<__u32>(prefix.base.bytes[0] << 8 | prefix.base.bytes[1]);
        const auto count = 1u << ((v4 ? REGION_ROOT4_BITS : REGION_ROOT6_BITS) - prefix.length);
        for (__u32 cell = 0; cell < count; cell++)
            region[(v4 ? header.root4 : header.root6) + first + cell] = id;
    }
}

DATAPATH_INLINE int platform_read(platform_ctx ctx, __u32 offset, void* to, __u32 size) {
    if (offset > ctx->frame.size() || size > ctx->frame.size() - offset) return -1;
    std::memcpy(to, ctx->frame.data() + offset, size);
    return 0;
}
DATAPATH_INLINE walk_state* platform_walk_state(platform_ctx ctx) {
    return &ctx->scratch;
}
DATAPATH_INLINE const __u16* platform_region(platform_ctx ctx) {
    return ctx->region.empty() ? nullptr : ctx->region.data();
}
DATAPATH_INLINE __u32 platform_region_cells(platform_ctx ctx) {
    return static_cast<__u32>(ctx->region.size());
}
DATAPATH_INLINE iface_direction* platform_iface(platform_ctx ctx, __u8 direction) {
    return &ctx->iface.by_direction[direction];
}
DATAPATH_INLINE class_traffic* platform_class(platform_ctx ctx, __u16 class_id, __u8 direction) {
    return &ctx->classes[class_id].by_direction[direction];
}
DATAPATH_INLINE section_state* platform_section(platform_ctx ctx) {
    return &ctx->section;
}
DATAPATH_INLINE flow_head* platform_flow(platform_ctx ctx, __u32 slot) {
    return &ctx->flows[slot].head;
}
DATAPATH_INLINE flow_counts* platform_counts(platform_ctx ctx, __u32 slot, flow_head*) {
    return &ctx->flows[slot].counts;
}
DATAPATH_INLINE flow_outer* platform_outer(platform_ctx ctx, __u32 slot) {
    return &ctx->outers[slot];
}
DATAPATH_INLINE __u32 platform_slot_mask(platform_ctx ctx) {
    return static_cast<__u32>(ctx->flows.size() - 1);
}
DATAPATH_INLINE __u64 platform_hash_seed(platform_ctx) {
    return 42;
}
DATAPATH_INLINE int platform_track_all(platform_ctx ctx) {
    return ctx->track_all;
}
DATAPATH_INLINE __u64 platform_now(platform_ctx ctx) {
    return ctx->now;
}
DATAPATH_INLINE __u64 platform_now_coarse(platform_ctx ctx) {
    return ctx->now;
}
DATAPATH_INLINE void platform_lose(platform_ctx ctx, __u32 reason, __u64 amount) {
    ctx->losses[reason] += amount;
}
DATAPATH_INLINE void platform_event(platform_ctx ctx, __u32 kind, __u32 slot, const flow_key* key,
                                    __u64 bytes_out) {
    ctx->events.push_back({kind, slot, *key, bytes_out});
}

}  // namespace egresswatch::datapath
