// classifier/datapath/layout.h - every record that kernel and user space share, byte for byte.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Rules: fixed-width members, named padding, asserted sizes. A change of any struct or of the meaning of a
// member raises LAYOUT_VERSION: a daemon that finds pinned maps of another version refuses to adopt them.
// Byte order: addresses and ports as on the wire; everything else in host order.
// Clock: *_ns members are CLOCK_MONOTONIC in the kernel engine, packet time (since the epoch) in user space.
#pragma once

#include "classifier/datapath/types.h"

DATAPATH_BEGIN

enum {
    LAYOUT_VERSION = 2,
    CLASSES_MAX = 4096,  // destination classes; the first value of a region cell that is a block, not a class
    IFACE_SLOTS = 1024,  // interface counters are indexed by ifindex modulo this; 288 B per slot and CPU
    FLOW_PROBES = 8,     // slots of a bucket; a flow lies in one of two. A power of two
    VOLUME_EVENT_MIN =
        65536  // a flow's first volume event comes when it has sent this many bytes; then at doublings
};

// The region that an address lies in. Ordered: of outer and inner destination the larger kind counts.
enum region_kind { KIND_LOCAL = 0, KIND_HOME = 1, KIND_UNKNOWN = 2, KIND_OUTSIDE = 3, KIND_COUNT = 4 };

// Why an address is local. LOCAL_NONE for every other kind.
enum local_kind {
    LOCAL_NONE = 0,
    LOCAL_HOST = 1,        // an address of this host, loopback included
    LOCAL_LINK = 2,        // 169.254.0.0/16, fe80::/10
    LOCAL_PRIVATE = 3,     // RFC 1918, 100.64.0.0/10, fc00::/7
    LOCAL_MULTICAST = 4,   // 224.0.0.0/4, ff00::/8, limited broadcast
    LOCAL_UNSPECIFIED = 5  // 0.0.0.0/8, ::
};

// Every packet ends in exactly one outcome.
enum outcome {
    OUTCOME_LOCAL = KIND_LOCAL,
    OUTCOME_HOME = KIND_HOME,
    OUTCOME_UNKNOWN = KIND_UNKNOWN,
    OUTCOME_OUTSIDE = KIND_OUTSIDE,
    OUTCOME_NOT_IP = 4,     // ARP, LLDP, ...: no IP layer, nothing wrong
    OUTCOME_MALFORMED = 5,  // an IP layer was announced and its header is nonsense
    OUTCOME_TRUNCATED = 6,  // the bytes captured end before the first IP header does
    OUTCOME_COUNT = 7
};

enum direction { DIRECTION_OUT = 0, DIRECTION_IN = 1, DIRECTION_COUNT = 2 };

enum initiator { INITIATOR_UNKNOWN = 0, INITIATOR_LOCAL = 1, INITIATOR_REMOTE = 2 };

// What carried the innermost IP header. The outermost tunnel of a packet names it.
enum tunnel_kind {
    TUNNEL_NONE = 0,
    TUNNEL_IPIP = 1,       // IPv4 in IPv4 (RFC 2003), IPv4 in IPv6 and IPv6 in IPv6 (RFC 2473)
    TUNNEL_SIXINFOUR = 2,  // RFC 4213, protocol 41 in IPv4
    TUNNEL_GRE = 3,        // RFC 2784, RFC 2890, RFC 2637 (version 1, PPP), RFC 8086 (in UDP, port 4754)
    TUNNEL_ERSPAN = 4,     // draft-foschiano-erspan-03: types I, II, III
    TUNNEL_VXLAN = 5,      // RFC 7348
    TUNNEL_GENEVE = 6,     // RFC 8926
    TUNNEL_GTPU = 7,       // 3GPP TS 29.281
    TUNNEL_TEREDO = 8,     // RFC 4380
    TUNNEL_COUNT = 9
};

struct flow_key {
    __u8 local_addr[16];  // IPv4 as ::ffff:a.b.c.d
    __u8 remote_addr[16];
    __u16 local_port;   // big-endian; 0 where the protocol has no ports and in non-first fragments
    __u16 remote_port;  // big-endian
    __u8 l4_proto;      // IANA protocol number: 6 = TCP
    __u8 tunnel;        // enum tunnel_kind; the same five-tuple inside and outside a tunnel is two flows
    __u16 class_id;     // destination class: one flow entry never mixes two classes
};
LAYOUT_ASSERT(sizeof(struct flow_key) == 40, "flow_key: a hole or a new member");

// One slot of the flow table: two cache lines. Written by one CPU (or core) only, which owns the section the
// slot lies in; read at any time by user space. `tag` is written last when a flow is made. Life: FREE -> live
// (hash | FLOW_LIVE) -> CLOSING (user space took it out; the owner no longer matches it)
//       -> FREE, after a grace period in which every program run that saw it live has ended.
enum { FLOW_FREE = 0, FLOW_CLOSING = 1, FLOW_LIVE = 2 /* bit; the other 30 are hash bits */ };

// What a flow is, and what its first packet says of it: later ones seldom change it.
struct flow_head {
    __u32 tag;
    __u8 initiator;      // enum initiator, as far as this CPU saw
    __u8 tcp_flags_out;  // all flags seen, OR-ed (RFC 9293 section 3.1)
    __u8 tcp_flags_in;
    __u8 initiator_sure;  // 1: from a SYN or SYN-ACK; 0: from ports or from who was seen first
    struct flow_key key;
    __u64 first_seen_ns;
    __u32 handshake_rtt_us;  // smallest handshake round trip of this entry; 0: none
    __u32 ifindex;           // interface of the first packet
};
LAYOUT_ASSERT(sizeof(struct flow_head) == 64, "flow_head: a cache line");

// What every packet adds to.
struct flow_counts {
    __u64 packets_out;  // on the wire: a super-packet counts as its segments
    __u64 bytes_out;    // IP bytes of the layer in the key: IPv4 total length, IPv6 payload length + 40
    __u64 packets_in;
    __u64 bytes_in;
    __u64 last_seen_ns;
    __u64 notify_bytes_out;  // an event is sent when bytes_out reaches this; user space may lower it
    __u64 handshake_out_ns;  // first SYN-bearing segment we sent; 0: none, 1: sent twice (RFC 6298 3: no
                             // sample)
    __u64 handshake_in_ns;   // first ACK-bearing segment we received
};
LAYOUT_ASSERT(sizeof(struct flow_counts) == 64, "flow_counts: a cache line");

struct flow_entry {
    struct flow_head head;
    struct flow_counts counts;
};
LAYOUT_ASSERT(sizeof(struct flow_entry) == 128, "flow_entry: two cache lines");

// The tags of one bucket of the table once more, closely packed: what a search looks at first. Written by the
// owner when it takes a slot, cleared by user space after it has freed one.
struct flow_tags {
    __u32 tag[FLOW_PROBES];
};
LAYOUT_ASSERT(sizeof(struct flow_tags) == 32, "flow_tags: half a cache line");

// Outer addresses of a tunnelled flow, same index as its flow_entry. Zero where there is no tunnel.
struct flow_outer {
    __u8 local_addr[16];
    __u8 remote_addr[16];
};
LAYOUT_ASSERT(sizeof(struct flow_outer) == 32, "flow_outer");

struct traffic {
    __u64 packets;
    __u64 bytes;
};

// Per class and CPU. ip_bytes as in flow_entry; frame_bytes with every header, as the wire carries them.
struct class_traffic {
    __u64 packets;
    __u64 ip_bytes;
    __u64 frame_bytes;
};
struct class_totals {
    struct class_traffic by_direction[DIRECTION_COUNT];
};
LAYOUT_ASSERT(sizeof(struct class_totals) == 48, "class_totals");

// Per interface and CPU, bytes are frame bytes. Conservation: seen == sum over outcome, per direction,
// exactly; `seen` is counted on entry, `outcome` on each way out. `as_given` counts what the kernel handed
// over, before segmentation: one packet and skb->len for a super-packet (and, inbound, the VLAN tag taken
// out). A driver that segments by itself, or a virtual device, counts so: the residual against its counters
// compares like with like. In user space, and for a packet that needs no segmentation, equal to `seen`.
struct iface_direction {
    struct traffic seen;
    struct traffic outcome[OUTCOME_COUNT];
    struct traffic as_given;
};
struct iface_totals {
    struct iface_direction by_direction[DIRECTION_COUNT];
};
LAYOUT_ASSERT(sizeof(struct iface_totals) == 288, "iface_totals");

// Per CPU: what could not be recorded as it should. Packets still count to class and interface totals.
enum loss_reason {
    LOSS_FLOWS_FULL = 0,    // packets of flows that found no slot
    LOSS_FLOWS_FULL_BYTES,  // their IP bytes
    LOSS_EVENTS_FULL,       // events that found no room in the ring buffer
    LOSS_NO_REGION_TABLE,   // packets that were classified unknown because no region table was loaded
    LOSS_TUNNEL_DEPTH,  // packets with more tunnel levels than are walked; counted at the last level walked
    LOSS_INNER_INCOMPLETE,  // tunnelled packets whose inner header is cut or nonsense; counted at the outer
                            // level
    LOSS_HEADERS_MAX,  // packets with more headers than WALK_STEPS_MAX; counted as malformed or at the last
                       // IP
    LOSS_DIRECTION_GUESSED,  // packets between two ends of which neither is nearer to us: in or out is a
                             // guess
    LOSS_REASON_COUNT = 8
};

enum event_kind {
    EVENT_FLOW_NEW = 1,     // a flow got a slot
    EVENT_FLOW_VOLUME = 2,  // bytes_out reached notify_bytes_out
    EVENT_FLOWS_FULL = 3    // a flow found no slot; at most one a second and CPU
};

struct flow_event {
    __u32 kind;
    __u32 cpu;   // section of the flow table
    __u32 slot;  // index within the section; for EVENT_FLOWS_FULL: 0
    __u32 ifindex;
    __u64 at_ns;
    __u64 bytes_out;
    struct flow_key key;
};
LAYOUT_ASSERT(sizeof(struct flow_event) == 72, "flow_event");

// TCP flags as they stand in the header.
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

DATAPATH_END
