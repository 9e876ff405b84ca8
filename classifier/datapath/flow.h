// classifier/datapath/flow.h - the flow table: open addressing in a flat array, one section per CPU (or
// core). SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// A section has a power of two of slots, FLOW_PROBES or more, and one writer. A flow lies in the bucket of
// FLOW_PROBES slots around its first hash position, or, when all of these were taken, in the bucket around
// its second; so slots can be freed in any order without tombstones. A bucket is searched from the hash
// position on, round to its start. A flow that finds no slot still counts to its class; the caller counts the
// loss. The second window is looked at only once something lies in it (section_state.spilled).
//
// The includer defines before (see account.h): platform_ctx, platform_flow(), platform_now(). With
// PLATFORM_TAGS also platform_tags(ctx, slot), a compact copy of the tags of the bucket that begins at that
// slot, and platform_tag_taken(ctx, slot, tag): so that a search touches the memory of no entry but the right
// one. Who frees a slot clears the copy after the entry's own tag, which alone decides.
#pragma once

#include "classifier/datapath/section.h"
#include "classifier/datapath/walk.h"

DATAPATH_BEGIN

enum { SLOT_NONE = 0xffffffff };

// What one packet adds to its flow.
struct flow_packet {
    __u64 packets;  // segments on the wire
    __u64 ip_bytes;
    __u32 ifindex;
    __u8 direction;  // enum direction
    __u8 tcp_flags;  // 0 where the packet is not TCP
    __u8 is_answer;  // 1: to a question of its receiver (WALK_ANSWER)
    __u8 reserved;
};

// Two lanes of multiply and fold, joined by the last word. After each product its upper half, where the
// difference of two similar words gathers, is folded into the lower one: without that, clients of consecutive
// addresses crowd into a few slots. The seed is random per table, so that nobody outside can fill a bucket
// with flows of their choice; but pairs of addresses are known whose flows have the same hash under any seed
// (the top bit of a word passes through a product), so that equal hashes prove nothing: keys are compared.
// Without the class, so that a CPU can look for the flow's slot while it still waits for the region table's
// answer.
DATAPATH_INLINE __u64 flow_hash(const struct flow_key* key, __u64 seed) {
    const __u8* bytes = (const __u8*)key;
    __u64 local = (load64(bytes) ^ seed) * 0x9e3779b97f4a7c15ull;
    __u64 remote = (load64(bytes + 16) ^ ~seed) * 0x94d049bb133111ebull;
    local ^= local >> 32;
    remote ^= remote >> 32;
    local = (local ^ load64(bytes + 8)) * 0xbf58476d1ce4e5b9ull;
    remote = (remote ^ load64(bytes + 24)) * 0xd6e8feb86659fd93ull;
    local ^= local >> 32;
    remote ^= remote >> 32;
    __u64 h = (local * 0xe7037ed1a0b428dbull ^ remote ^ (load64(bytes + 32) & 0x0000ffffffffffffull)) *
              0xa0761d6478bd642full;
    h ^= h >> 32;
    h *= 0xe7037ed1a0b428dbull;
    return h ^ (h >> 32);
}

DATAPATH_INLINE __u32 flow_tag(__u64 hash) {
    return ((__u32)(hash >> 32) & ~3u) | FLOW_LIVE;
}

DATAPATH_INLINE int flow_key_equal(const struct flow_key* a, const struct flow_key* b) {
    const __u8* x = (const __u8*)a;
    const __u8* y = (const __u8*)b;
    return ((load64(x) ^ load64(y)) | (load64(x + 8) ^ load64(y + 8)) | (load64(x + 16) ^ load64(y + 16)) |
            (load64(x + 24) ^ load64(y + 24)) | (load64(x + 32) ^ load64(y + 32))) == 0;
}

struct flow_search {
    __u32 found;  // slot, or SLOT_NONE
    __u32 free;   // first free slot seen, or SLOT_NONE
};

// Looks at the bucket around slot `start`. Slots that user space is taking out (FLOW_CLOSING) are neither.
DATAPATH_INLINE void flow_search_window(platform_ctx ctx, const struct flow_key* key, __u32 tag, __u32 start,
                                        __u32 slot_mask, struct flow_search* search) {
    __u32 bucket = start & slot_mask & ~(__u32)(FLOW_PROBES - 1);
#ifdef PLATFORM_TAGS
    const volatile __u32* tags = platform_tags(ctx, bucket);
    if (!tags) return;
#endif
    for (__u32 i = 0; i < FLOW_PROBES; i++) {
        __u32 at = (start + i) & (FLOW_PROBES - 1);
#ifdef PLATFORM_TAGS
        __u32 copy = tags[at];
        if (copy == FLOW_FREE && search->free == SLOT_NONE) search->free = bucket + at;
        if (copy != tag) continue;
#endif
        struct flow_head* head = platform_flow(ctx, bucket + at);
        if (!head) continue;
        __u32 seen = *(volatile __u32*)&head->tag;
        if (seen == tag && flow_key_equal(&head->key, key)) {
            search->found = bucket + at;
            return;
        }
#ifndef PLATFORM_TAGS
        if (seen == FLOW_FREE && search->free == SLOT_NONE) search->free = bucket + at;
#endif
    }
}

// Who opened the connection: the sender of this packet, or, where it is `turned` (0 or 1), the receiver.
DATAPATH_INLINE __u8 flow_opener(const struct flow_packet* p, int turned) {
    return (__u8)(INITIATOR_LOCAL + (p->direction ^ turned));
}
LAYOUT_ASSERT(INITIATOR_REMOTE == INITIATOR_LOCAL + 1 && DIRECTION_OUT == 0 && DIRECTION_IN == 1,
              "the sender as a sum");

// A SYN tells for sure.
DATAPATH_INLINE void flow_opened_by_syn(struct flow_head* head, const struct flow_packet* p) {
    head->initiator = flow_opener(p, (p->tcp_flags & TCP_ACK) != 0);
    head->initiator_sure = 1;
}

// Of a new flow: without a SYN the side with the registered port is taken for the server, else the sender of
// the first packet for the client; of an echo reply its receiver. What a CPU would have to guess is computed.
DATAPATH_INLINE void flow_opened(struct flow_head* head, const struct flow_packet* p) {
    __u16 local_port = host16(head->key.local_port);
    __u16 remote_port = host16(head->key.remote_port);
    int is_sure = (p->tcp_flags & TCP_SYN) != 0;
    int serves_remote = ((__u16)(remote_port - 1) < 1023) & (local_port >= 1024) & !is_sure;
    int serves_local = ((__u16)(local_port - 1) < 1023) & (remote_port >= 1024) & !is_sure;
    __u8 opener = flow_opener(p, is_sure ? (p->tcp_flags & TCP_ACK) != 0 : p->is_answer);
    opener = serves_remote ? (__u8)INITIATOR_LOCAL : opener;
    head->initiator = serves_local ? (__u8)INITIATOR_REMOTE : opener;
    head->initiator_sure = (__u8)is_sure;
}

// Round trip of the handshake, whoever opened: from the SYN-bearing segment we sent to the first
// acknowledgement we got. A segment sent twice gives no sample (Karn, RFC 6298 section 3).
DATAPATH_INLINE void flow_handshake(platform_ctx ctx, struct flow_head* head, struct flow_counts* counts,
                                    const struct flow_packet* p) {
    if (p->direction == DIRECTION_OUT) {
        if (!(p->tcp_flags & TCP_SYN)) return;
        __u64 again = counts->handshake_out_ns != 0 && counts->handshake_in_ns == 0;
        counts->handshake_out_ns = again ? 1 : platform_now(ctx);
        counts->handshake_in_ns = 0;
        return;
    }
    if (!(p->tcp_flags & TCP_ACK) || counts->handshake_in_ns != 0) return;
    __u64 now = platform_now(ctx);
    counts->handshake_in_ns = now;
    if (counts->handshake_out_ns <= 1 || now <= counts->handshake_out_ns) return;
    __u64 rtt_us = (now - counts->handshake_out_ns) / 1000;
    if (rtt_us == 0) rtt_us = 1;
    if (rtt_us > 0xffffffff) return;
    if (head->handshake_rtt_us == 0 || rtt_us < head->handshake_rtt_us)
        head->handshake_rtt_us = (__u32)rtt_us;
}

// Adds a packet to its entry. Returns 1 when bytes_out has reached notify_bytes_out: the caller sends an
// event.
DATAPATH_INLINE int flow_add(platform_ctx ctx, struct flow_head* head, struct flow_counts* counts,
                             const struct flow_packet* p, __u64 now) {
    if (now > counts->last_seen_ns) counts->last_seen_ns = now;
#ifndef __bpf__
    // Which way it goes is a toss-up for a CPU that guesses branches: none is made of it.
    __u64* counters = &counts->packets_out + 2 * p->direction;
    counters[0] += p->packets;
    counters[1] += p->ip_bytes;
    (&head->tcp_flags_out)[p->direction] |= p->tcp_flags;
#else
    if (p->direction == DIRECTION_IN) {
        counts->packets_in += p->packets;
        counts->bytes_in += p->ip_bytes;
        head->tcp_flags_in |= p->tcp_flags;
    } else {
        counts->packets_out += p->packets;
        counts->bytes_out += p->ip_bytes;
        head->tcp_flags_out |= p->tcp_flags;
    }
#endif
    if (p->tcp_flags) {
        if (p->tcp_flags & TCP_SYN) flow_opened_by_syn(head, p);
        if ((p->tcp_flags & TCP_SYN) || counts->handshake_in_ns == 0) flow_handshake(ctx, head, counts, p);
    }
    if (LIKELY(counts->bytes_out < counts->notify_bytes_out)) return 0;
    counts->notify_bytes_out = counts->bytes_out * 2;
    return 1;
}

// The head of a flow, but for its tag.
DATAPATH_INLINE void flow_open(struct flow_head* head, const struct flow_key* key,
                               const struct flow_packet* p, __u64 now) {
    __u8 leaves = (__u8)(p->direction - 1);  // all bits, or none
    head->key = *key;
    head->first_seen_ns = now;
    head->handshake_rtt_us = 0;
    head->ifindex = p->ifindex;
    head->tcp_flags_out = p->tcp_flags & leaves;
    head->tcp_flags_in = p->tcp_flags ^ head->tcp_flags_out;
    flow_opened(head, p);
}

// The counts of a flow that has its head: of its first packet, at that one's time.
DATAPATH_INLINE void flow_begin(platform_ctx ctx, struct flow_head* head, struct flow_counts* counts,
                                const struct flow_packet* p) {
    __builtin_memset(counts, 0, sizeof *counts);
    counts->notify_bytes_out = VOLUME_EVENT_MIN;
    // One more event than needed when the first packet is already large; never one less.
    (void)flow_add(ctx, head, counts, p, head->first_seen_ns);
}

// Makes an entry of a free slot; the tag is published last, behind everything that a reader may look at.
DATAPATH_INLINE void flow_create(platform_ctx ctx, struct flow_head* head, struct flow_counts* counts,
                                 const struct flow_key* key, __u32 tag, const struct flow_packet* p) {
    flow_open(head, key, p, platform_now(ctx));
    flow_begin(ctx, head, counts, p);
#ifdef __bpf__
    __sync_fetch_and_xor(&head->tag, tag);  // was 0; an atomic with result orders everything before it
#else
    __atomic_store_n(&head->tag, tag, __ATOMIC_RELEASE);
#endif
}

DATAPATH_END
