// classifier/flow_table.cpp - packets into flows. See flow_table_state.h for what lies where.
// SPDX-License-Identifier: Apache-2.0
#include "classifier/flow_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <utility>

#include "classifier/classify_step.h"
#include "classifier/flow_table_state.h"
#include "classifier/lanes.h"

namespace egresswatch {

using namespace datapath;

namespace {

Timestamp stamp_of(std::uint64_t ns) noexcept {
    return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(ns)));
}

// A bit for each slot of the bucket with this tag.
DATAPATH_INLINE unsigned tags_equal_to(const TableBucket& bucket, __u32 tag) {
    return lanes_equal_to(bucket.tags.tag, tag);
}
static_assert(FLOW_PROBES == 8);
// flow_add() takes these by direction.
static_assert(offsetof(flow_counts, packets_in) == offsetof(flow_counts, packets_out) + 16 &&
              offsetof(flow_counts, bytes_out) == offsetof(flow_counts, packets_out) + 8 &&
              offsetof(flow_counts, bytes_in) == offsetof(flow_counts, packets_in) + 8 &&
              offsetof(flow_head, tcp_flags_in) == offsetof(flow_head, tcp_flags_out) + 1);

PacketVerdict verdict_of(const packet_class& found) noexcept {
    PacketVerdict out{
        static_cast<outcome>(found.outcome), static_cast<direction>(found.direction), {}, found.ip_bytes};
    if (found.walk.status == WALK_IP) make_key(&found, &out.key);
    return out;
}

}  // namespace

// ------------------------------------------------------------------------------------------------ packets

// Of packets whose addresses do not tell the direction: who sent first does. Takes their place in the chunk.
void FlowTable::State::decide(std::span<const ClassifiedPacket*> chunk, const UndecidedPacket* next) {
    using Kind = ClassifiedPacket::Kind;
    decided.clear();
    decided.reserve(chunk_max);  // they stay where they are
    decided_outers.clear();
    for (const ClassifiedPacket* packet : chunk)
        if (packet->kind == Kind::undecided) first_senders.prefetch(packet->hash);
    for (const ClassifiedPacket*& packet : chunk) {
        if (packet->kind != Kind::undecided) continue;
        const UndecidedPacket& walked = *next++;
        packet_class found = walked.found;
        found.direction = first_senders.sent_first(packet->hash) ? DIRECTION_OUT : DIRECTION_IN;
        interface = walked.interface;
        if (interface >= interfaces.size()) interfaces.resize(interface + 1);
        count_walked(this, &walked.facts, &found);
        verdict = verdict_of(found);
        ClassifiedPacket& out = decided.emplace_back(*packet);
        flow_outer outer;
        describe(*this, walked.facts, found, out, outer);
        if (out.tunnelled) decided_outers.push_back(outer);
        packet = &out;
    }
}

// Whether a flow that is not in its first bucket may be in its second. It was put there because the first was
// full, and while no flow has ended that one still is.
[[gnu::always_inline]] inline bool FlowTable::State::may_be_elsewhere(std::uint64_t hash) const noexcept {
    if (section.spilled == 0) return false;
    if (any_freed) return true;
    const TableBucket& bucket = buckets[(hash & slot_mask) / FLOW_PROBES];
    return tags_equal_to(bucket, FLOW_FREE) == 0;
}

// The entry behind the first equal tag of the first bucket: nearly always the flow's.
[[gnu::always_inline]] inline std::uint32_t FlowTable::State::find_tag(std::uint64_t hash) const noexcept {
    const TableBucket& bucket = buckets[(hash & slot_mask) / FLOW_PROBES];
    const unsigned equal = tags_equal_to(bucket, flow_tag(hash));
    return equal != 0 ? bucket.entry[static_cast<std::size_t>(std::countr_zero(equal))] : no_entry;
}

// At the packet's place may stand another tuple by now, or that of another classifier.
inline void FlowTable::State::remember(const ClassifiedPacket& packet, std::uint32_t number) noexcept {
    if (packet.place == KnownTuples::no_place) return;
    KnownTuple& tuple = known[packet.place];
    if (tuple.hash != packet.hash || !flow_key_equal(&tuple.key, &packet.key)) return;
    tuple.entry = number;
    tuple.ends = ends % ends_max;
}

void FlowTable::State::prefetch(std::uint32_t number) const noexcept {
    __builtin_prefetch(&heads[number], 1);
    __builtin_prefetch(&counts[number], 1);
}

// Of a flow of one packet that gets another: what flow_create() would have written with the first.
void FlowTable::State::begin_counts(std::uint32_t number) noexcept {
    flow_head& head = heads[number];
    const direction way = single_direction(head);
    const flow_packet first = {1,
                               single_bytes(head),
                               head.ifindex,
                               static_cast<__u8>(way),
                               way == DIRECTION_OUT ? head.tcp_flags_out : head.tcp_flags_in,
                               0,
                               0};
    head.tag &= ~single_flow;
    head.handshake_rtt_us = 0;
    const __u64 now = std::exchange(now_ns, head.first_seen_ns);
    flow_begin(this, &head, &counts[number], &first);
    now_ns = now;
}

// Of eight and eight slots that are taken, one may hold a flow whose other bucket has room: it moves there.
bool FlowTable::State::make_room(std::uint64_t hash) {
    for (const std::uint32_t bucket : {bucket_at(hash), bucket_at(hash >> 20)}) {
        for (std::uint32_t slot = bucket; slot < bucket + FLOW_PROBES; ++slot) {
            const std::uint64_t its_hash = places_of(tag_at(slot));
            const bool is_first = bucket_at(its_hash) == bucket;
            const std::uint32_t other = bucket_at(is_first ? its_hash >> 20 : its_hash);
            for (std::uint32_t to = other; to < other + FLOW_PROBES; ++to) {
                if (tag_at(to) != FLOW_FREE) continue;
                move_flow(slot, to);
                section.spilled += is_first ? 1 : 0;
                return true;
            }
        }
    }
    return false;
}

// Nearly every flow: it was looked for and is nowhere, and there is room in its first bucket, or else in its
// second. What account_flow() comes to then.
[[gnu::always_inline]] inline std::uint32_t FlowTable::State::make_in_bucket(const ClassifiedPacket& packet,
                                                                             std::uint64_t position) {
    TableBucket& bucket = buckets[(position & slot_mask) / FLOW_PROBES];
    const unsigned room = tags_equal_to(bucket, FLOW_FREE);
    if (UNLIKELY(tunnelled) || UNLIKELY(any_outer) || UNLIKELY(room == 0) || UNLIKELY(entries_full()))
        return no_entry;
    // The first one from the hash position on, round to the bucket's start.
    const unsigned start = position % FLOW_PROBES;
    const unsigned turned = room >> start | room << (FLOW_PROBES - start);
    const std::uint32_t at = (start + static_cast<std::uint32_t>(std::countr_zero(turned))) % FLOW_PROBES;
    const std::uint32_t number = take_entry();
    const __u32 tag = flow_tag(packet.hash);
    const flow_packet counted = {
        1, packet.ip_bytes, packet.ifindex, packet.direction, packet.tcp_flags, packet.is_answer, 0};
    flow_head& head = heads[number];
    if (LIKELY(packet.ip_bytes <= single_bytes_max)) {
        flow_open(&head, &packet.key, &counted, packet.at_ns);
        head.handshake_rtt_us = single_word(packet.ip_bytes, packet.direction);
        head.tag = tag | single_flow;
    } else {
        flow_create(this, &head, &counts[number], &packet.key, tag, &counted);
    }
    bucket.tags.tag[at] = tag;
    bucket.entry[at] = number;
    return number;
}

// In its second bucket, or where room is made; no_entry where the limits leave none.
[[gnu::noinline]] std::uint32_t FlowTable::State::make_elsewhere(const ClassifiedPacket& packet) {
    if (UNLIKELY(tunnelled) || UNLIKELY(any_outer) || UNLIKELY(entries_full())) return make_anywhere(packet);
    for (;;) {
        std::uint32_t number = make_in_bucket(packet, packet.hash >> 20);
        section.spilled += number != no_entry ? 1 : 0;
        if (LIKELY(number != no_entry)) return number;
        if (!make_room(packet.hash) && !grow()) return make_anywhere(packet);
        number = make_in_bucket(packet, packet.hash);
        if (LIKELY(number != no_entry)) return number;
    }
}

// Makes the flow. The number of its entry, or no_entry.
[[gnu::always_inline]] inline std::uint32_t FlowTable::State::make(const ClassifiedPacket& packet) {
    if (may_grow && UNLIKELY(live * 8 >= (std::uint64_t{slot_mask} + 1) * 5)) grow();
    std::uint32_t number = make_in_bucket(packet, packet.hash);
    if (UNLIKELY(number == no_entry)) number = make_elsewhere(packet);
    if (UNLIKELY(number == no_entry)) return no_entry;
    ++live;
    made_in_order &= number + 1 == entries_used && packet.at_ns >= last_made_ns;
    last_made_ns = packet.at_ns;
    if (!wheel.empty()) schedule(number);
    return number;
}

// Tunnelled flows, whose carrier is written, too; and those that find no room: they are counted as lost.
std::uint32_t FlowTable::State::make_anywhere(const ClassifiedPacket& packet) {
    packet_facts facts{};
    facts.ifindex = packet.ifindex;
    packet_class& found = described;
    found.packets = 1;
    found.ip_bytes = packet.ip_bytes;
    found.direction = packet.direction;
    found.walk.l4_proto = packet.key.l4_proto;
    found.walk.tcp_flags = packet.tcp_flags;
    found.walk.levels = tunnelled ? 1 : 0;
    found.walk.flags = packet.is_answer ? WALK_ANSWER : 0;
    if (UNLIKELY(tunnelled)) {
        const bool leaves = packet.direction == DIRECTION_OUT;
        copy_address(found.walk.outer_src, leaves ? carrier->local_addr : carrier->remote_addr);
        copy_address(found.walk.outer_dst, leaves ? carrier->remote_addr : carrier->local_addr);
    }
    const std::uint64_t full_event_ns = section.full_event_ns;
    may_retry = true;
    // Nothing to be found behind a bucket with room: see may_be_elsewhere().
    const std::uint64_t spilled = any_freed ? 0 : std::exchange(section.spilled, 0);
    std::uint32_t slot = account_flow(this, &facts, &found, &packet.key, packet.hash);
    while (UNLIKELY(wants_room)) {
        section.full_event_ns = full_event_ns;
        wants_room = false;
        if (!make_room(packet.hash)) may_retry = grow();
        slot = account_flow(this, &facts, &found, &packet.key, packet.hash);
    }
    section.spilled += spilled;
    return slot == SLOT_NONE ? no_entry : entry_at(slot);
}

void FlowTable::State::note_known(std::uint32_t number) {
    note_moved(number);
    told[told_count] = counters_of(counts[number]);
    moved[moved_count++] = {number, told_count++};
}

[[gnu::always_inline]] inline void FlowTable::State::add(const ClassifiedPacket& packet,
                                                         std::uint32_t likely_entry, FlowSink& sink) {
    now_ns = packet.at_ns;
    reached_volume = false;
    std::uint32_t number = likely_entry;
    // Since it was looked for, a packet before it may have made the flow, or a tick may have ended it.
    if (number == no_entry) number = find_tag(packet.hash);
    if (number == no_entry ? may_be_elsewhere(packet.hash) : UNLIKELY(!is_flow(number, packet.key)))
        number = find(packet.key, packet.hash);
    if (LIKELY(number != no_entry)) {
        if (is_single(heads[number])) begin_counts(number);
        if (!has_moved(number)) note_known(number);
        const flow_packet counted = {
            1, packet.ip_bytes, packet.ifindex, packet.direction, packet.tcp_flags, 0, 0};
        reached_volume = flow_add(this, &heads[number], &counts[number], &counted, packet.at_ns) != 0;
    } else {
        number = make(packet);
        if (UNLIKELY(number == no_entry)) return;
        note_new(number);
    }
    if (likely_entry != number) remember(packet, number);
    if (UNLIKELY(wants_payload(packet, number))) offer_payload(packet, number);
    // Told at once, so that a bulk transfer is noticed at the packet that makes it one.
    if (UNLIKELY(reached_volume)) tell_volume(number, sink);
}

namespace {

// Of a TCP segment, whose header ends where its payload begins: its length is in it, and its ports.
std::uint32_t sequence_of(const ClassifiedPacket& packet, const PacketInput& input) noexcept {
    const bool leaves = packet.direction == DIRECTION_OUT;
    const std::uint16_t source = leaves ? packet.key.local_port : packet.key.remote_port;
    const std::uint16_t destination = leaves ? packet.key.remote_port : packet.key.local_port;
    constexpr std::uint32_t header_max = 60;
    for (std::uint32_t length = TCP_BYTES_MIN; length <= header_max && length <= packet.payload_offset;
         length += 4) {
        const std::uint8_t* header = input.bytes.data() + packet.payload_offset - length;
        if ((header[12] >> 4) * 4u == length && load16(header) == source && load16(header + 2) == destination)
            return host32(load32(header + 4));
    }
    return 0;
}

PayloadSample sample_of(const ClassifiedPacket& packet, const PacketInput& input) noexcept {
    PayloadSample out;
    out.key = packet.key;
    out.direction = static_cast<direction>(packet.direction);
    out.tcp_flags = packet.tcp_flags;
    if (packet.key.l4_proto == PROTO_TCP) out.tcp_sequence = sequence_of(packet, input);
    out.ip_bytes = packet.ip_bytes;
    out.ifindex = packet.ifindex;
    out.at = stamp_of(packet.at_ns);
    out.payload = input.bytes.subspan(packet.payload_offset, packet.payload_bytes);
    return out;
}

}  // namespace

// Of a flow that has no entry.
void FlowTable::State::offer_question(const ClassifiedPacket& packet) {
    if (payload_sink != nullptr) (void)payload_sink->on_payload(sample_of(packet, *input));
}

void FlowTable::State::find_payload_sink(FlowSink& sink) noexcept {
    if (!sample_payload || &sink == known_sink) return;
    known_sink = &sink;
    payload_sink = dynamic_cast<PayloadSink*>(&sink);
}

void FlowTable::State::offer_payload(const ClassifiedPacket& packet, std::uint32_t number) {
    if (payload_sink == nullptr) return;
    const std::uint64_t packets = counters(number).packets();
    const std::uint64_t packets_max =
        packet.key.l4_proto == PROTO_TCP ? sampled_packets_max : sampled_datagrams_max;
    bool more = packets <= packets_max || speaks_to_name_server(packet.key);
    if (more) {
        PayloadSample sample = sample_of(packet, *input);
        sample.tracked = true;
        sample.initiator = static_cast<initiator>(heads[number].initiator);
        more = payload_sink->on_payload(sample);
    }
    if (!more) heard_bits[number / 64] |= std::uint64_t{1} << number % 64;
}

// Where the flows of a chunk probably are; what is needed of them is fetched from memory meanwhile. Their
// first buckets are on their way already. Where flows are ever new most are not looked for here, but when
// their turn comes: only whether the first bucket is full, so that the second is on its way, too. Some are,
// so that it is noticed when old ones come.
std::array<std::uint32_t, chunk_max> FlowTable::State::look_ahead(
    std::span<const ClassifiedPacket* const> chunk) noexcept {
    using Kind = ClassifiedPacket::Kind;
    std::array<std::uint32_t, chunk_max> likely;  // of tracked packets
    if (chunk.empty()) return likely;
    static_assert(std::has_single_bit(asked_of_new));
    const std::size_t mask = none_found ? asked_of_new - 1 : 0;
    const std::size_t first = turn++ & mask;  // of the numbers of those that are looked for, masked
    none_found = chunk.size() == chunk_max;
    for (std::size_t i = 0; i < chunk.size(); ++i) {
        likely[i] = no_entry;
        if (chunk[i]->kind != Kind::tracked) continue;
        if ((i & mask) == first) likely[i] = find_tag(chunk[i]->hash);
        if (likely[i] != no_entry) {
            prefetch(likely[i]);
            none_found = false;
        } else if (UNLIKELY(may_be_elsewhere(chunk[i]->hash))) {
            prefetch_bucket(*this, chunk[i]->hash >> 20);
        }
    }
    return likely;
}

// A tick falls between the same two packets always.
[[gnu::always_inline]] inline void FlowTable::State::reach(std::uint64_t at_ns, FlowSink& sink) {
    if (UNLIKELY(at_ns >= next_tick_ns)) advance_to(at_ns, sink);
    now_max_ns = std::max(now_max_ns, at_ns);
}

// `carriers`: that of the next tunnelled packet of the kind that this one is of.
void FlowTable::State::take_one(const ClassifiedPacket& packet, const PacketInput& its_input,
                                std::uint32_t likely, const flow_outer*& carriers, FlowSink& sink) {
    using Kind = ClassifiedPacket::Kind;
    reach(packet.at_ns, sink);
    input = &its_input;
    if (packet.kind != Kind::tracked) {
        if (UNLIKELY(packet.kind == Kind::name_server)) offer_question(packet);
        return;
    }
    tunnelled = packet.tunnelled;
    if (UNLIKELY(tunnelled)) carrier = carriers++;
    add(packet, likely, sink);
}

void FlowTable::State::take(const ClassifiedBatch::Content& batch, std::span<const PacketInput> packets,
                            FlowSink& sink) {
    using Kind = ClassifiedPacket::Kind;
    find_payload_sink(sink);
    const UndecidedPacket* next_undecided = batch.undecided.data();
    const flow_outer* outer = batch.outers.data();
    std::array<const ClassifiedPacket*, chunk_max> chunk;
    for (std::size_t begin = 0; begin < batch.count; begin += chunk_max) {
        const std::size_t size = std::min(chunk_max, batch.count - begin);
        std::ptrdiff_t undecided = 0;
        for (std::size_t i = 0; i < size; ++i) {
            chunk[i] = &batch.packets[begin + i];
            undecided += chunk[i]->kind == Kind::undecided ? 1 : 0;
        }
        if (undecided != 0) decide(std::span(chunk).first(size), next_undecided);
        next_undecided += undecided;
        const flow_outer* decided_outer = decided_outers.data();
        for (const ClassifiedPacket* packet : std::span(chunk).first(size))
            if (packet->kind == Kind::tracked) prefetch_bucket(*this, packet->hash);
        const auto likely = look_ahead(std::span(chunk).first(size));
        for (std::size_t i = 0; i < size; ++i) {
            const bool was_undecided = batch.packets[begin + i].kind == Kind::undecided;
            take_one(*chunk[i], packets[begin + i], likely[i], was_undecided ? decided_outer : outer, sink);
        }
    }
}

// A flow has ended since the tuple's entry was found, or none was found yet: whether it is the flow's still.
bool FlowTable::State::is_entry_of(KnownTuple& tuple) const noexcept {
    const std::uint32_t number = tuple.entry;
    if (number >= entries_used || !is_flow(number, tuple.key)) return false;
    tuple.ends = ends % ends_max;
    return true;
}

// A packet whose tuple is known, and counted. Its flow is where the tuple says, or is looked for.
[[gnu::always_inline]] inline void FlowTable::State::add_known(const PacketInput& packet,
                                                               const ReadPacket& seen, FlowSink& sink) {
    reach(packet.at_ns, sink);
    KnownTuple& tuple = *seen.tuple;
    const std::uint32_t number = tuple.entry;
    const bool is_there = LIKELY(tuple.ends == ends) || is_entry_of(tuple);
    if (LIKELY(is_there) && UNLIKELY(is_single(heads[number]))) begin_counts(number);
    if (UNLIKELY(!is_there) || UNLIKELY(may_want_payload(tuple, number))) {
        if (number == KnownTuple::untracked) return;
        ClassifiedPacket whole;
        describe_known(packet, seen, known.place_of(tuple), sample_payload, whole);
        input = &packet;
        tunnelled = false;
        add(whole, is_there ? number : no_entry, sink);
        return;
    }
    now_ns = packet.at_ns;
    if (UNLIKELY(!has_moved(number))) note_known(number);
    const flow_packet counted = {
        1, seen.plain.ip_bytes, packet.ifindex, tuple.direction(), seen.plain.tcp_flags, 0, 0};
    if (UNLIKELY(flow_add(this, &heads[number], &counts[number], &counted, packet.at_ns) != 0))
        tell_volume(number, sink);
}

// Whether one of these packets of the chunk has this tuple.
static bool is_tuple_of(std::span<const ReadPacket> chunk, std::uint32_t packets, const KnownTuple* tuple) {
    for (; packets != 0; packets &= packets - 1)
        if (chunk[static_cast<std::size_t>(std::countr_zero(packets))].tuple == tuple) return true;
    return false;
}

// The first half for a chunk: counts packets of known tuples, classifies the others into own_batch. Returns a
// bit for each that is known.
std::uint32_t FlowTable::State::classify_chunk(std::span<const PacketInput> packets,
                                               std::span<const ReadPacket> chunk, InterfaceTally& tally) {
    ClassifiedBatch::Content& content = *own_batch.content_;
    content.count = 0;
    content.outers.clear();
    content.undecided.clear();
    std::uint32_t known_bits = 0;
    static_assert(chunk_max == 32);
    for (std::size_t i = 0; i < packets.size(); ++i) {
        const ReadPacket& seen = chunk[i];
        const KnownTuple* tuple = seen.tuple;
        tally.at(packets[i].interface);
        if (LIKELY(tuple != nullptr) && LIKELY(tuple->is_of(seen.plain, seen.word))) {
            known_bits |= 1u << i;
            count_known(*this, tally, *tuple, 1, seen.plain.ip_bytes, packets[i].wire_bytes);
            if (LIKELY(tuple->entry < entries_used))
                prefetch(tuple->entry);
            else
                prefetch_bucket(*this, tuple->hash);
            continue;
        }
        // A known tuple stays where it is until the chunk is done with it.
        const bool taken = is_tuple_of(chunk, known_bits, tuple);
        take_unknown(*this, networks, tally, packets[i], seen, known, taken, content,
                     content.packets[content.count++]);
    }
    none_known = known_bits == 0 && packets.size() == chunk_max;
    return known_bits;
}

// Returns a bit for each packet whose tuple was known.
std::uint32_t FlowTable::State::account_chunk(std::span<const PacketInput> packets,
                                              std::span<const ReadPacket> chunk, InterfaceTally& tally,
                                              FlowSink& sink) {
    using Kind = ClassifiedPacket::Kind;
    const std::uint32_t known_bits = classify_chunk(packets, chunk, tally);
    const ClassifiedBatch::Content& content = *own_batch.content_;
    std::array<const ClassifiedPacket*, chunk_max> others;
    for (std::size_t i = 0; i < content.count; ++i) others[i] = &content.packets[i];
    if (UNLIKELY(!content.undecided.empty()))
        decide(std::span(others).first(content.count), content.undecided.data());
    const auto likely = look_ahead(std::span(others).first(content.count));
    const flow_outer* outer = content.outers.data();
    const flow_outer* decided_outer = decided_outers.data();
    std::size_t other = 0;
    for (std::size_t i = 0; i < packets.size(); ++i) {
        if (LIKELY((known_bits >> i & 1) != 0)) {
            add_known(packets[i], chunk[i], sink);
            continue;
        }
        const bool was_undecided = content.packets[other].kind == Kind::undecided;
        take_one(*others[other], packets[i], likely[other], was_undecided ? decided_outer : outer, sink);
        ++other;
    }
    return known_bits;
}

// Of the last packet of a chunk that is done with.
void FlowTable::State::note_verdict(const ReadPacket& seen, bool is_known) {
    if (is_known) {
        const KnownTuple& tuple = *seen.tuple;
        verdict = {static_cast<outcome>(tuple.outcome()), static_cast<direction>(tuple.direction()),
                   tuple.key, seen.plain.ip_bytes};
        return;
    }
    const ClassifiedBatch::Content& content = *own_batch.content_;
    const ClassifiedPacket& packet = content.packets[content.count - 1];
    if (packet.kind == ClassifiedPacket::Kind::undecided) return;  // decide() has noted it
    if (content.walked)
        verdict = verdict_of(content.last);
    else
        verdict = {static_cast<outcome>(region_kind_of(region, region_cells, packet.key.class_id)),
                   static_cast<direction>(packet.direction), packet.key, packet.ip_bytes};
}

void FlowTable::account(std::span<const PacketInput> packets, FlowSink& sink,
                        std::span<const std::uint8_t> coming) {
    State& s = *state_;
    s.find_payload_sink(sink);
    s.own_batch.content_->reserve(chunk_max);
    if (UNLIKELY(s.ends == State::ends_max)) {
        s.known.forget();
        s.ends = 1;
    }
    InterfaceTally tally(s);
    FetchAhead fetch(coming, packets.size());
    std::array<ReadPacket, chunk_max> chunk;
    for (std::size_t begin = 0; begin < packets.size();) {
        if (s.repeats_wait == 0) {
            begin += s.account_repeats(packets.subspan(begin), tally, fetch);
            if (begin == packets.size()) break;
        } else {
            --s.repeats_wait;
        }
        // Where tuples are ever new, most are not worth asking for, nor keeping: some are, so that it is
        // noticed when they come again.
        const std::size_t size =
            UNLIKELY(s.none_known)
                ? read_chunk<State::asked_of_new>(packets, begin, s.known, s.turn, fetch, chunk)
                : read_chunk<1>(packets, begin, s.known, 0, fetch, chunk);
        const std::uint32_t known_bits =
            s.account_chunk(packets.subspan(begin, size), std::span(chunk).first(size), tally, sink);
        if (begin + size == packets.size())
            s.note_verdict(chunk[size - 1], (known_bits >> (size - 1) & 1) != 0);
        begin += size;
    }
}

void FlowTable::account_classified(const ClassifiedBatch& batch, std::span<const PacketInput> packets,
                                   FlowSink& sink) {
    state_->take(*batch.content_, packets, sink);
}

PacketClassifier FlowTable::classifier() const {
    PacketClassifier out({state_->config.local_networks, state_->config.track_all, state_->config.hash_seed,
                          state_->config.direction_by_region, state_->config.sample_payload});
    out.state_->region = state_->region;
    out.state_->region_cells = state_->region_cells;
    return out;
}

void FlowTable::absorb(PacketClassifier classifier) {
    State& s = *state_;
    const TablePlatform& other = *classifier.state_;
    const auto add = [](std::uint64_t* to, const std::uint64_t* from, std::size_t bytes) {
        for (std::size_t i = 0; i < bytes / sizeof *to; ++i) to[i] += from[i];
    };
    // These structs are nothing but 64-bit counters (layout.h asserts their sizes).
    add(reinterpret_cast<std::uint64_t*>(s.classes.data()),
        reinterpret_cast<const std::uint64_t*>(other.classes.data()),
        CLASSES_MAX * sizeof(datapath::class_totals));
    if (other.interfaces.size() > s.interfaces.size()) s.interfaces.resize(other.interfaces.size());
    add(reinterpret_cast<std::uint64_t*>(s.interfaces.data()),
        reinterpret_cast<const std::uint64_t*>(other.interfaces.data()),
        other.interfaces.size() * sizeof(datapath::iface_totals));
    for (std::size_t i = 0; i < s.losses.size(); ++i) s.losses[i] += other.losses[i];
}

// ------------------------------------------------------------------------------------------------ interface

FlowTable::FlowTable(FlowTableConfig config) : state_(std::make_unique<State>(std::move(config))) {}
FlowTable::FlowTable(FlowTable&&) noexcept = default;
FlowTable& FlowTable::operator=(FlowTable&&) noexcept = default;
FlowTable::~FlowTable() = default;

void FlowTable::install_region(std::span<const std::byte> block) noexcept {
    state_->region = reinterpret_cast<const __u16*>(block.data());
    state_->region_cells = static_cast<__u32>(block.size() / sizeof(__u16));
    state_->known.forget();
}

// The general way: every equal tag of both buckets.
std::uint32_t FlowTable::State::find(const flow_key& key, std::uint64_t hash) const noexcept {
    const __u32 tag = flow_tag(hash);
    for (const std::uint64_t position : {hash, hash >> 20}) {
        const TableBucket& bucket = buckets[(position & slot_mask) / FLOW_PROBES];
        for (unsigned equal = tags_equal_to(bucket, tag); equal != 0; equal &= equal - 1) {
            const std::uint32_t number = bucket.entry[static_cast<std::size_t>(std::countr_zero(equal))];
            if (flow_key_equal(&heads[number].key, &key)) return number;
        }
    }
    return no_entry;
}

void FlowTable::notify_at(const flow_key& key, std::uint64_t bytes_out) noexcept {
    State& s = *state_;
    std::uint32_t number = no_entry;
    // The key of an update that the sink has now: its place says which flow it is.
    const auto* first = reinterpret_cast<const std::byte*>(s.updates.data());
    const auto* given = reinterpret_cast<const std::byte*>(&key);
    if (std::less_equal<>()(first, given) &&
        std::less<>()(given, first + s.updates_count * sizeof(FlowUpdate)))
        number = s.update_entries[static_cast<std::size_t>(given - first) / sizeof(FlowUpdate)];
    else
        number = s.find(key, table_hash(key, s.hash_seed));
    if (number == no_entry) return;
    if (is_single(s.heads[number])) {
        if (bytes_out >= VOLUME_EVENT_MIN) return;  // an earlier one is due
        s.begin_counts(number);
    }
    __u64& due = s.counts[number].notify_bytes_out;
    due = std::min<__u64>(due, bytes_out);
}

std::span<const datapath::class_totals> FlowTable::class_totals() const noexcept {
    return {state_->classes.data(), state_->classes.size()};
}
std::span<const iface_totals> FlowTable::interface_totals() const noexcept {
    return state_->interfaces;
}
std::span<const std::uint64_t> FlowTable::losses() const noexcept {
    return {reinterpret_cast<const std::uint64_t*>(state_->losses.data()), state_->losses.size()};
}
std::uint64_t FlowTable::slots() const noexcept {
    return std::uint64_t{state_->slot_mask} + 1;
}
std::optional<flow_entry> FlowTable::entry_in(std::uint32_t slot) const noexcept {
    if (state_->tag_at(slot) == FLOW_FREE) return std::nullopt;
    const std::uint32_t number = state_->entry_at(slot);
    if (is_single(state_->heads[number])) state_->begin_counts(number);
    return flow_entry{state_->heads[number], state_->counts[number]};
}
const flow_outer* FlowTable::outer_in(std::uint32_t slot) const noexcept {
    return state_->tag_at(slot) == FLOW_FREE ? nullptr : &state_->outers[state_->entry_at(slot)];
}
std::uint64_t FlowTable::live() const noexcept {
    return state_->live;
}
std::uint64_t FlowTable::flows_max() const noexcept {
    return state_->flows_max;
}
std::uint64_t FlowTable::directions_forgotten() const noexcept {
    return state_->first_senders.forgotten();
}
Timestamp FlowTable::now() const noexcept {
    return stamp_of(state_->now_max_ns);
}
PacketVerdict FlowTable::last_verdict() const noexcept {
    return state_->verdict;
}

}  // namespace egresswatch
