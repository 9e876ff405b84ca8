// classifier/datapath/account.h - what every engine does with a packet: walk, classify, count, keep its flow.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// The BPF programs and the user-space engines include this same file. They differ only in the platform below,
// which the includer declares in namespace egresswatch::datapath (C++) before the first include of this
// folder's walk.h, flow.h or account.h:
//   platform_ctx                              what the functions below take; a pointer
//   int platform_read(ctx, offset, to, size)  copies frame bytes; 0, or non-zero when they are not all there
//   walk_state* platform_walk_state(ctx)      scratch for the full walk
//   const u16* platform_region(ctx)           the region block, NULL where none is loaded
//   u32 platform_region_cells(ctx)            its size; a constant to the BPF verifier
//   iface_direction* platform_iface(ctx, direction)
//   class_traffic* platform_class(ctx, class_id, direction)
//   section_state* platform_section(ctx)
//   flow_head* platform_flow(ctx, slot), flow_outer* platform_outer(ctx, slot)
//   flow_counts* platform_counts(ctx, slot, head)  of the same slot; never NULL
//   u32 platform_slot_mask(ctx), u64 platform_hash_seed(ctx), int platform_track_all(ctx)
//   u64 platform_now(ctx)                     ns, exact
//   u64 platform_now_coarse(ctx)              cheap, may lag by milliseconds
//   with PLATFORM_SAMPLES also void platform_sample(ctx, flow_key*, packet_class*, facts): payload that
//   somebody
//                                             wants to see (sample.h); facts: initiator, SAMPLE_UNTRACKED
//   void platform_lose(ctx, loss_reason, amount), void platform_event(ctx, kind, slot, flow_key*, bytes_out)
//   with PLATFORM_SENDERS also void platform_look(ctx, section_state*, event_kind, slot): says who sends the
//                                             flow, then sends the event, if any; need not return
//   and void platform_sender_unseen(ctx, slot)
//
// Counting: iface.seen once the length on the wire is known; iface.outcome and, for IP, class totals when
// classified. Every packet is in exactly one outcome. Pointers may be NULL only where the verifier must be
// told; then nothing is there to count into.
#pragma once

#include "classifier/datapath/flow.h"
#include "classifier/datapath/region.h"

DATAPATH_BEGIN

enum {
    SENDER_WINDOW_SHIFT = 32,  // ns: 4.3 s
    SENDER_PACKETS_SHIFT = 8,  // 256 packets
    TCP_PSH = 0x08             // RFC 9293 section 3.1
};

struct packet_facts {
    struct frame_facts frame;
    __u32 gso_segments;  // 0 or 1: not a super-packet, or not known
    __u32 gso_bytes;     // payload bytes of each segment; 0: not a super-packet
    __u32 extra_bytes;   // on the wire but not in the frame: a VLAN tag that the NIC inserts
    __u32 ifindex;
    __u8 direction;  // enum direction
    __u8 reserved[3];
};

// What classify_packet() found out.
struct packet_class {
    struct walk_result walk;
    __u64 packets;  // on the wire
    __u64 ip_bytes;
    __u64 frame_bytes;
    __u16 class_id;
    __u8 kind;       // enum region_kind
    __u8 outcome;    // enum outcome
    __u8 direction;  // enum direction
    __u8 reserved[3];
};

// A frame that goes over the wire as it is.
DATAPATH_INLINE void count_frame(__u32 wire_bytes, struct packet_class* c) {
    c->packets = 1;
    c->frame_bytes = wire_bytes;
    c->ip_bytes = c->walk.ip_bytes;
}

// Segments that the NIC sends for a super-packet, each with a copy of all headers up to the payload.
DATAPATH_INLINE void count_wire(const struct packet_facts* p, struct packet_class* c) {
    __u64 segments = 1;
    __u32 headers = c->walk.payload_offset;
    if (UNLIKELY(p->gso_bytes != 0 || p->gso_segments > 1)) {
        segments = p->gso_segments;
        if (segments == 0 && p->gso_bytes != 0 && p->frame.wire_bytes > headers)
            segments = (p->frame.wire_bytes - headers + p->gso_bytes - 1) / p->gso_bytes;
        if (segments == 0) segments = 1;
    }
    c->packets = segments;
    c->frame_bytes = p->frame.wire_bytes + (__u64)p->extra_bytes * segments;
    c->ip_bytes = c->walk.ip_bytes;
    if (LIKELY(segments == 1)) return;
    c->frame_bytes += (segments - 1) * headers;
    if (p->frame.wire_bytes > c->walk.ip_offset) c->ip_bytes = p->frame.wire_bytes - c->walk.ip_offset;
    if (headers > c->walk.ip_offset) c->ip_bytes += (segments - 1) * (headers - c->walk.ip_offset);
}

// The class of a tunnelled packet: of its innermost remote end, unless a carrier's remote end is of a larger
// kind. A tunnel to the outside does not become home traffic by what is written inside it, nor the other way
// round.
DATAPATH_CALL __u32 tunnel_class(platform_ctx ctx, const struct walk_result* walk, __u32 direction,
                                 __u32 inner) {
    DATAPATH_KEEP(ctx);
    if (!walk) return 0;
    const __u16* block = platform_region(ctx);
    __u32 cells = platform_region_cells(ctx);
    if (!block) return 0;
    const __u8* outer = direction == DIRECTION_OUT ? walk->outer_dst : walk->outer_src;
    __u32 best = inner;
    __u32 other = region_lookup(block, cells, outer);
    if (region_kind_of(block, cells, other) > region_kind_of(block, cells, best)) best = other;
    if (walk->levels > 1) {
        const __u8* middle = direction == DIRECTION_OUT ? walk->middle_dst : walk->middle_src;
        other = region_lookup(block, cells, middle);
        if (region_kind_of(block, cells, other) > region_kind_of(block, cells, best)) best = other;
    }
    return best;
}

// The address of one end. Which end is ours is a toss-up for a CPU that guesses branches: none is made of it,
// but for the BPF verifier, which has to see what is read.
DATAPATH_INLINE const __u8* end_of(const struct walk_result* walk, int is_destination) {
#ifdef __bpf__
    return is_destination ? walk->dst : walk->src;
#else
    return (const __u8*)walk + __builtin_offsetof(struct walk_result, src) +
           (__u32)is_destination *
               (__builtin_offsetof(struct walk_result, dst) - __builtin_offsetof(struct walk_result, src));
#endif
}

DATAPATH_INLINE void classify_remote(platform_ctx ctx, struct packet_class* c) {
    const __u16* block = platform_region(ctx);
    __u32 cells = platform_region_cells(ctx);
    c->class_id = 0;
    c->kind = KIND_UNKNOWN;
    if (UNLIKELY(!block)) {
        platform_lose(ctx, LOSS_NO_REGION_TABLE, c->packets);
        return;
    }
    __u32 id = region_lookup(block, cells, end_of(&c->walk, c->direction == DIRECTION_OUT));
    if (UNLIKELY(c->walk.levels > 0)) id = tunnel_class(ctx, &c->walk, c->direction, id);
    c->class_id = (__u16)id;
    c->kind = (__u8)region_kind_of(block, cells, id);
}

DATAPATH_INLINE __u8 outcome_of_status(__u8 status) {
    if (status == WALK_MALFORMED) return OUTCOME_MALFORMED;
    return status == WALK_TRUNCATED ? OUTCOME_TRUNCATED : OUTCOME_NOT_IP;
}

DATAPATH_INLINE void count_walk_losses(platform_ctx ctx, __u8 flags) {
    if (flags & WALK_TUNNEL_DEPTH) platform_lose(ctx, LOSS_TUNNEL_DEPTH, 1);
    if (flags & WALK_INNER_INCOMPLETE) platform_lose(ctx, LOSS_INNER_INCOMPLETE, 1);
    if (flags & WALK_HEADERS_MAX) platform_lose(ctx, LOSS_HEADERS_MAX, 1);
}

// The first half of what is done with a packet: walks its headers. Returns 0 where that cannot be done.
// `data` .. `end`: the linear part of the frame.
DATAPATH_INLINE int walk_packet(platform_ctx ctx, const __u8* data, const __u8* end,
                                const struct packet_facts* p, struct packet_class* c) {
    if (walk_fast(data, end, p->frame.start, p->frame.wire_bytes, &c->walk)) return 1;
    struct walk_state* state = platform_walk_state(ctx);
    if (!state) return 0;
    walk_full(ctx, state, &p->frame);
    c->walk = state->result;
    return 1;
}

// Finds class and outcome of a packet whose direction and length on the wire are known, and counts to the
// class.
DATAPATH_INLINE void count_class(platform_ctx ctx, struct packet_class* c) {
    if (LIKELY(c->walk.status == WALK_IP)) {
        classify_remote(ctx, c);
        c->outcome = c->kind;
        struct class_traffic* class_traffic = platform_class(ctx, c->class_id, c->direction);
        if (class_traffic) {
            class_traffic->packets += c->packets;
            class_traffic->ip_bytes += c->ip_bytes;
            class_traffic->frame_bytes += c->frame_bytes;
        }
    } else {
        c->class_id = 0;
        c->kind = KIND_UNKNOWN;
        c->outcome = outcome_of_status(c->walk.status);
    }
    if (UNLIKELY(c->walk.flags & WALK_LOSSES)) count_walk_losses(ctx, c->walk.flags);
}

// The second half, once the direction is known: finds the class, counts interface and class totals.
DATAPATH_INLINE void count_walked(platform_ctx ctx, const struct packet_facts* p, struct packet_class* c) {
    count_wire(p, c);
    struct iface_direction* iface = platform_iface(ctx, c->direction);
    if (!iface) return;
    iface->as_given.packets += 1;
    // On the way in the driver counted the tag that the kernel has taken out since; on the way out it is
    // handed the frame without it.
    iface->as_given.bytes += p->frame.wire_bytes + (c->direction == DIRECTION_IN ? p->extra_bytes : 0);
    iface->seen.packets += c->packets;
    iface->seen.bytes += c->frame_bytes;
    count_class(ctx, c);
    struct traffic* outcome =
        &iface->outcome[c->outcome < OUTCOME_COUNT ? c->outcome : (__u8)OUTCOME_MALFORMED];
    outcome->packets += c->packets;
    outcome->bytes += c->frame_bytes;
}

// Both halves. Who has to find out the direction first (user space) calls them apart.
DATAPATH_INLINE void classify_packet(platform_ctx ctx, const __u8* data, const __u8* end,
                                     const struct packet_facts* p, struct packet_class* c) {
    if (!walk_packet(ctx, data, end, p, c)) return;
    c->direction = p->direction;
    count_walked(ctx, p, c);
}

DATAPATH_INLINE void make_key(const struct packet_class* c, struct flow_key* key) {
    int out = c->direction == DIRECTION_OUT;
    copy_address(key->local_addr, end_of(&c->walk, !out));
    copy_address(key->remote_addr, end_of(&c->walk, out));
    // The local port below, the remote one above: out source and destination, in the other way round.
    __u32 ports = c->walk.sport | (__u32)c->walk.dport << 16;
    __u32 turn = out ? 0 : 16;
    ports = ports >> turn | ports << (-turn & 31);
    // The last five members with one store: the hash reads them with one load, which a CPU cannot forward
    // from several stores and waits 20 cycles for.
    store64((__u8*)key + __builtin_offsetof(struct flow_key, local_port),
            ports | (__u64)c->walk.l4_proto << 32 | (__u64)c->walk.tunnel << 40 | (__u64)c->class_id << 48);
}

DATAPATH_INLINE int is_tracked(platform_ctx ctx, const struct packet_class* c) {
    if (c->walk.status != WALK_IP) return 0;
    return c->kind >= KIND_UNKNOWN || platform_track_all(ctx);
}

DATAPATH_INLINE void flow_lost(platform_ctx ctx, struct section_state* section, const struct flow_key* key,
                               const struct packet_class* c) {
    platform_lose(ctx, LOSS_FLOWS_FULL, c->packets);
    platform_lose(ctx, LOSS_FLOWS_FULL_BYTES, c->ip_bytes);
    __u64 now = platform_now_coarse(ctx);
    if (section->full_event_ns != 0 && now - section->full_event_ns < 1000000000ull) return;
    section->full_event_ns = now;
    platform_event(ctx, EVENT_FLOWS_FULL, 0, key, 0);
}

#ifdef PLATFORM_SAMPLES
DATAPATH_INLINE int speaks_dns(const struct packet_class* c) {
    return (c->walk.sport == PORT_DNS_BIG_ENDIAN) | (c->walk.dport == PORT_DNS_BIG_ENDIAN);
}

// The first packets of a flow, and all of a name server's.
DATAPATH_INLINE void sample_flow(platform_ctx ctx, const struct flow_head* head,
                                 const struct flow_counts* counts, const struct flow_key* key,
                                 const struct packet_class* c) {
    __u64 before = counts->packets_out + counts->packets_in;
    __u64 most = c->walk.l4_proto == PROTO_TCP ? SAMPLED_PACKETS_MAX : SAMPLED_DATAGRAMS_MAX;
    if (LIKELY(before >= most) && LIKELY(!speaks_dns(c))) return;
    platform_sample(ctx, key, c, (__u32)head->initiator << SAMPLE_INITIATOR_SHIFT);
}
#endif

// News of a flow. Who sends a packet is found out only when there is news of its flow, and at sender_due().
DATAPATH_INLINE void flow_news(platform_ctx ctx, struct section_state* section, __u32 kind, __u32 slot,
                               const struct flow_packet* p, const struct flow_key* key, __u64 bytes_out) {
#ifdef PLATFORM_SENDERS
    if (p->direction == DIRECTION_OUT) platform_look(ctx, section, kind, slot);
#else
    (void)section;
    (void)p;
#endif
    platform_event(ctx, kind, slot, key, bytes_out);
}

// Whether to look again who sends: at a flow's first segment with data (the process that connects need not be
// the one that sends), every 256 packets, and every four seconds.
DATAPATH_INLINE int sender_due(const struct flow_head* head, const struct flow_counts* counts,
                               const struct flow_packet* p, __u64 now) {
    if (p->direction != DIRECTION_OUT) return 0;
    return (((now ^ counts->last_seen_ns) >> SENDER_WINDOW_SHIFT) |
            ((counts->packets_out ^ (counts->packets_out + p->packets)) >> SENDER_PACKETS_SHIFT) |
            (p->tcp_flags & TCP_PSH & ~head->tcp_flags_out)) != 0;
}

// Finds or makes the flow's entry and adds the packet. Returns its slot, SLOT_NONE where it found none.
DATAPATH_INLINE __u32 account_flow(platform_ctx ctx, const struct packet_facts* p,
                                   const struct packet_class* c, const struct flow_key* key, __u64 hash) {
    struct section_state* section = platform_section(ctx);
    if (!section) return SLOT_NONE;
    __u32 tag = flow_tag(hash);
    __u32 mask = platform_slot_mask(ctx);
    struct flow_search search = {SLOT_NONE, SLOT_NONE};
    struct flow_packet packet = {c->packets, c->ip_bytes, p->ifindex, c->direction, 0, 0, 0};
    packet.is_answer = (c->walk.flags & WALK_ANSWER) != 0;
    if (c->walk.l4_proto == PROTO_TCP) packet.tcp_flags = c->walk.tcp_flags;

    flow_search_window(ctx, key, tag, (__u32)hash, mask, &search);
    if (search.found == SLOT_NONE && (section->spilled != 0 || search.free == SLOT_NONE)) {
        __u32 free_in_first = search.free;
        flow_search_window(ctx, key, tag, (__u32)(hash >> 20), mask, &search);
        if (search.found == SLOT_NONE && free_in_first == SLOT_NONE && search.free != SLOT_NONE)
            section->spilled++;
    }
    __u32 slot = search.found != SLOT_NONE ? search.found : search.free;
    struct flow_head* head = slot != SLOT_NONE ? platform_flow(ctx, slot) : 0;
    if (UNLIKELY(!head)) {
        flow_lost(ctx, section, key, c);
        return SLOT_NONE;
    }
    struct flow_counts* counts = platform_counts(ctx, slot, head);
    if (LIKELY(search.found != SLOT_NONE)) {
        __u64 now = platform_now_coarse(ctx);
#ifdef PLATFORM_SAMPLES
        sample_flow(ctx, head, counts, key, c);
#endif
#ifdef PLATFORM_SENDERS
        int due = sender_due(head, counts, &packet, now);
#endif
        if (UNLIKELY(flow_add(ctx, head, counts, &packet, now)))
            flow_news(ctx, section, EVENT_FLOW_VOLUME, slot, &packet, key, counts->bytes_out);
#ifdef PLATFORM_SENDERS
        else if (UNLIKELY(due))
            platform_look(ctx, section, 0, slot);
#endif
        return slot;
    }
    struct flow_outer* outer = platform_outer(ctx, slot);
    if (outer) {
        int out = c->direction == DIRECTION_OUT;
        if (UNLIKELY(c->walk.levels > 0)) {
            copy_address(outer->local_addr, out ? c->walk.outer_src : c->walk.outer_dst);
            copy_address(outer->remote_addr, out ? c->walk.outer_dst : c->walk.outer_src);
        } else {
            __builtin_memset(outer, 0, sizeof *outer);
        }
    }
#ifdef PLATFORM_SENDERS
    platform_sender_unseen(ctx, slot);
#endif
    flow_create(ctx, head, counts, key, tag, &packet);
#ifdef PLATFORM_SAMPLES
    platform_sample(ctx, key, c, (__u32)head->initiator << SAMPLE_INITIATOR_SHIFT);
#endif
#ifdef PLATFORM_TAGS
    platform_tag_taken(ctx, slot, tag);
#endif
    flow_news(ctx, section, EVENT_FLOW_NEW, slot, &packet, key, counts->bytes_out);
    return slot;
}

// All of it, one packet at a time: the kernel's way. User-space engines call the parts, to prefetch between
// them.
DATAPATH_INLINE void account_packet(platform_ctx ctx, const __u8* data, const __u8* end,
                                    const struct packet_facts* p) {
    struct packet_class c;
    struct flow_key key;
    classify_packet(ctx, data, end, p, &c);
    if (!is_tracked(ctx, &c)) {
#ifdef PLATFORM_SAMPLES
        if (UNLIKELY(speaks_dns(&c)) && c.walk.status == WALK_IP) {
            make_key(&c, &key);
            platform_sample(ctx, &key, &c, SAMPLE_UNTRACKED);
        }
#endif
        return;
    }
    make_key(&c, &key);
    (void)account_flow(ctx, p, &c, &key, flow_hash(&key, platform_hash_seed(ctx)));
}

DATAPATH_END
