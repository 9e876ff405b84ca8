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
        struct flow_entry* entry = platform_flow(ctx, bucket + at);
        if (!entry) continue;
        __u32 seen = *(volatile __u32*)&entry->tag;
        if (seen == tag && flow_key_equal(&entry->key, key)) {
            search->found = bucket + at;
            return;
        }
#ifndef PLATFORM_TAGS
        if (seen == FLOW_FREE && search->free == SLOT_NONE) search->free = bucket + at;
#endif
    }
}

// Who opened the connection. A SYN tells for sure; else the side with the registered port is taken for the
// server, else the sender of the first packet for the client; of an echo reply its receiver.
DATAPATH_INLINE void flow_initiator(struct flow_entry* entry, const struct flow_packet* p, int is_new) {
    __u8 sender = p->direction == DIRECTION_OUT ? INITIATOR_LOCAL : INITIATOR_REMOTE;
    __u8 receiver = p->direction == DIRECTION_OUT ? INITIATOR_REMOTE : INITIATOR_LOCAL;
    if (p->tcp_flags & TCP_SYN) {
        entry->initiator = (p->tcp_flags & TCP_ACK) ? receiver : sender;
        entry->initiator_sure = 1;
        return;
    }
    if (!is_new) return;
    __u16 local_port = host16(entry->key.local_port);
    __u16 remote_port = host16(entry->key.remote_port);
    entry->initiator = p->is_answer ? receiver : sender;
    if (remote_port != 0 && remote_port < 1024 && local_port >= 1024) entry->initiator = INITIATOR_LOCAL;
    if (local_port != 0 && local_port < 1024 && remote_port >= 1024) entry->initiator = INITIATOR_REMOTE;
}

// Round trip of the handshake, whoever opened: from the SYN-bearing segment we sent to the first
// acknowledgement we got. A segment sent twice gives no sample (Karn, RFC 6298 section 3).
DATAPATH_INLINE void flow_handshake(platform_ctx ctx, struct flow_entry* entry, const struct flow_packet* p) {
    if (p->direction == DIRECTION_OUT) {
        if (!(p->tcp_flags & TCP_SYN)) return;
        __u64 again = entry->handshake_out_ns != 0 && entry->handshake_in_ns == 0;
        entry->handshake_out_ns = again ? 1 : platform_now(ctx);
        entry->handshake_in_ns = 0;
        return;
    }
    if (!(p->tcp_flags & TCP_ACK) || entry->handshake_in_ns != 0) return;
    __u64 now = platform_now(ctx);
    entry->handshake_in_ns = now;
    if (entry->handshake_out_ns <= 1 || now <= entry->handshake_out_ns) return;
    __u64 rtt_us = (now - entry->handshake_out_ns) / 1000;
    if (rtt_us == 0) rtt_us = 1;
    if (rtt_us > 0xffffffff) return;
    if (entry->handshake_rtt_us == 0 || rtt_us < entry->handshake_rtt_us)
        entry->handshake_rtt_us = (__u32)rtt_us;
}

// Adds a packet to its entry. Returns 1 when bytes_out has reached notify_bytes_out: the caller sends an
// event.
DATAPATH_INLINE int flow_add(platform_ctx ctx, struct flow_entry* entry, const struct flow_packet* p,
                             __u64 now) {
    if (now > entry->last_seen_ns) entry->last_seen_ns = now;
#ifndef __bpf__
    // Which way it goes is a toss-up for a CPU that guesses branches: none is made of it.
    __u64* counters = &entry->packets_out + 2 * p->direction;
    counters[0] += p->packets;
    counters[1] += p->ip_bytes;
    (&entry->tcp_flags_out)[p->direction] |= p->tcp_flags;
#else
    if (p->direction == DIRECTION_IN) {
        entry->packets_in += p->packets;
        entry->bytes_in += p->ip_bytes;
        entry->tcp_flags_in |= p->tcp_flags;
    } else {
        entry->packets_out += p->packets;
        entry->bytes_out += p->ip_bytes;
        entry->tcp_flags_out |= p->tcp_flags;
    }
#endif
    if (p->tcp_flags) {
        if (p->tcp_flags & TCP_SYN) flow_initiator(entry, p, 0);
        if ((p->tcp_flags & TCP_SYN) || entry->handshake_in_ns == 0) flow_handshake(ctx, entry, p);
    }
    if (LIKELY(entry->bytes_out < entry->notify_bytes_out)) return 0;
    entry->notify_bytes_out = entry->bytes_out * 2;
    return 1;
}

// Makes an entry of a free slot; the tag is published last, behind everything that a reader may look at.
DATAPATH_INLINE void flow_create(platform_ctx ctx, struct flow_entry* entry, const struct flow_key* key,
                                 __u32 tag, const struct flow_packet* p) {
    __u64 now = platform_now(ctx);
    // A line after the other: g++ makes a loop of both together.
    __builtin_memset(entry, 0, sizeof *entry / 2);
    __builtin_memset((__u8*)entry + sizeof *entry / 2, 0, sizeof *entry / 2);
    entry->key = *key;
    entry->first_seen_ns = now;
    entry->last_seen_ns = now;
    entry->notify_bytes_out = VOLUME_EVENT_MIN;
    entry->ifindex = p->ifindex;
    flow_initiator(entry, p, 1);
    // One more event than needed when the first packet is already large; never one less.
    (void)flow_add(ctx, entry, p, now);
#ifdef __bpf__
    __sync_fetch_and_xor(&entry->tag, tag);  // was 0; an atomic with result orders everything before it
#else
    __atomic_store_n(&entry->tag, tag, __ATOMIC_RELEASE);
#endif
}

DATAPATH_END
