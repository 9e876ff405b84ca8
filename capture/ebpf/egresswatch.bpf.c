// capture/ebpf/egresswatch.bpf.c - the four tc programs: egress and ingress, for devices with and without a
// link header. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// In:    every packet that passes a hooked interface.   Out: the maps of platform.h.
// Never changes a packet's fate: always TC_ACT_UNSPEC, which tcx and clsact both read as "next".
// What a packet means stands in classifier/datapath, the same code that the user-space engines compile.
// Only UAPI headers: no kernel structure is read, so there is nothing to relocate, and the object builds on
// any machine and loads on every kernel that has its maps and helpers (5.15 and later).
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "classifier/datapath/layout.h"
#include "classifier/datapath/region.h"

typedef struct __sk_buff* platform_ctx;
#include "capture/ebpf/platform.h"
#define PLATFORM_SAMPLES
#include "classifier/datapath/sample.h"
struct packet_class;
DATAPATH_INLINE void platform_sample(platform_ctx skb, const struct flow_key* key,
                                     const struct packet_class* c, __u32 facts);
#include "classifier/datapath/account.h"

#include "capture/ebpf/sampler.h"

DATAPATH_INLINE void platform_look(platform_ctx skb, struct section_state* section, __u32 event, __u32 slot) {
    if (!look_for_senders) return;
    section->wish_slot = slot;
    section->wish_event = event;
    bpf_tail_call(skb, &sender_prog, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// `start`: what the device's frames begin with. Devices without a link header hand over IP, or (PPP) what
// skb->protocol says.
static __always_inline int count_packet(struct __sk_buff* skb, __u8 start, __u8 direction) {
    struct packet_facts facts = {};
    facts.frame.wire_bytes = frame_bytes(skb);
    facts.frame.captured_bytes = skb->len;
    facts.frame.start = start;
    if (start == START_IP) {
        facts.frame.start_ether_type = host16((__u16)skb->protocol);
        if (facts.frame.start_ether_type != ETHER_IPV4 && facts.frame.start_ether_type != ETHER_IPV6)
            facts.frame.start = START_ETHER_TYPE;
    }
    facts.gso_segments = skb->gso_segs;
    facts.gso_bytes = skb->gso_size;
    // A VLAN tag in the skb's metadata stands on the wire, but not in the frame.
    facts.extra_bytes = skb->vlan_present ? 4 : 0;
    facts.ifindex = skb->ifindex;
    facts.direction = direction;
    account_packet(skb, (const __u8*)(long)skb->data, (const __u8*)(long)skb->data_end, &facts);
    return TC_ACT_UNSPEC;
}

SEC("tc")
int ew_egress_l2(struct __sk_buff* skb) {
    return count_packet(skb, START_ETHERNET, DIRECTION_OUT);
}

SEC("tc")
int ew_ingress_l2(struct __sk_buff* skb) {
    return count_packet(skb, START_ETHERNET, DIRECTION_IN);
}

SEC("tc")
int ew_egress_l3(struct __sk_buff* skb) {
    return count_packet(skb, START_IP, DIRECTION_OUT);
}

SEC("tc")
int ew_ingress_l3(struct __sk_buff* skb) {
    return count_packet(skb, START_IP, DIRECTION_IN);
}

_Static_assert(sizeof(struct section_value) == sizeof(struct section_state), "sections: value");
_Static_assert(sizeof(struct walk_value) >= sizeof(struct walk_state), "walk_scratch: value");
