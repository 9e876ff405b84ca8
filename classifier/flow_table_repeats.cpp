// classifier/flow_table_repeats.cpp - packets of tuples that come again and again, counted as sums.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "classifier/flow_table_state.h"

namespace egresswatch {

using namespace datapath;

// False: the tuple's next packet may do more than add to its flow. True: its flow has moved since the last
// tick, which holds for the packet whatever way it goes.
bool FlowTable::State::begin_sum(KnownTuple& tuple, TupleSum& sum) {
    sum = {bytes_unlimited, 0, 0, 0, 0, 0};
    const std::uint32_t number = tuple.entry;
    if (number == KnownTuple::untracked) return true;
    if ((tuple.ends != ends && !is_entry_of(tuple)) || is_single(heads[number]) ||
        may_want_payload(tuple, number))
        return false;
    const flow_counts& before = counts[number];
    if (before.bytes_out >= before.notify_bytes_out) return false;
    if (!has_moved(number)) note_known(number);
    sum.telling_flags = TCP_SYN;
    if (tuple.direction() == DIRECTION_OUT)
        sum.bytes_left = before.notify_bytes_out - before.bytes_out;
    else if (before.handshake_in_ns == 0)
        sum.telling_flags |= TCP_ACK;
    return true;
}

// As one packet that stands for all of them: the way of the kernel with segments put together.
void FlowTable::State::settle_sum(const KnownTuple& tuple, TupleSum& sum, InterfaceTally& tally) {
    const std::uint32_t number = tuple.entry;
    const bool is_tracked = number != KnownTuple::untracked;
    const bool is_limited = is_tracked && tuple.direction() == DIRECTION_OUT;
    const std::uint64_t left_before =
        is_limited ? counts[number].notify_bytes_out - counts[number].bytes_out : bytes_unlimited;
    const flow_packet all = {
        sum.packets, left_before - sum.bytes_left, 0, tuple.direction(), sum.tcp_flags, 0, 0};
    count_known(*this, tally, tuple, all.packets, all.ip_bytes, sum.frame_bytes);
    if (is_tracked) (void)flow_add(this, &heads[number], &counts[number], &all, sum.last_ns);
    sum.packets = 0;
}

// Counts packets as long as each only adds to a flow that is known: no tick, no volume to tell, no payload
// that is wanted, one interface. Returns their number: the next one needs the general way, or too many tuples
// have come. Nobody looks meanwhile, so that it makes no difference in which order flows are added to.
std::size_t FlowTable::State::account_repeats(std::span<const PacketInput> packets, InterfaceTally& tally,
                                              FetchAhead& fetch) {
    const std::uint32_t its_interface = packets[0].interface;
    // Two tuples of one flow and direction, which would not know of each other's bytes, differ in this.
    const std::uint8_t given = packets[0].direction;
    tally.at(its_interface);
    std::array<std::uint32_t, sums_max> begun;
    std::size_t begun_count = 0;
    std::uint64_t latest_ns = now_max_ns;
    std::size_t done = 0;
    ReadPacket seen;
    for (; done < packets.size(); ++done) {
        const PacketInput& packet = packets[done];
        fetch.next();
        prefetch_header(packets, done + headers_ahead);
        if (UNLIKELY(packet.at_ns >= next_tick_ns) || UNLIKELY(packet.interface != its_interface) ||
            UNLIKELY(packet.direction != given))
            break;
        read_packet(packet, known, true, seen);
        if (UNLIKELY(seen.tuple == nullptr) || UNLIKELY(!seen.tuple->is_of(seen.plain, seen.word))) break;
        const std::uint32_t place = known.place_of(*seen.tuple);
        TupleSum& sum = sums[place];
        if (UNLIKELY(sum.packets == 0)) {
            if (begun_count == sums_max || !begin_sum(*seen.tuple, sum)) break;
            begun[begun_count++] = place;
        }
        if (UNLIKELY(seen.plain.ip_bytes >= sum.bytes_left) ||
            UNLIKELY((seen.plain.tcp_flags & sum.telling_flags) != 0))
            break;
        sum.bytes_left -= seen.plain.ip_bytes;
        sum.frame_bytes += packet.wire_bytes;
        sum.last_ns = std::max(sum.last_ns, packet.at_ns);
        sum.packets += 1;
        sum.tcp_flags |= seen.plain.tcp_flags;
        latest_ns = std::max(latest_ns, packet.at_ns);
    }
    for (std::size_t i = 0; i < begun_count; ++i) {
        TupleSum& sum = sums[begun[i]];
        if (LIKELY(sum.packets != 0)) settle_sum(known[begun[i]], sum, tally);
    }
    now_max_ns = latest_ns;
    const bool is_all = done == packets.size();
    if (is_all) note_verdict(seen, true);
    const bool pays = (is_all || done >= repeats_min) && done >= 2 * begun_count;
    repeats_wait = pays ? 0 : repeats_pause;
    return done;
}

}  // namespace egresswatch
