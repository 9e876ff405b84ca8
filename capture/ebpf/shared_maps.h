// capture/ebpf/shared_maps.h - the maps that both BPF objects use: the tc programs (platform.h) fill them,
// the program that says who sends (sender.bpf.c) completes them. SPDX-License-Identifier: GPL-2.0-only OR
// BSD-2-Clause
//
// BPF C only. The second object is loaded over the first one's maps.
#pragma once

#include "classifier/datapath/sender.h"

const volatile __u32 flow_slots = 64;  // per CPU, a power of two; set before load

// Flow table. key: cpu * flow_slots + slot; value: 128 B. Entries: possible CPUs * flow_slots. Memory: 128 B
// an entry, allocated at load. Writer: the CPU that owns the section; user space frees slots and lowers
// notify_bytes_out. Reader: user space by mmap. When full: LOSS_FLOWS_FULL and its bytes; totals stay exact.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, struct flow_entry);
} flows SEC(".maps");

// Who sends: same index as `flows`. Memory: 24 B an entry. Writer: the CPU that owns the section. Reader:
// user space by mmap. When full: as `flows`.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, struct flow_sender);
} senders SEC(".maps");

// Counters of what could not be recorded. key: enum loss_reason; value: 8 B a CPU. Writer: these programs.
// Reader: user space by lookup. When full: cannot be.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, LOSS_REASON_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} losses SEC(".maps");

// News that cannot wait for the next drain. value: struct flow_event, 72 B and 8 B of the ring's own. Size
// set at load, 1 MiB: 13,000 events. Writer: these programs. Reader: user space. When full: LOSS_EVENTS_FULL;
// the flow's counters are not touched, the next drain reads them.
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} events SEC(".maps");

// Flow table state per CPU. key: 0; value: 32 B a CPU. Writer and reader: these programs. Shared and pinned
// with `flows`, whose second windows it tells of. When full: cannot be.
struct section_value {
    __u64 words[4];  // struct section_state, which account.h declares later
};
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct section_value);
} sections SEC(".maps");

DATAPATH_INLINE void send_event(struct __sk_buff* skb, __u32 kind, __u32 slot, const struct flow_key* key,
                                __u64 bytes_out, __u64 now) {
    struct flow_event* event = (struct flow_event*)bpf_ringbuf_reserve(&events, sizeof *event, 0);
    if (!event) {
        __u32 reason = LOSS_EVENTS_FULL;
        __u64* counter = (__u64*)bpf_map_lookup_elem(&losses, &reason);
        if (counter) *counter += 1;
        return;
    }
    event->kind = kind;
    event->cpu = bpf_get_smp_processor_id();
    event->slot = slot;
    event->ifindex = skb->ifindex;
    event->at_ns = now;
    event->bytes_out = bytes_out;
    event->key = *key;
    // Wakes the reader only where it had read everything (include/uapi/linux/bpf.h, adaptive notification).
    bpf_ringbuf_submit(event, 0);
}
