// classifier/datapath/walk.h - the header walk: from the first byte of a frame to the innermost five-tuple.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Two walks with one result: walk_fast() takes the frames that make up nearly all traffic (Ethernet, in user
// space also with one 802.1Q tag, or bare IP, no options, no extension headers, no fragment, no tunnel) from
// linear memory; walk_full() takes everything, one header a step, reading each through platform_read(), which
// also reaches bytes that are not in linear memory. Where walk_fast() answers, walk_full() gives the same
// answer; a fuzz target and a property test hold them to it.
//
// The includer defines before (see account.h): platform_ctx, platform_read().
// Limits: WALK_STEPS_MAX headers in all, TUNNEL_LEVELS_MAX tunnels. What lies deeper counts at the last layer
// walked.
#pragma once

#include "classifier/datapath/layout.h"

DATAPATH_BEGIN

enum {
    WALK_STEPS_MAX = 32,    // headers of all kinds, tags and labels included
    TUNNEL_LEVELS_MAX = 2,  // three IP layers: outer, middle, inner
    JUMBO_OPTIONS_MAX = 16,
    ETHERNET_BYTES = 14,
    VLAN_BYTES = 4,
    IPV4_BYTES_MIN = 20,
    IPV6_BYTES = 40,
    TCP_BYTES_MIN = 20,
    UDP_BYTES = 8
};

// EtherTypes (IEEE 802 registry) and IP protocol numbers (IANA).
enum {
    ETHER_IPV4 = 0x0800,
    ETHER_IPV6 = 0x86dd,
    ETHER_VLAN = 0x8100,          // 802.1Q
    ETHER_SERVICE_VLAN = 0x88a8,  // 802.1ad
    ETHER_QINQ_OLD = 0x9100,      // before 802.1ad; 0x9200 and 0x9300 likewise
    ETHER_QINQ_OLD2 = 0x9200,
    ETHER_QINQ_OLD3 = 0x9300,
    ETHER_VNTAG = 0x8926,   // 802.1BR predecessor: six bytes, the last two an EtherType
    ETHER_MACSEC = 0x88e5,  // 802.1AE
    ETHER_MPLS = 0x8847,
    ETHER_MPLS_MULTICAST = 0x8848,
    ETHER_PPPOE_SESSION = 0x8864,
    ETHER_BRIDGED = 0x6558,  // transparent Ethernet bridging: a whole Ethernet frame follows
    ETHER_ERSPAN2 = 0x88be,  // types I and II
    ETHER_ERSPAN3 = 0x22eb,
    ETHER_PPP = 0x880b,
    ETHER_TYPE_MIN = 0x0600  // below: an 802.3 length
};
enum {
    PROTO_HOPOPTS = 0,
    PROTO_ICMP = 1,
    PROTO_IPIP = 4,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_DCCP = 33,
    PROTO_IPV6 = 41,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_GRE = 47,
    PROTO_AH = 51,
    PROTO_ICMPV6 = 58,
    PROTO_DSTOPTS = 60,
    PROTO_SCTP = 132,
    PROTO_UDPLITE = 136
};
enum {
    PORT_TEREDO = 3544,
    PORT_GRE_IN_UDP = 4754,
    PORT_VXLAN = 4789,
    PORT_VXLAN_LINUX = 8472,  // the Linux driver's default, older than the registration
    PORT_GENEVE = 6081,
    PORT_GTPU = 2152
};

// Where a frame starts. The capture layer knows from the device or link type.
enum walk_start { START_ETHERNET = 1, START_IP = 2, START_PPP = 3, START_ETHER_TYPE = 4, START_NOT_IP = 5 };

enum walk_status { WALK_IP = 0, WALK_NOT_IP = 1, WALK_MALFORMED = 2, WALK_TRUNCATED = 3 };

enum walk_flag {
    WALK_FRAGMENT = 1,          // not the first fragment of its datagram: ports are 0
    WALK_TUNNEL_DEPTH = 2,      // more than TUNNEL_LEVELS_MAX tunnels
    WALK_INNER_INCOMPLETE = 4,  // a tunnel's inner IP header is cut or nonsense
    WALK_HEADERS_MAX = 8,       // WALK_STEPS_MAX reached
    WALK_LOSSES = WALK_TUNNEL_DEPTH | WALK_INNER_INCOMPLETE | WALK_HEADERS_MAX,
    WALK_ANSWER = 16  // an ICMP echo reply: its receiver has asked
};

struct walk_result {
    __u8 src[16];  // innermost IP layer, IPv4 mapped as in flow_key
    __u8 dst[16];
    __u16 sport;  // big-endian; 0 where there are none
    __u16 dport;
    __u8 l4_proto;
    __u8 tcp_flags;
    __u8 status;  // enum walk_status
    __u8 levels;  // tunnels between outermost and innermost IP header
    __u8 tunnel;  // enum tunnel_kind, the outermost
    __u8 flags;   // enum walk_flag
    __u16 reserved;
    __u32 ip_offset;       // of the innermost IP header, from the start of the frame
    __u32 ip_bytes;        // what that header claims, at most what the frame holds from there on
    __u32 payload_offset;  // behind the innermost transport header; 0 where that is not known
    __u32 reserved2[2];
    __u8 outer_src[16];  // outermost IP layer; meaningful only where levels > 0
    __u8 outer_dst[16];
    __u8 middle_src[16];  // meaningful only where levels == 2
    __u8 middle_dst[16];
};
LAYOUT_ASSERT(sizeof(struct walk_result) == 128, "walk_result");

// What the walk knows about the frame beside its bytes.
struct frame_facts {
    __u32 wire_bytes;        // length on the wire (of a super-packet: its own length, before segmentation)
    __u32 captured_bytes;    // how many of them can be read
    __u32 start_offset;      // where the walk starts: behind a link header that the capture layer decoded
    __u16 start_ether_type;  // host order, for START_ETHER_TYPE
    __u8 start;              // enum walk_start
    __u8 reserved;
};

// Kept in memory that the BPF verifier does not track (a map value), so that all paths through a step meet
// again at the next one and verification stays linear in WALK_STEPS_MAX.
struct walk_state {
    struct walk_result result;
    __u32 offset;  // of the header that the next step reads
    __u32 wire_bytes;
    __u32 captured_bytes;
    __u16 ether_type;
    __u8 step;
    __u8 proto;           // IP protocol of the header that the next step reads
    __u8 pending_tunnel;  // kind of the tunnel header just passed
    __u8 have_ip;
    __u8 outer_version;  // 4 or 6: of the layer being walked
    __u8 reserved;
    // The fixed part of an IP header as read: here and not on the stack, of which BPF gives 512 bytes to a
    // whole chain of calls, each frame rounded up to 32.
    __u8 ip_header[IPV6_BYTES];
};

enum walk_step {
    STEP_DONE = 0,
    STEP_ETHERNET,
    STEP_ETHER_TYPE,
    STEP_IP,
    STEP_IPV4,
    STEP_IPV6,
    STEP_PROTO,
    STEP_UDP_TUNNEL,
    STEP_GRE,
    STEP_PPP,
    STEP_MPLS,
    STEP_ERSPAN2,
    STEP_ERSPAN3,
    STEP_GTP_EXTENSION,
    STEP_TEREDO
};

DATAPATH_INLINE void copy_address(__u8* to, const __u8* from) {
    store64(to, load64(from));
    store64(to + 8, load64(from + 8));
}

DATAPATH_INLINE void map_ipv4(__u8* to, __u32 big_endian) {
    store64(to, 0);
    store64(to + 8, 0xffff0000ull | (__u64)big_endian << 32);
}

DATAPATH_INLINE __u32 capped(__u32 claimed, __u32 wire_bytes, __u32 offset) {
    __u32 held = wire_bytes > offset ? wire_bytes - offset : 0;
    return claimed < held ? claimed : held;
}

// ---------------------------------------------------------------------------------------------------- full
// walk

// A header could not be read or makes no sense. Ends the walk.
DATAPATH_INLINE __u8 walk_fail(struct walk_state* w, __u32 header_bytes) {
    if (w->have_ip) {
        if (w->pending_tunnel != TUNNEL_NONE) w->result.flags |= WALK_INNER_INCOMPLETE;
    } else {
        __u32 end = w->offset + header_bytes;
        w->result.status = (end > w->captured_bytes && end <= w->wire_bytes) || w->captured_bytes == 0
                               ? WALK_TRUNCATED
                               : WALK_MALFORMED;
    }
    return STEP_DONE;
}

// A whole IP header has been read: the layer before it, if any, becomes outer or middle.
DATAPATH_INLINE int walk_enter_ip(struct walk_state* w) {
    struct walk_result* r = &w->result;
    if (w->have_ip) {
        if (r->levels >= TUNNEL_LEVELS_MAX) {
            r->flags |= WALK_TUNNEL_DEPTH;
            return 0;
        }
        if (r->levels == 0) {
            copy_address(r->outer_src, r->src);
            copy_address(r->outer_dst, r->dst);
            r->tunnel = w->pending_tunnel;
        } else {
            copy_address(r->middle_src, r->src);
            copy_address(r->middle_dst, r->dst);
        }
        r->levels++;
    }
    w->have_ip = 1;
    w->pending_tunnel = TUNNEL_NONE;
    r->status = WALK_IP;
    r->sport = 0;
    r->dport = 0;
    r->tcp_flags = 0;
    r->ip_offset = w->offset;
    r->payload_offset = 0;
    return 1;
}

DATAPATH_INLINE __u8 walk_ethernet(platform_ctx ctx, struct walk_state* w) {
    __u16 ether_type;
    if (platform_read(ctx, w->offset + 12, &ether_type, 2)) return walk_fail(w, ETHERNET_BYTES);
    w->offset += ETHERNET_BYTES;
    w->ether_type = host16(ether_type);
    return STEP_ETHER_TYPE;
}

// 802.3 with LLC: SNAP (RFC 1042) names an EtherType, DSAP 6 is IP.
DATAPATH_INLINE __u8 walk_llc(platform_ctx ctx, struct walk_state* w) {
    __u8 llc[8];
    if (platform_read(ctx, w->offset, llc, 8)) return STEP_DONE;
    if (llc[0] == 0xaa && llc[1] == 0xaa && llc[2] == 3) {
        w->offset += 8;
        w->ether_type = (__u16)(llc[6] << 8 | llc[7]);
        return llc[3] == 0 && llc[4] == 0 && llc[5] == 0 && w->ether_type >= ETHER_TYPE_MIN ? STEP_ETHER_TYPE
                                                                                            : STEP_DONE;
    }
    if (llc[0] == 6 && llc[1] == 6 && llc[2] == 3) {
        w->offset += 3;
        return STEP_IP;
    }
    return STEP_DONE;
}

// IEEE 802.1AE clause 9: with neither E nor C set the frame is authenticated only, and can be read.
DATAPATH_INLINE __u8 walk_macsec(platform_ctx ctx, struct walk_state* w) {
    __u8 tag[2];
    if (platform_read(ctx, w->offset, tag, 1)) return walk_fail(w, 8);
    if (tag[0] & 0x8c) return STEP_DONE;  // another version, encrypted or changed
    w->offset += (tag[0] & 0x20) ? 14 : 6;
    if (platform_read(ctx, w->offset, tag, 2)) return walk_fail(w, 2);
    w->offset += 2;
    w->ether_type = (__u16)(tag[0] << 8 | tag[1]);
    return STEP_ETHER_TYPE;
}

DATAPATH_INLINE __u8 walk_ether_type(platform_ctx ctx, struct walk_state* w) {
    __u8 tag[6];
    switch (w->ether_type) {
        case ETHER_IPV4:
        case ETHER_IPV6:
            return STEP_IP;  // the version nibble decides, as receivers do
        case ETHER_VLAN:
        case ETHER_SERVICE_VLAN:
        case ETHER_QINQ_OLD:
        case ETHER_QINQ_OLD2:
        case ETHER_QINQ_OLD3:
            if (platform_read(ctx, w->offset, tag, 4)) return walk_fail(w, 4);
            w->offset += 4;
            w->ether_type = (__u16)(tag[2] << 8 | tag[3]);
            return STEP_ETHER_TYPE;
        case ETHER_VNTAG:
            if (platform_read(ctx, w->offset, tag, 6)) return walk_fail(w, 6);
            w->offset += 6;
            w->ether_type = (__u16)(tag[4] << 8 | tag[5]);
            return STEP_ETHER_TYPE;
        case ETHER_MACSEC:
            return walk_macsec(ctx, w);
        case ETHER_PPPOE_SESSION:  // RFC 2516 section 4; code 0 is session data
            if (platform_read(ctx, w->offset, tag, 6)) return walk_fail(w, 6);
            w->offset += 6;
            return tag[1] == 0 ? STEP_PPP : STEP_DONE;
        case ETHER_MPLS:
        case ETHER_MPLS_MULTICAST:
            return STEP_MPLS;
        case ETHER_BRIDGED:
            return STEP_ETHERNET;
        case ETHER_PPP:
            return STEP_PPP;
        default:
            break;
    }
    return w->ether_type < ETHER_TYPE_MIN ? walk_llc(ctx, w) : (__u8)STEP_DONE;
}

// RFC 3032: labels until the bottom of the stack; then the first nibble tells (RFC 4385: 0 is a pseudowire's
// control word, behind which Ethernet is by far the most common).
DATAPATH_INLINE __u8 walk_mpls(platform_ctx ctx, struct walk_state* w) {
    __u8 label[4];
    if (platform_read(ctx, w->offset, label, 4)) return walk_fail(w, 4);
    w->offset += 4;
    if (!(label[2] & 1)) return STEP_MPLS;
    if (platform_read(ctx, w->offset, label, 4)) return walk_fail(w, 4);
    __u8 nibble = label[0] >> 4;
    if (nibble == 4 || nibble == 6) return STEP_IP;
    if (nibble != 0) return STEP_DONE;
    w->offset += 4;
    return STEP_ETHERNET;
}

// RFC 1661 section 2 and 6.5, RFC 1662 section 3.1: address and control field may be left out, the protocol
// field may be one byte (its lowest bit set).
DATAPATH_INLINE __u8 walk_ppp(platform_ctx ctx, struct walk_state* w) {
    __u8 head[4];
    if (platform_read(ctx, w->offset, head, 2)) return walk_fail(w, 2);
    if (head[0] == 0xff && head[1] == 0x03) {
        w->offset += 2;
        if (platform_read(ctx, w->offset, head, 2)) return walk_fail(w, 2);
    }
    __u16 protocol = head[0];
    if (head[0] & 1) {
        w->offset += 1;
    } else {
        protocol = (__u16)(head[0] << 8 | head[1]);
        w->offset += 2;
    }
    if (protocol == 0x0021 || protocol == 0x0057) return STEP_IP;
    if (protocol == 0x0281 || protocol == 0x0283) return STEP_MPLS;
    return STEP_DONE;
}

DATAPATH_INLINE __u8 walk_ip(platform_ctx ctx, struct walk_state* w) {
    __u8 first;
    if (platform_read(ctx, w->offset, &first, 1)) return walk_fail(w, IPV4_BYTES_MIN);
    if (first >> 4 == 4) return STEP_IPV4;
    if (first >> 4 == 6) return STEP_IPV6;
    return walk_fail(w, 0);
}

DATAPATH_INLINE __u8 walk_ipv4(platform_ctx ctx, struct walk_state* w) {
    __u8* header = w->ip_header;
    if (platform_read(ctx, w->offset, header, IPV4_BYTES_MIN)) return walk_fail(w, IPV4_BYTES_MIN);
    __u32 header_bytes = (__u32)(header[0] & 15) * 4;
    __u32 total = (__u32)header[2] << 8 | header[3];
    if (total == 0) total = w->wire_bytes - w->offset;  // segmentation offload and BIG TCP leave it 0
    if (header_bytes < IPV4_BYTES_MIN || total < header_bytes) return walk_fail(w, 0);
    if (header_bytes > IPV4_BYTES_MIN && w->offset + header_bytes > w->captured_bytes)
        return walk_fail(w, header_bytes);  // the options are cut
    if (!walk_enter_ip(w)) return STEP_DONE;
    struct walk_result* r = &w->result;
    map_ipv4(r->src, load32(header + 12));
    map_ipv4(r->dst, load32(header + 16));
    r->l4_proto = header[9];
    r->ip_bytes = capped(total, w->wire_bytes, w->offset);
    w->proto = header[9];
    w->outer_version = 4;
    w->offset += header_bytes;
    if ((header[6] & 0x1f) != 0 || header[7] != 0) {
        r->flags |= WALK_FRAGMENT;
        return STEP_DONE;
    }
    return STEP_PROTO;
}

// RFC 2675: payload length 0 and a jumbo payload option among the first JUMBO_OPTIONS_MAX of the hop-by-hop
// header at `offset`. 0 where there is none.
DATAPATH_CALL __u32 jumbo_payload(platform_ctx ctx, __u32 offset) {
    __u8 option[6];
    if (platform_read(ctx, offset, option, 2)) return 0;
    __u32 left = ((__u32)option[1] + 1) * 8 - 2;
    offset += 2;
    for (int i = 0; i < JUMBO_OPTIONS_MAX; i++) {
        __u32 bytes = 1;  // Pad1 has no length
        if (platform_read(ctx, offset, option, 2)) return 0;
        if (option[0] != 0) bytes = 2 + (__u32)option[1];
        if (bytes > left) return 0;
        if (option[0] == 0xc2 && option[1] == 4)
            return platform_read(ctx, offset, option, 6) ? 0 : host32(load32(option + 2));
        offset += bytes;
        left -= bytes;
    }
    return 0;
}

DATAPATH_INLINE __u8 walk_ipv6(platform_ctx ctx, struct walk_state* w) {
    __u8* header = w->ip_header;
    if (platform_read(ctx, w->offset, header, IPV6_BYTES)) return walk_fail(w, IPV6_BYTES);
    if (!walk_enter_ip(w)) return STEP_DONE;
    struct walk_result* r = &w->result;
    __u32 payload = (__u32)header[4] << 8 | header[5];
    if (payload == 0 && header[6] == PROTO_HOPOPTS) payload = jumbo_payload(ctx, w->offset + IPV6_BYTES);
    if (payload > 0x7fffffff) payload = 0x7fffffff;
    copy_address(r->src, header + 8);
    copy_address(r->dst, header + 24);
    r->l4_proto = header[6];
    r->ip_bytes = capped(payload + IPV6_BYTES, w->wire_bytes, w->offset);
    w->proto = header[6];
    w->outer_version = 6;
    w->offset += IPV6_BYTES;
    return STEP_PROTO;
}

// IPv6 extension headers and AH (RFC 8200 section 4, RFC 4302 section 2.2; AH also behind IPv4).
DATAPATH_INLINE __u8 walk_extension(platform_ctx ctx, struct walk_state* w) {
    __u8 head[8];
    if (platform_read(ctx, w->offset, head, 8)) {
        // Cut within the header: what it says about the next one counts.
        if (w->proto != PROTO_FRAGMENT && !platform_read(ctx, w->offset, head, 1))
            w->result.l4_proto = head[0];
        return STEP_DONE;
    }
    __u32 bytes = ((__u32)head[1] + 1) * 8;
    __u8 stop = 0;
    if (w->proto == PROTO_AH) bytes = ((__u32)head[1] + 2) * 4;
    if (w->proto == PROTO_FRAGMENT) {
        bytes = 8;
        stop = head[2] != 0 || (head[3] & 0xf8) != 0;
    }
    w->proto = head[0];
    w->result.l4_proto = head[0];
    w->offset += bytes;
    if (stop) {
        w->result.flags |= WALK_FRAGMENT;
        return STEP_DONE;
    }
    return STEP_PROTO;
}

// Ports of TCP, UDP, UDP-Lite, SCTP and DCCP: the first four bytes of each.
DATAPATH_INLINE __u8 walk_ports(platform_ctx ctx, struct walk_state* w) {
    struct walk_result* r = &w->result;
    __u8 head[14];
    if (platform_read(ctx, w->offset, head, 4)) {
        // Cut within the ports: what is there counts.
        if (!platform_read(ctx, w->offset, head, 2)) r->sport = load16(head);
        return STEP_DONE;
    }
    r->sport = load16(head);
    r->dport = load16(head + 2);
    if (w->proto == PROTO_TCP) {
        if (platform_read(ctx, w->offset, head, 14)) return STEP_DONE;
        r->tcp_flags = head[13];
        r->payload_offset = w->offset + (__u32)(head[12] >> 4) * 4;
        return STEP_DONE;
    }
    if (w->proto != PROTO_UDP) return STEP_DONE;
    w->offset += UDP_BYTES;
    r->payload_offset = w->offset;
    return STEP_UDP_TUNNEL;
}

// RFC 792 and RFC 4443 section 4.2: the types of echo replies.
DATAPATH_INLINE int is_echo_reply(__u8 l4_proto, __u8 type) {
    return type == (l4_proto == PROTO_ICMP ? 0 : 129);
}

DATAPATH_INLINE __u8 walk_icmp(platform_ctx ctx, struct walk_state* w) {
    __u8 type;
    if (!platform_read(ctx, w->offset, &type, 1) && is_echo_reply(w->proto, type))
        w->result.flags |= WALK_ANSWER;
    return STEP_DONE;
}

DATAPATH_INLINE __u8 walk_proto(platform_ctx ctx, struct walk_state* w) {
    switch (w->proto) {
        case PROTO_ICMP:
        case PROTO_ICMPV6:
            return walk_icmp(ctx, w);
        case PROTO_TCP:
        case PROTO_UDP:
        case PROTO_SCTP:
        case PROTO_UDPLITE:
        case PROTO_DCCP:
            return walk_ports(ctx, w);
        case PROTO_IPIP:
            w->pending_tunnel = TUNNEL_IPIP;
            return STEP_IP;
        case PROTO_IPV6:
            w->pending_tunnel = w->outer_version == 4 ? TUNNEL_SIXINFOUR : TUNNEL_IPIP;
            return STEP_IP;
        case PROTO_GRE:
            w->pending_tunnel = TUNNEL_GRE;
            return STEP_GRE;
        case PROTO_AH:
            return walk_extension(ctx, w);
        case PROTO_HOPOPTS:
        case PROTO_ROUTING:
        case PROTO_FRAGMENT:
        case PROTO_DSTOPTS:
            return w->outer_version == 6 ? walk_extension(ctx, w) : (__u8)STEP_DONE;
        default:
            return STEP_DONE;
    }
}

DATAPATH_INLINE int is_port(const struct walk_result* r, __u16 port) {
    return host16(r->dport) == port || host16(r->sport) == port;
}

DATAPATH_INLINE int is_tunnel_port(__u16 port) {
    // Most ports are below the least of these, or beyond the largest.
    if (LIKELY((__u16)(port - PORT_GTPU) > PORT_VXLAN_LINUX - PORT_GTPU)) return 0;
    return port == PORT_VXLAN || port == PORT_GENEVE || port == PORT_GTPU || port == PORT_TEREDO ||
           port == PORT_GRE_IN_UDP || port == PORT_VXLAN_LINUX;
}

// 3GPP TS 29.281 section 5.1: version 1, G-PDU; E, S or PN set: four more bytes, the last the next extension.
DATAPATH_INLINE __u8 walk_gtpu(struct walk_state* w, const __u8* head, const __u8* more) {
    if ((head[0] & 0xf0) != 0x30 || head[1] != 0xff) return STEP_DONE;
    w->pending_tunnel = TUNNEL_GTPU;
    w->offset += 8;
    if (!(head[0] & 7)) return STEP_IP;
    w->offset += 4;
    return (head[0] & 4) && more[3] != 0 ? STEP_GTP_EXTENSION : STEP_IP;
}

// Behind a UDP header on a tunnel's port. What does not look like the tunnel is plain payload.
DATAPATH_INLINE __u8 walk_udp_tunnel(platform_ctx ctx, struct walk_state* w) {
    struct walk_result* r = &w->result;
    if (!is_tunnel_port(host16(r->dport)) && !is_tunnel_port(host16(r->sport))) return STEP_DONE;
    __u8 head[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    if (is_port(r, PORT_TEREDO)) return STEP_TEREDO;
    if (is_port(r, PORT_GRE_IN_UDP)) {
        w->pending_tunnel = TUNNEL_GRE;
        return STEP_GRE;
    }
    if (platform_read(ctx, w->offset, head, 8)) return STEP_DONE;
    if (is_port(r, PORT_GTPU)) {
        if ((head[0] & 7) && platform_read(ctx, w->offset, head, 12)) return STEP_DONE;
        return walk_gtpu(w, head, head + 8);
    }
    if (is_port(r, PORT_GENEVE)) {  // RFC 8926 section 3.4
        if (head[0] >> 6 != 0) return STEP_DONE;
        w->pending_tunnel = TUNNEL_GENEVE;
        w->offset += 8 + (__u32)(head[0] & 0x3f) * 4;
        w->ether_type = (__u16)(head[2] << 8 | head[3]);
        return STEP_ETHER_TYPE;
    }
    if (!(head[0] & 0x08)) return STEP_DONE;  // VXLAN, RFC 7348 section 5: the I flag must be set
    w->pending_tunnel = TUNNEL_VXLAN;
    w->offset += 8;
    return STEP_ETHERNET;
}

DATAPATH_INLINE __u8 walk_gtp_extension(platform_ctx ctx, struct walk_state* w) {
    __u8 units;
    __u8 next;
    if (platform_read(ctx, w->offset, &units, 1) || units == 0) return walk_fail(w, 4);
    __u32 bytes = (__u32)units * 4;
    if (platform_read(ctx, w->offset + bytes - 1, &next, 1)) return walk_fail(w, bytes);
    w->offset += bytes;
    return next == 0 ? STEP_IP : STEP_GTP_EXTENSION;
}

// RFC 4380 section 5.1.1: an authentication header (0001), an origin indication (0000), then IPv6.
DATAPATH_INLINE __u8 walk_teredo(platform_ctx ctx, struct walk_state* w) {
    __u8 head[4];
    if (platform_read(ctx, w->offset, head, 4)) return STEP_DONE;
    if (head[0] >> 4 == 6) {
        w->pending_tunnel = TUNNEL_TEREDO;
        return STEP_IPV6;
    }
    if (head[0] != 0 || head[1] > 1) return STEP_DONE;
    w->offset += head[1] == 1 ? 13 + (__u32)head[2] + head[3] : 8;
    return STEP_TEREDO;
}

// RFC 2784, RFC 2890 (key, sequence number); version 1: RFC 2637 section 4.1 (acknowledgement number).
DATAPATH_INLINE __u8 walk_gre(platform_ctx ctx, struct walk_state* w) {
    __u8 head[4];
    if (platform_read(ctx, w->offset, head, 4)) return STEP_DONE;
    __u8 version = head[1] & 7;
    if (version > 1 || (head[0] & 0x40))
        return STEP_DONE;  // RFC 1701 routing is deprecated and has no fixed length
    __u32 bytes = 4;
    if (head[0] & 0x80) bytes += 4;
    if (head[0] & 0x20) bytes += 4;
    if (head[0] & 0x10) bytes += 4;
    if (version == 1 && (head[1] & 0x80)) bytes += 4;
    w->offset += bytes;
    w->ether_type = (__u16)(head[2] << 8 | head[3]);
    if (w->ether_type == ETHER_ERSPAN2) {
        w->pending_tunnel = TUNNEL_ERSPAN;
        return (head[0] & 0x10) ? STEP_ERSPAN2
                                : STEP_ETHERNET;  // type I has neither sequence number nor header
    }
    if (w->ether_type == ETHER_ERSPAN3) return STEP_ERSPAN3;
    if (w->ether_type < ETHER_TYPE_MIN) return STEP_DONE;
    return STEP_ETHER_TYPE;
}

// draft-foschiano-erspan-03 section 4.2 and 4.3. Type III: twelve bytes, eight more with the O bit; the frame
// type tells whether Ethernet or IP follows.
DATAPATH_INLINE __u8 walk_erspan3(platform_ctx ctx, struct walk_state* w) {
    __u8 header[12];
    w->pending_tunnel = TUNNEL_ERSPAN;
    if (platform_read(ctx, w->offset, header, 12)) return walk_fail(w, 12);
    __u8 frame_type = (header[10] >> 2) & 0x1f;
    w->offset += (header[11] & 1) ? 20 : 12;
    if (frame_type == 2) return STEP_IP;
    return frame_type == 0 ? STEP_ETHERNET : STEP_DONE;
}

DATAPATH_INLINE __u8 walk_one(platform_ctx ctx, struct walk_state* w) {
    switch (w->step) {
        case STEP_ETHERNET:
            return walk_ethernet(ctx, w);
        case STEP_ETHER_TYPE:
            return walk_ether_type(ctx, w);
        case STEP_IP:
            return walk_ip(ctx, w);
        case STEP_IPV4:
            return walk_ipv4(ctx, w);
        case STEP_IPV6:
            return walk_ipv6(ctx, w);
        case STEP_PROTO:
            return walk_proto(ctx, w);
        case STEP_UDP_TUNNEL:
            return walk_udp_tunnel(ctx, w);
        case STEP_GRE:
            return walk_gre(ctx, w);
        case STEP_PPP:
            return walk_ppp(ctx, w);
        case STEP_MPLS:
            return walk_mpls(ctx, w);
        case STEP_ERSPAN2:
            w->offset += 8;
            return STEP_ETHERNET;
        case STEP_ERSPAN3:
            return walk_erspan3(ctx, w);
        case STEP_GTP_EXTENSION:
            return walk_gtp_extension(ctx, w);
        case STEP_TEREDO:
            return walk_teredo(ctx, w);
        default:
            return STEP_DONE;
    }
}

DATAPATH_INLINE __u8 first_step(__u8 start) {
    switch (start) {
        case START_ETHERNET:
            return STEP_ETHERNET;
        case START_IP:
            return STEP_IP;
        case START_PPP:
            return STEP_PPP;
        case START_ETHER_TYPE:
            return STEP_ETHER_TYPE;
        default:
            return STEP_DONE;
    }
}

// For the frames that walk_fast() leaves. Always returns 0; the answer is in w->result.
DATAPATH_CALL int walk_full(platform_ctx ctx, struct walk_state* w, const struct frame_facts* frame) {
    if (!w || !frame) return 0;
    __builtin_memset(w, 0, sizeof *w);
    w->result.status = WALK_NOT_IP;
    w->offset = frame->start_offset;
    w->wire_bytes = frame->wire_bytes;
    w->captured_bytes = frame->captured_bytes;
    w->ether_type = frame->start_ether_type;
    w->step = first_step(frame->start);
    for (int i = 0; i < WALK_STEPS_MAX; i++) {
        if (w->step == STEP_DONE) return 0;
        w->step = walk_one(ctx, w);
    }
    if (w->step != STEP_DONE) {
        w->result.flags |= WALK_HEADERS_MAX;
        if (!w->have_ip) w->result.status = WALK_MALFORMED;
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------- fast
// walk

// Transport header of a plain packet at `l4`. Returns 0 where the full walk must decide.
DATAPATH_INLINE int fast_transport(const __u8* l4, const __u8* end, __u32 l4_offset, struct walk_result* r) {
    if (LIKELY(r->l4_proto == PROTO_TCP)) {
        if (l4 + TCP_BYTES_MIN > end) return 0;
        r->sport = load16(l4);
        r->dport = load16(l4 + 2);
        r->tcp_flags = l4[13];
        r->payload_offset = l4_offset + (__u32)(l4[12] >> 4) * 4;
        return 1;
    }
    if (r->l4_proto == PROTO_UDP) {
        if (l4 + UDP_BYTES > end) return 0;
        r->sport = load16(l4);
        r->dport = load16(l4 + 2);
        r->payload_offset = l4_offset + UDP_BYTES;
        return !is_tunnel_port(host16(r->dport)) && !is_tunnel_port(host16(r->sport));
    }
    if (r->l4_proto != PROTO_ICMP && r->l4_proto != PROTO_ICMPV6) return 0;
    if (l4 + 1 > end) return 0;
    if (is_echo_reply(r->l4_proto, l4[0])) r->flags |= WALK_ANSWER;
    return 1;
}

// The layers of a plain packet whose IP header lies `l3_offset` (in BPF a constant) behind `data`. Returns 1
// when `r` is filled (outer and middle addresses are not written), 0 when the full walk must decide.
DATAPATH_INLINE int fast_ip(const __u8* data, const __u8* end, __u32 l3_offset, __u32 wire_bytes,
                            struct walk_result* r) {
    const __u8* l3 = data + l3_offset;
    if (l3 + IPV4_BYTES_MIN > end) return 0;
    r->status = WALK_IP;
    r->levels = 0;
    r->tunnel = TUNNEL_NONE;
    r->flags = 0;
    r->sport = 0;
    r->dport = 0;
    r->tcp_flags = 0;
    r->payload_offset = 0;
    r->ip_offset = l3_offset;
    if (l3[0] == 0x45) {
        __u32 total = host16(load16(l3 + 2));
        if (total < IPV4_BYTES_MIN || (load16(l3 + 6) & host16(0x3fff)) != 0) return 0;
        map_ipv4(r->src, load32(l3 + 12));
        map_ipv4(r->dst, load32(l3 + 16));
        r->l4_proto = l3[9];
        r->ip_bytes = capped(total, wire_bytes, l3_offset);
        return fast_transport(l3 + IPV4_BYTES_MIN, end, l3_offset + IPV4_BYTES_MIN, r);
    }
    if (l3[0] >> 4 != 6 || l3 + IPV6_BYTES > end) return 0;
    __u32 payload = host16(load16(l3 + 4));
    if (payload == 0) return 0;
    copy_address(r->src, l3 + 8);
    copy_address(r->dst, l3 + 24);
    r->l4_proto = l3[6];
    r->ip_bytes = capped(payload + IPV6_BYTES, wire_bytes, l3_offset);
    return fast_transport(l3 + IPV6_BYTES, end, l3_offset + IPV6_BYTES, r);
}

DATAPATH_INLINE int walk_fast(const __u8* data, const __u8* end, __u8 start, __u32 wire_bytes,
                              struct walk_result* r) {
    if (start == START_IP) return fast_ip(data, end, 0, wire_bytes, r);
    if (start != START_ETHERNET || data + ETHERNET_BYTES > end) return 0;
    __u16 ether_type = load16(data + 12);
#ifdef __bpf__
    __u32 l3_offset = ETHERNET_BYTES;  // the kernel has taken the tag out of nearly every frame
#else
    // A tagged frame every now and then: chosen without a branch, which a CPU would often guess wrong.
    if (data + ETHERNET_BYTES + VLAN_BYTES > end) return 0;
    __u16 behind_tag = load16(data + ETHERNET_BYTES + VLAN_BYTES - 2);
    int tagged = ether_type == host16(ETHER_VLAN);
    __u32 l3_offset = ETHERNET_BYTES + (tagged ? VLAN_BYTES : 0);
    ether_type = tagged ? behind_tag : ether_type;
#endif
    if (ether_type != host16(ETHER_IPV4) && ether_type != host16(ETHER_IPV6)) return 0;
    return fast_ip(data, end, l3_offset, wire_bytes, r);
}

DATAPATH_END
