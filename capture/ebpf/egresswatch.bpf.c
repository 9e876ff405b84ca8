// capture/ebpf/egresswatch.bpf.c - the four tc programs: egress and ingress, for devices with and without a
// link header. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// In:    every packet that passes a hooked interface.   Out: the maps below.
// Never changes a packet's fate: always TC_ACT_UNSPEC, which tcx and clsact both read as "next".
// What a packet means stands in classifier/datapath, the same code that the user-space engines compile.
// Only UAPI headers: no kernel structure is read, so there is nothing to relocate, and the object builds on any
// machine and loads on every kernel that has its maps and helpers (5.15 and later).
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "classifier/datapath/layout.h"
#include "classifier/datapath/region.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// Set before load, constant for the verifier, which then removes what they switch off.
const volatile __u32 region_cells = sizeof(struct region_header) / 2;  // capacity of the region map's value, in cells
const volatile __u32 flow_slots = 64;                     // per CPU, a power of two
const volatile __u32 possible_cpus = 1;
const volatile __u32 hash_seed = 0;
const volatile _Bool track_all = 0;
// Tests: skb->tstamp is the clock and skb->wire_len, where longer, the packet's length (a snapped capture).
const volatile _Bool clock_from_tstamp = 0;

// Flow table. key: cpu * flow_slots + slot; value: 128 B. Entries: possible CPUs * flow_slots. Memory: 128 B an
// entry, allocated at load. Writer: the CPU that owns the section; user space frees slots and lowers
// notify_bytes_out. Reader: user space by mmap. When full: LOSS_FLOWS_FULL and its bytes; totals stay exact.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, struct flow_entry);
} flows SEC(".maps");

// Outer addresses of tunnelled flows, same index as `flows`. Memory: 32 B an entry. Writer and reader as above.
// When full: as `flows`.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, struct flow_outer);
} outers SEC(".maps");

// Totals per destination class. key: class id; value: 48 B a CPU. Entries: every class id there can be; 192 KiB
// a CPU. Writer: these programs. Reader: user space by lookup. When full: cannot be; an id is below CLASSES_MAX.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CLASSES_MAX);
    __type(key, __u32);
    __type(value, struct class_totals);
} class_totals SEC(".maps");

// Conservation per interface. key: ifindex % IFACE_SLOTS; value: 288 B a CPU; 288 KiB a CPU. Writer: these
// programs. Reader: user space by lookup. When full: two interfaces with equal slots: the loader hooks the first
// and names the second as a blind spot.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, IFACE_SLOTS);
    __type(key, __u32);
    __type(value, struct iface_totals);
} iface_totals SEC(".maps");

// Counters of what could not be recorded. key: enum loss_reason; value: 8 B a CPU. Writer: these programs.
// Reader: user space by lookup. When full: cannot be.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, LOSS_REASON_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} losses SEC(".maps");

// News that cannot wait for the next drain. value: struct flow_event, 72 B and 8 B of the ring's own. Size set
// at load, 1 MiB: 13,000 events. Writer: these programs. Reader: user space. When full: LOSS_EVENTS_FULL; the
// flow's counters are not touched, the next drain reads them.
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} events SEC(".maps");

// The region table. key: 0; value: an ARRAY of one element, the region block padded to the capacity chosen at
// load. Memory: the capacity, twice while a new table replaces the old one. Writer: user space fills a new inner
// map and swaps it in one update. Reader: these programs. When empty: LOSS_NO_REGION_TABLE, class 0 (unknown).
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

static __always_inline void count_only(struct __sk_buff* skb, __u32 direction) {
    __u32 slot = skb->ifindex % IFACE_SLOTS;
    struct iface_totals* totals = bpf_map_lookup_elem(&iface_totals, &slot);
    if (!totals || direction >= DIRECTION_COUNT) return;
    totals->by_direction[direction].seen.packets += 1;
    totals->by_direction[direction].seen.bytes += skb->len;
}

SEC("tc")
int ew_egress_l2(struct __sk_buff* skb) {
    count_only(skb, DIRECTION_OUT);
    return TC_ACT_UNSPEC;
}

SEC("tc")
int ew_ingress_l2(struct __sk_buff* skb) {
    count_only(skb, DIRECTION_IN);
    return TC_ACT_UNSPEC;
}

SEC("tc")
int ew_egress_l3(struct __sk_buff* skb) {
    count_only(skb, DIRECTION_OUT);
    return TC_ACT_UNSPEC;
}

SEC("tc")
int ew_ingress_l3(struct __sk_buff* skb) {
    count_only(skb, DIRECTION_IN);
    return TC_ACT_UNSPEC;
}
