// classifier/table_platform.h - the platform of datapath/account.h in user space. Internal to classifier/.
//
// One TablePlatform belongs to one thread. That of a PacketClassifier only walks and counts; that of a
// FlowTable keeps flows too.
//
// Where a flow lies: `buckets` is the open-addressing table of datapath/flow.h, eight slots to a cache line:
// the tag, and the number of the flow's entry. The entries stand apart, in the order in which flows were
// made: a new flow is written where the last one was, not to a random place, growing touches no entry, and
// the last records are read in order. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "classifier/datapath/walk_platform_memory.h"
#include "classifier/flow_table.h"
#include "classifier/payload_sample.h"
#include "classifier/zeroed_array.h"

namespace egresswatch::datapath {

struct section_state;
struct walk_state;

struct alignas(64) TableBucket {
    flow_tags tags;
    std::array<__u32, FLOW_PROBES> entry;
};
static_assert(sizeof(TableBucket) == 64, "one cache line");

struct TablePlatform {
    // The packet.
    const __u8* data = nullptr;
    __u32 captured = 0;
    __u64 now_ns = 0;
    __u32 interface = 0;
    bool tunnelled = false;
    const flow_outer* carrier = nullptr;  // the carrier's addresses, where it is tunnelled
    // What is counted into.
    const __u16* region = nullptr;
    __u32 region_cells = 0;
    ZeroedArray<class_totals> classes{CLASSES_MAX};
    std::vector<iface_totals> interfaces{1};
    std::array<__u64, LOSS_REASON_COUNT> losses{};
    bool track_all = false;
    bool direction_by_region = false;
    bool sample_payload = false;
    __u64 hash_seed = 0;
    walk_state* walk_scratch = nullptr;
    // Flows.
    ZeroedArray<TableBucket> buckets;
    ZeroedArray<flow_head> heads;     // by entry number
    ZeroedArray<flow_counts> counts;  // likewise; of a flow of one packet not written (single_flow.h)
    ZeroedArray<flow_outer> outers;   // likewise; written only where there was ever a tunnel
    std::vector<__u32> free_entries;
    section_state* only_section = nullptr;
    __u32 slot_mask = 0;
    __u32 entries_used = 0;  // ever: those from here on are zero
    __u32 entries_max = 0;
    bool any_outer = false;
    bool may_grow = false;
    bool may_retry = false;  // a flow that finds no slot is no loss yet: room is made, and it is tried again
    // What happened to the packet.
    bool wants_room = false;
    bool reached_volume = false;

    [[nodiscard]] bool entries_full() const noexcept {
        return free_entries.empty() && entries_used == entries_max;
    }
    // The number of an entry that no flow has; there is one.
    [[nodiscard]] __u32 take_entry() noexcept {
        if (!free_entries.empty()) {
            const __u32 number = free_entries.back();
            free_entries.pop_back();
            return number;
        }
        constexpr __u32 together = 4096;  // 256 KiB
        if (UNLIKELY(entries_used % together == 0)) heads.populate(entries_used, together);
        return entries_used++;
    }
    [[nodiscard]] __u32& tag_at(__u32 slot) noexcept {
        return buckets[slot / FLOW_PROBES].tags.tag[slot % FLOW_PROBES];
    }
    [[nodiscard]] __u32 tag_at(__u32 slot) const noexcept {
        return buckets[slot / FLOW_PROBES].tags.tag[slot % FLOW_PROBES];
    }
    [[nodiscard]] __u32& entry_at(__u32 slot) noexcept {
        return buckets[slot / FLOW_PROBES].entry[slot % FLOW_PROBES];
    }
    [[nodiscard]] __u32 entry_at(__u32 slot) const noexcept {
        return buckets[slot / FLOW_PROBES].entry[slot % FLOW_PROBES];
    }
};
using platform_ctx = TablePlatform*;

// Of a flow that is going to be looked for. Who keeps no flows has no buckets, and prefetches nothing.
DATAPATH_INLINE void prefetch_bucket(const TablePlatform& platform, __u64 hash) {
    __builtin_prefetch(platform.buckets.data() + (hash & platform.slot_mask) / FLOW_PROBES, 1);
}

#define PLATFORM_TAGS

DATAPATH_INLINE int platform_read(platform_ctx ctx, __u32 offset, void* to, __u32 size) {
    return read_memory(ctx->data, ctx->captured, offset, to, size);
}
DATAPATH_INLINE const __u16* platform_region(platform_ctx ctx) {
    return ctx->region;
}
DATAPATH_INLINE __u32 platform_region_cells(platform_ctx ctx) {
    return ctx->region_cells;
}
DATAPATH_INLINE struct iface_direction* platform_iface(platform_ctx ctx, __u32 direction) {
    return &ctx->interfaces[ctx->interface].by_direction[direction];
}
DATAPATH_INLINE struct class_traffic* platform_class(platform_ctx ctx, __u32 class_id, __u32 direction) {
    return &ctx->classes[class_id].by_direction[direction];
}
DATAPATH_INLINE const volatile __u32* platform_tags(platform_ctx ctx, __u32 slot) {
    return ctx->buckets[slot / FLOW_PROBES].tags.tag;
}
DATAPATH_INLINE void platform_tag_taken(platform_ctx ctx, __u32 slot, __u32 tag) {
    ctx->tag_at(slot) = tag;
}
// A free slot is asked for its entry only where a flow is put into it: that is when it gets one. None where
// the memory that the table may use is used up.
DATAPATH_INLINE struct flow_head* platform_flow(platform_ctx ctx, __u32 slot) {
    __u32& number = ctx->entry_at(slot);
    if (ctx->tag_at(slot) == FLOW_FREE) {
        if (UNLIKELY(ctx->entries_full())) return nullptr;
        number = ctx->take_entry();
    }
    return &ctx->heads[number];
}
DATAPATH_INLINE struct flow_counts* platform_counts(platform_ctx ctx, __u32 slot, struct flow_head*) {
    return &ctx->counts[ctx->entry_at(slot)];
}
DATAPATH_INLINE struct flow_outer* platform_outer(platform_ctx ctx, __u32 slot) {
    if (LIKELY(!ctx->any_outer && !ctx->tunnelled)) return nullptr;  // it is zero already
    ctx->any_outer = true;
    return &ctx->outers[ctx->entry_at(slot)];
}
DATAPATH_INLINE __u32 platform_slot_mask(platform_ctx ctx) {
    return ctx->slot_mask;
}
DATAPATH_INLINE __u64 platform_hash_seed(platform_ctx ctx) {
    return ctx->hash_seed;
}
DATAPATH_INLINE int platform_track_all(platform_ctx ctx) {
    return ctx->track_all ? 1 : 0;
}
DATAPATH_INLINE __u64 platform_now(platform_ctx ctx) {
    return ctx->now_ns;
}
DATAPATH_INLINE __u64 platform_now_coarse(platform_ctx ctx) {
    return ctx->now_ns;
}
DATAPATH_INLINE void platform_lose(platform_ctx ctx, __u32 reason, __u64 amount) {
    if (ctx->may_retry && !ctx->entries_full() &&
        (reason == LOSS_FLOWS_FULL || reason == LOSS_FLOWS_FULL_BYTES))
        ctx->wants_room = true;
    else
        ctx->losses[reason] += amount;
}
DATAPATH_INLINE void platform_event(platform_ctx ctx, __u32 kind, __u32, const struct flow_key*, __u64) {
    if (kind == EVENT_FLOW_VOLUME) ctx->reached_volume = true;
}
DATAPATH_INLINE struct walk_state* platform_walk_state(platform_ctx ctx) {
    return ctx->walk_scratch;
}
DATAPATH_INLINE struct section_state* platform_section(platform_ctx ctx) {
    return ctx->only_section;
}

}  // namespace egresswatch::datapath

#include "classifier/datapath/account.h"
#include "classifier/known_tuples.h"

namespace egresswatch {

// The hash by which a flow with this tag is looked for: its first position is in bits 0 to 29, its second in
// those from 20 on (datapath/flow.h), its tag is the tag. So a bucket says of all its flows where else they
// may lie, and a table that grows, or makes room, looks at no key. What the tag repeats of the first position
// tells flows of a bucket not apart: of 8 M slots ten bits of it do, of as many as there can be seven.
DATAPATH_INLINE std::uint64_t places_of(std::uint32_t tag) noexcept {
    const std::uint64_t told = tag >> 2;
    // Bits 30 to 33, so that the second position repeats none of its own.
    return told | (told >> 18 & 3) << 30 | (told >> 16 & 3) << 32 | told << 34;
}
static_assert(FlowTableConfig::slots_ceiling <= 1u << 26, "no position has more bits than that");
DATAPATH_INLINE std::uint64_t table_hash(const datapath::flow_key& key, std::uint64_t seed) noexcept {
    return places_of(datapath::flow_tag(datapath::flow_hash(&key, seed)));
}

constexpr std::uint32_t no_entry = KnownTuple::no_entry;

// What the flow table needs of a packet. 80 bytes: it may cross from one core to another.
struct ClassifiedPacket {
    enum class Kind : std::uint8_t {
        untracked,  // counted; only its time matters
        tracked,
        undecided,  // the next of `undecided`: not counted yet, for who sent first is known to the flow table
                    // only
        name_server  // untracked, and its payload is wanted
    };
    datapath::flow_key key;
    std::uint64_t hash;  // table_hash() of the key; where undecided: of the conversation
    std::uint64_t at_ns;
    std::uint32_t ip_bytes;
    std::uint32_t ifindex;
    std::uint8_t direction;
    std::uint8_t tcp_flags;
    Kind kind;
    bool tunnelled : 1;  // its addresses are the next of `outers`
    bool is_answer : 1;  // WALK_ANSWER
    // From the start of the frame. 0 bytes: none, or nobody wants it.
    std::uint16_t payload_offset;
    std::uint16_t payload_bytes;
    std::uint32_t place;  // of its tuple in the classifier's KnownTuples; no_place: it has none
};
static_assert(sizeof(ClassifiedPacket) == 80);

struct UndecidedPacket {
    datapath::packet_facts facts;
    datapath::packet_class found;  // walked
    std::uint32_t interface;
};

struct ClassifiedBatch::Content {
    std::unique_ptr<ClassifiedPacket[]> packets;
    std::size_t capacity = 0;
    std::size_t count = 0;
    std::vector<datapath::flow_outer> outers;
    std::vector<UndecidedPacket> undecided;
    // Of packets of unknown tuples: whether the last one went the long way, and what was found there.
    bool walked = false;
    datapath::packet_class last;

    void reserve(std::size_t packets_max) {
        if (capacity >= packets_max) return;
        packets = std::make_unique_for_overwrite<ClassifiedPacket[]>(packets_max);
        capacity = packets_max;
    }
};

// What `local_networks` say, made ready for one comparison a prefix.
class LocalNetworks {
public:
    explicit LocalNetworks(const std::vector<Prefix>& prefixes);
    struct Ends {
        bool source, destination;
    };
    // Every prefix is compared with both ends at once, whether one has matched or not: that is cheaper than a
    // branch which a CPU guesses wrong for every other packet, and one of the ends is in none of them anyway.
    [[nodiscard]] Ends contain(Halves source, Halves destination) const noexcept {
        const Halves first = __builtin_shufflevector(source, destination, 0, 2);
        const Halves second = __builtin_shufflevector(source, destination, 1, 3);
        // In lanes of 32 bits: not every CPU compares wider ones.
        using Quarters [[gnu::vector_size(16)]] = std::uint32_t;
        decltype(Quarters{} == 0) found{};
        for (const Masked& prefix : prefixes_) {
            const Halves differs = ((first & prefix.first_mask) ^ prefix.first_value) |
                                   ((second & prefix.second_mask) ^ prefix.second_value);
            const auto same = reinterpret_cast<Quarters>(differs) == 0;
            found |= same & __builtin_shufflevector(same, same, 1, 0, 3, 2);
        }
        return {found[0] != 0, found[2] != 0};
    }

private:
    // The halves of a prefix in the form of a flow_key, where an IPv4 prefix is one of ::ffff:0:0/96, each
    // twice: for the two ends.
    struct Masked {
        Halves first_mask, first_value, second_mask, second_value;
    };
    std::vector<Masked> prefixes_;
};

struct PacketClassifier::State : datapath::TablePlatform {
    explicit State(const ClassifierConfig& config);

    datapath::walk_state walk{};
    LocalNetworks networks;
    KnownTuples known;
};

// Walks the packets, counts those whose direction the addresses tell, and describes all of them in order.
void classify_packets(datapath::TablePlatform& platform, const LocalNetworks& networks, KnownTuples& known,
                      std::span<const PacketInput> packets, ClassifiedBatch::Content& content);

// Fills in what is known of a packet whose direction is.
void describe(datapath::TablePlatform& platform, const datapath::packet_facts& facts,
              const datapath::packet_class& found, ClassifiedPacket& out, datapath::flow_outer& outer);

}  // namespace egresswatch
