// tests/bench/bpf_mutator.bpf.c - turns the one packet of BPF_PROG_TEST_RUN into many flows.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Writes the next destination and ports of a stream into the packet, then tail-calls the program under test
// at a constant index, which the JIT makes a direct jump. The floor is the same with the empty program below.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct stream_packet {
    __u32 destination;  // as on the wire
    __u16 source_port;
    __u16 destination_port;
};

const volatile __u32 stream_mask = 0;  // entries - 1; entries are a power of two

// key: position; value: what to write. Memory: 8 B an entry. Writer: the benchmark by mmap. Reader: this
// program.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct stream_packet);
} stream SEC(".maps");

// key: 0; value: packets done on this CPU. Writer and reader: this program.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} position SEC(".maps");

// key: 0; value: the program under test.
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(__u32));
} next SEC(".maps");

// One line of memory: key: any; value: 128 B, as a flow entry. Entries: as many as the benchmark's flow table
// has. Writer and reader: `touch`.
struct line {
    __u64 words[16];
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1 << 17);
    __type(key, __u32);
    __type(value, struct line);
} lines SEC(".maps");

enum { DESTINATION_AT = 14 + 16, PORTS_AT = 14 + 20 };

SEC("tc")
int mutate(struct __sk_buff* skb) {
    __u8* data = (__u8*)(long)skb->data;
    __u8* end = (__u8*)(long)skb->data_end;
    if (data + PORTS_AT + 4 > end) return TC_ACT_SHOT;
    __u32 zero = 0;
    __u32* done = bpf_map_lookup_elem(&position, &zero);
    if (!done) return TC_ACT_SHOT;
    __u32 at = (*done)++ & stream_mask;
    struct stream_packet* packet = bpf_map_lookup_elem(&stream, &at);
    if (!packet) return TC_ACT_SHOT;
    *(__u32*)(data + DESTINATION_AT) = packet->destination;
    *(__u16*)(data + PORTS_AT) = packet->source_port;
    *(__u16*)(data + PORTS_AT + 2) = packet->destination_port;
    bpf_tail_call(skb, &next, 0);
    return TC_ACT_SHOT;
}

SEC("tc")
int empty(struct __sk_buff* skb) {
    (void)skb;
    return TC_ACT_UNSPEC;
}

// What no flow table can do without: one line of its memory, found by the packet's addresses and ports, is
// changed.
SEC("tc")
int touch(struct __sk_buff* skb) {
    __u8* data = (__u8*)(long)skb->data;
    __u8* end = (__u8*)(long)skb->data_end;
    if (data + PORTS_AT + 4 > end) return TC_ACT_SHOT;
    __u64 hash = *(__u32*)(data + DESTINATION_AT) * 0x9e3779b97f4a7c15ull ^ *(__u32*)(data + PORTS_AT);
    hash *= 0xbf58476d1ce4e5b9ull;
    __u32 at = (__u32)(hash >> 40) & ((1 << 17) - 1);
    struct line* line = bpf_map_lookup_elem(&lines, &at);
    if (line) line->words[0]++;
    return TC_ACT_UNSPEC;
}
