// capture/ebpf/sampler.h - payload of the first packets of a flow to user space, by a ring of its own.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// BPF C only; platform_sample() of classifier/datapath/account.h. Counting comes first: what finds no room
// here, or comes too fast, is counted in `sampler` and costs nothing else.
#pragma once

#include "classifier/datapath/sample.h"

const volatile __u8 take_samples = 0;  // 0 or 1, set before load: without, the verifier removes all of this

// value: struct sample, 4,176 B with the ring's own, for a reservation has one size. 4 MiB: a thousand of
// them, more than a CPU may hand over in a quarter of a second. Writer: these programs. Reader: user space.
// When full: the sample is lost and counted (`full`); the flow may stay without a name, its counters are not
// touched.
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 22);
} samples SEC(".maps");

// key: 0; value: 48 B a CPU. Writer: these programs. Reader: user space by lookup. When full: cannot be.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sampler);
} sampler_state SEC(".maps");

struct sample {
    struct payload_sample head;
    __u8 payload[SAMPLE_BYTES];
};

// How far behind the start of the frame the innermost transport header lies; 0: not known.
static __always_inline __u32 transport_offset(struct __sk_buff* skb, __u32 ip_offset) {
    __u8 first = 0;
    if (bpf_skb_load_bytes(skb, ip_offset, &first, 1) != 0) return 0;
    return ip_offset + (first >> 4 == 4 ? (__u32)(first & 15) * 4 : (__u32)IPV6_BYTES);
}

// 0: the sequence number is where `sequence` says now.
static __always_inline int read_sequence(struct __sk_buff* skb, const struct walk_result* walk,
                                         __u32* sequence) {
    __u32 at = transport_offset(skb, walk->ip_offset);
    __u8 length = 0;
    if (at == 0 || bpf_skb_load_bytes(skb, at + 12, &length, 1) != 0) return -1;
    if (at + (__u32)(length >> 4) * 4 != walk->payload_offset) return -1;
    if (bpf_skb_load_bytes(skb, at + 4, sequence, 4) != 0) return -1;
    *sequence = host32(*sequence);
    return 0;
}

static __always_inline int within_window(struct sampler* state, __u64 now) {
    __u64 window = now >> SAMPLE_WINDOW_SHIFT;
    if (state->window != window) {
        state->window = window;
        state->in_window = 0;
    }
    return state->in_window++ < SAMPLES_A_WINDOW;
}

static __always_inline void describe_sample(struct __sk_buff* skb, struct payload_sample* to,
                                            const struct flow_key* key, const struct walk_result* walk,
                                            __u32 facts, __u32 bytes, __u32 sequence, __u64 now) {
    // In words, one after the other: by its members it would all lie in registers, and then on the stack.
    for (__u32 at = 0; at < sizeof *key; at += 8) {
        store64((__u8*)&to->key + at, load64((const __u8*)key + at));
        asm volatile("" ::: "memory");
    }
    to->at_ns = now;
    to->ifindex = skb->ifindex;
    to->ip_bytes = walk->ip_bytes;
    to->tcp_sequence = sequence;
    to->payload_bytes = bytes;
    to->direction = (__u8)(facts & 1);
    to->tracked = (facts & SAMPLE_UNTRACKED) == 0;
    to->initiator = (__u8)(facts >> SAMPLE_INITIATOR_SHIFT);
    to->tcp_flags = walk->l4_proto == PROTO_TCP ? walk->tcp_flags : (__u8)0;
    to->reserved = 0;
}

// `facts`: direction, initiator, SAMPLE_UNTRACKED. Its own proof, and its own part of the stack.
DATAPATH_CALL int hand_over_payload(struct __sk_buff* skb, const struct flow_key* key,
                                    const struct walk_result* walk, __u32 facts) {
    __u32 zero = 0;
    struct sampler* state = (struct sampler*)bpf_map_lookup_elem(&sampler_state, &zero);
    if (!key || !walk || !state) return 0;
    if (walk->l4_proto != PROTO_TCP && walk->l4_proto != PROTO_UDP) return 0;
    __u32 begin = walk->payload_offset;
    __u32 end = walk->ip_offset + walk->ip_bytes;
    if (end > skb->len) end = skb->len;
    if (begin == 0 || begin >= end) return 0;
    __u64 now = platform_now_coarse(skb);
    if (!within_window(state, now)) {
        state->limited++;
        return 0;
    }
    __u32 sequence = 0;
    if (walk->l4_proto == PROTO_TCP && read_sequence(skb, walk, &sequence) != 0) {
        state->unplaced++;
        return 0;
    }
    __u32 bytes = end - begin;
    if (bytes > SAMPLE_BYTES) bytes = SAMPLE_BYTES;
    struct sample* sample = (struct sample*)bpf_ringbuf_reserve(&samples, sizeof *sample, 0);
    if (!sample) {
        state->full++;
        return 0;
    }
    describe_sample(skb, &sample->head, key, walk, facts, bytes, sequence, now);
    // A size of 1 to SAMPLE_BYTES in a form that every verifier understands.
    if (bpf_skb_load_bytes(skb, begin, sample->payload, ((bytes - 1) & (SAMPLE_BYTES - 1)) + 1) != 0)
        sample->head.payload_bytes = 0;
    bpf_ringbuf_submit(sample, 0);
    state->sampled++;
    return 0;
}

DATAPATH_INLINE void platform_sample(platform_ctx skb, const struct flow_key* key,
                                     const struct packet_class* c, __u32 facts) {
    if (take_samples) (void)hand_over_payload(skb, key, &c->walk, facts | c->direction);
}
