// classifier/datapath/sample.h - payload of the first packets of a flow, as the kernel hands it to user
// space. SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Not part of LAYOUT_VERSION: no sample outlives the programs that made it.
#pragma once

#include "classifier/datapath/layout.h"

DATAPATH_BEGIN

enum {
    // Packets of a flow, counted in both directions, of which payload is handed over; of one CPU's section
    // where
    // a flow moves between CPUs. As every engine has them (payload_sample.h).
    SAMPLED_PACKETS_MAX = 32,
    SAMPLED_DATAGRAMS_MAX = 8,
    // Payload bytes of a sample, a power of two: a ClientHello with post-quantum key shares, or a segment
    // that the
    // receiving side has merged.
    SAMPLE_BYTES = 4096,
    // A CPU hands over so many samples in 2^SAMPLE_WINDOW_SHIFT ns (67 ms): 3,800 a second. What is beyond is
    // counted, and its flows stay without names: a flood of new flows costs a comparison each.
    SAMPLE_WINDOW_SHIFT = 26,
    SAMPLES_A_WINDOW = 256,
    PORT_DNS_BIG_ENDIAN = 0x3500,
    // What the program that hands over is told beside the packet; the lowest bit is the direction.
    SAMPLE_INITIATOR_SHIFT = 8,
    SAMPLE_UNTRACKED = 1 << 16
};

struct payload_sample {
    struct flow_key key;
    __u64 at_ns;
    __u32 ifindex;
    __u32 ip_bytes;
    __u32 tcp_sequence;   // host order; 0 where it is not TCP
    __u32 payload_bytes;  // that follow
    __u8 direction;
    __u8 tracked;  // 0: of a flow that has no entry
    __u8 initiator;
    __u8 tcp_flags;
    __u32 reserved;
};
LAYOUT_ASSERT(sizeof(struct payload_sample) == 72, "payload_sample");

// Per CPU.
struct sampler {
    __u64 window;     // the last one in which something was sampled
    __u64 in_window;  // samples in it
    __u64 sampled;
    __u64 limited;   // beyond SAMPLES_A_WINDOW
    __u64 full;      // found no room in the ring
    __u64 unplaced;  // a TCP header behind IPv6 extension headers: its place is not kept
};
LAYOUT_ASSERT(sizeof(struct sampler) == 48, "sampler");

DATAPATH_END
