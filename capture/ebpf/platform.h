// capture/ebpf/platform.h - the kernel's side of the data path: the maps, and the platform functions that
// classifier/datapath/account.h asks for. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// BPF C only. tc programs run with bottom halves off and do not nest on a CPU: what is per CPU has one
// writer.
#pragma once

#include "capture/ebpf/shared_maps.h"

// Set before load, constant for the verifier, which then removes what they switch off.
const volatile __u32 region_cells =
    sizeof(struct region_header) / 2;  // capacity of the region map's value, in cells
const volatile __u32 possible_cpus = 1;
const volatile __u64 hash_seed = 0;
const volatile __u8 track_all = 0;  // 0 or 1; not _Bool, which the skeleton would hand to C++ compilers
const volatile __u8 look_for_senders = 0;  // 0 or 1: a program in sender_prog says who sends
// Tests: skb->tstamp is the clock and skb->wire_len, where longer, the packet's length (a snapped capture).
const volatile __u8 clock_from_tstamp = 0;

// The tags of `flows`, packed: a search touches one line of 64 B and then the right entry, where the entries
// alone would cost a cache and a TLB miss a probe. key: (cpu * flow_slots + slot) / FLOW_PROBES; value: 32 B.
// Memory: 4 B a slot. Writer: the CPU that owns the section; user space clears what it frees. When full: as
// `flows`.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, struct flow_tags);
} tags SEC(".maps");

// Outer addresses of tunnelled flows, same index as `flows`. Memory: 32 B an entry. Writer and reader as
// above. When full: as `flows`.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, struct flow_outer);
} outers SEC(".maps");

// The program that finds out who sends (sender.bpf.c). key: 0. An own program and a tail call: it needs a
// stack of its own, which the older verifiers do not leave here, and kernel types, without which counting has
// to work. Writer: user space. Pinned, since an array of programs empties itself with its last user. When
// empty: the call falls through, and senders stay unseen.
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(__u32));
} sender_prog SEC(".maps");

// Totals per destination class. key: class id; value: 48 B a CPU. Entries: every class id there can be; 192
// KiB a CPU. Writer: these programs. Reader: user space by lookup. When full: cannot be; an id is below
// CLASSES_MAX.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CLASSES_MAX);
    __type(key, __u32);
    __type(value, struct class_totals);
} class_totals SEC(".maps");

// Conservation per interface. key: ifindex % IFACE_SLOTS; value: 288 B a CPU; 288 KiB a CPU. Writer: these
// programs. Reader: user space by lookup. When full: two interfaces with equal slots: the loader hooks the
// first and names the second as a blind spot.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, IFACE_SLOTS);
    __type(key, __u32);
    __type(value, struct iface_totals);
} iface_totals SEC(".maps");

// The region table. key: 0; value: an ARRAY of one element, the region block padded to the capacity chosen at
// load. Memory: the capacity, twice while a new table replaces the old one. Writer: user space fills a new
// inner map and swaps it in one update. Reader: these programs. When empty: LOSS_NO_REGION_TABLE, class 0
// (unknown).
struct region_inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(struct region_header));
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct region_inner);
} region SEC(".maps");

// Scratch of the full header walk. key: 0; value: 192 B a CPU. Writer and reader: these programs.
struct walk_value {
    __u64 words[24];  // struct walk_state
};
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct walk_value);
} walk_scratch SEC(".maps");

struct walk_state;
struct walk_result;
struct section_state;

DATAPATH_INLINE __u32 frame_bytes(struct __sk_buff* skb) {
    if (clock_from_tstamp && skb->wire_len > skb->len) return skb->wire_len;
    return skb->len;
}

DATAPATH_INLINE int platform_read(platform_ctx skb, __u32 offset, void* to, __u32 size) {
    return (int)bpf_skb_load_bytes(skb, offset, to, size);
}

DATAPATH_INLINE struct walk_state* platform_walk_state(platform_ctx skb) {
    (void)skb;
    __u32 zero = 0;
    return (struct walk_state*)bpf_map_lookup_elem(&walk_scratch, &zero);
}

DATAPATH_INLINE const __u16* platform_region(platform_ctx skb) {
    (void)skb;
    __u32 zero = 0;
    void* inner = bpf_map_lookup_elem(&region, &zero);
    return inner ? (const __u16*)bpf_map_lookup_elem(inner, &zero) : 0;
}

DATAPATH_INLINE __u32 platform_region_cells(platform_ctx skb) {
    (void)skb;
    return region_cells;
}

DATAPATH_INLINE struct iface_direction* platform_iface(platform_ctx skb, __u8 direction) {
    __u32 slot = skb->ifindex % IFACE_SLOTS;
    struct iface_totals* totals = (struct iface_totals*)bpf_map_lookup_elem(&iface_totals, &slot);
    return totals ? &totals->by_direction[direction & 1] : 0;
}

DATAPATH_INLINE struct class_traffic* platform_class(platform_ctx skb, __u16 class_id, __u8 direction) {
    (void)skb;
    __u32 key = class_id;
    struct class_totals* totals = (struct class_totals*)bpf_map_lookup_elem(&class_totals, &key);
    return totals ? &totals->by_direction[direction & 1] : 0;
}

DATAPATH_INLINE struct section_state* platform_section(platform_ctx skb) {
    (void)skb;
    __u32 zero = 0;
    return (struct section_state*)bpf_map_lookup_elem(&sections, &zero);
}

DATAPATH_INLINE struct flow_head* platform_flow(platform_ctx skb, __u32 slot) {
    (void)skb;
    __u32 key = bpf_get_smp_processor_id() * flow_slots + slot;
    struct flow_entry* entry = (struct flow_entry*)bpf_map_lookup_elem(&flows, &key);
    return entry ? &entry->head : 0;
}

DATAPATH_INLINE struct flow_counts* platform_counts(platform_ctx skb, __u32 slot, struct flow_head* head) {
    (void)skb;
    (void)slot;
    return &((struct flow_entry*)head)->counts;
}

#define PLATFORM_TAGS
DATAPATH_INLINE const volatile __u32* platform_tags(platform_ctx skb, __u32 slot) {
    (void)skb;
    __u32 key = (bpf_get_smp_processor_id() * flow_slots + slot) / FLOW_PROBES;
    struct flow_tags* bucket = (struct flow_tags*)bpf_map_lookup_elem(&tags, &key);
    return bucket ? bucket->tag : 0;
}

DATAPATH_INLINE void platform_tag_taken(platform_ctx skb, __u32 slot, __u32 tag) {
    (void)skb;
    __u32 key = (bpf_get_smp_processor_id() * flow_slots + slot) / FLOW_PROBES;
    struct flow_tags* bucket = (struct flow_tags*)bpf_map_lookup_elem(&tags, &key);
    if (bucket) bucket->tag[slot % FLOW_PROBES] = tag;
}

DATAPATH_INLINE struct flow_outer* platform_outer(platform_ctx skb, __u32 slot) {
    (void)skb;
    __u32 key = bpf_get_smp_processor_id() * flow_slots + slot;
    return (struct flow_outer*)bpf_map_lookup_elem(&outers, &key);
}

DATAPATH_INLINE __u32 platform_slot_mask(platform_ctx skb) {
    (void)skb;
    return flow_slots - 1;
}

DATAPATH_INLINE __u64 platform_hash_seed(platform_ctx skb) {
    (void)skb;
    return hash_seed;
}

DATAPATH_INLINE int platform_track_all(platform_ctx skb) {
    (void)skb;
    return track_all;
}

DATAPATH_INLINE __u64 platform_now(platform_ctx skb) {
    return clock_from_tstamp ? skb->tstamp : bpf_ktime_get_ns();
}

DATAPATH_INLINE __u64 platform_now_coarse(platform_ctx skb) {
    return clock_from_tstamp ? skb->tstamp : bpf_ktime_get_coarse_ns();
}

DATAPATH_INLINE void platform_lose(platform_ctx skb, __u32 reason, __u64 amount) {
    (void)skb;
    __u64* counter = (__u64*)bpf_map_lookup_elem(&losses, &reason);
    if (counter) *counter += amount;
}

// Only as the last thing that is done for a packet: where the program is there, this does not return.
#define PLATFORM_SENDERS
DATAPATH_INLINE void platform_look(platform_ctx skb, struct section_state* section, __u32 event, __u32 slot);

DATAPATH_INLINE void platform_sender_unseen(platform_ctx skb, __u32 slot) {
    (void)skb;
    if (!look_for_senders) return;
    __u32 key = bpf_get_smp_processor_id() * flow_slots + slot;
    struct flow_sender* sender = (struct flow_sender*)bpf_map_lookup_elem(&senders, &key);
    if (sender) __builtin_memset(sender, 0, sizeof *sender);
}

DATAPATH_INLINE void platform_event(platform_ctx skb, __u32 kind, __u32 slot, const struct flow_key* key,
                                    __u64 bytes_out) {
    send_event(skb, kind, slot, key, bytes_out, platform_now_coarse(skb));
}
