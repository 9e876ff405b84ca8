// classifier/classify_step.h - what is done with each packet before the order of packets matters. Internal to
// classifier/: packet_classifier.cpp and flow_table.cpp go through these steps, each in its own loop.
// SPDX-License-Identifier: Apache-2.0
//
// Read it (read_packet), look at what is known of its tuple, then count it by that (count_known) or find out
// (take_unknown). Packets are read a chunk ahead, so that the lines that they need come from memory side by
// side.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "classifier/table_platform.h"

namespace egresswatch {

// Packets whose lines are fetched from memory side by side: enough to hide a miss behind the others' work,
// few enough that what was fetched is still in the first-level cache when it is used.
constexpr std::size_t chunk_max = 32;
constexpr std::size_t headers_ahead = 8;  // packets whose headers are fetched meanwhile

// What the packets of a batch add to an interface's totals, one addition a packet and sum: in user space
// nothing is segmented, so that what was given, what was seen and the sum of the outcomes are the same.
class InterfaceTally {
public:
    explicit InterfaceTally(datapath::TablePlatform& platform) : platform_(platform) {}
    ~InterfaceTally() { settle(); }
    InterfaceTally(const InterfaceTally&) = delete;
    InterfaceTally& operator=(const InterfaceTally&) = delete;

    void at(std::uint32_t interface) {
        if (LIKELY(interface == interface_)) return;
        settle();
        interface_ = interface;
        if (interface >= platform_.interfaces.size()) platform_.interfaces.resize(interface + 1);
    }
    // `sum` as of sum_of().
    void add(std::uint8_t sum, std::uint64_t packets, std::uint64_t wire_bytes) noexcept {
        outcomes_[sum].packets += packets;
        outcomes_[sum].bytes += wire_bytes;
    }

private:
    void settle() noexcept {
        for (std::size_t direction = 0; direction < datapath::DIRECTION_COUNT; ++direction) {
            datapath::iface_direction& totals = platform_.interfaces[interface_].by_direction[direction];
            for (std::size_t outcome = 0; outcome < datapath::OUTCOME_COUNT; ++outcome) {
                const datapath::traffic& sum = outcomes_[direction << outcome_bits | outcome];
                for (datapath::traffic* total : {&totals.as_given, &totals.seen, &totals.outcome[outcome]}) {
                    total->packets += sum.packets;
                    total->bytes += sum.bytes;
                }
            }
        }
        outcomes_ = {};
    }

    datapath::TablePlatform& platform_;
    std::uint32_t interface_ = 0;
    std::array<datapath::traffic, datapath::DIRECTION_COUNT << outcome_bits> outcomes_{};
};

struct ReadPacket {
    PlainPacket plain;
    std::uint64_t word;  // of the tuple, see KnownTuples
    KnownTuple* tuple;   // where it may be known; null: it is not asked for
    bool is_plain;       // else nothing of the above is known
};

// Bytes that the caller reads next, fetched from memory evenly over the packets of a batch: a core fetches so
// many lines at a time only, and later it would wait for them. Where packets are longer than what is read of
// them no place can be guessed, and nothing is fetched.
class FetchAhead {
public:
    static constexpr std::size_t line_bytes = 64, lines_a_packet = 2;

    FetchAhead(std::span<const std::uint8_t> coming, std::size_t packets) {
        const std::size_t step = coming.size() / std::max<std::size_t>(packets, 1);
        if (step == 0 || step > lines_a_packet * line_bytes) return;
        at_ = reinterpret_cast<std::uintptr_t>(coming.data());
        step_ = step;
    }
    // Into the second-level cache: a batch is more than the first one holds.
    void next() noexcept {
        for (std::size_t line = 0; line < lines_a_packet; ++line)
            __builtin_prefetch(reinterpret_cast<const void*>(at_ + line * line_bytes), 0, 2);
        at_ += step_;
    }

private:
    // Else lines that are there always: asked for memory that is not mapped, a CPU looks for it each time.
    alignas(line_bytes) static constexpr std::array<std::uint8_t, lines_a_packet * line_bytes> nowhere{};
    std::uintptr_t at_ = reinterpret_cast<std::uintptr_t>(nowhere.data());
    std::size_t step_ = 0;
};

// Numbers, not pointers: a packet without bytes has none.
DATAPATH_INLINE void prefetch_header(std::span<const PacketInput> packets, std::size_t index) {
    const auto header =
        reinterpret_cast<std::uintptr_t>(packets[std::min(index, packets.size() - 1)].bytes.data());
    __builtin_prefetch(reinterpret_cast<const void*>(header));
    __builtin_prefetch(reinterpret_cast<const void*>(header + 63));
}

// Has what may be known of its tuple fetched from memory, unless it is not `asked` for.
DATAPATH_INLINE void read_packet(const PacketInput& packet, KnownTuples& known, bool asked, ReadPacket& out) {
    out.tuple = nullptr;
    out.is_plain = LIKELY(packet.link.offset == 0) && LIKELY(packet.link.start == LinkStart::ethernet) &&
                   LIKELY(read_plain(packet.bytes.data(), static_cast<std::uint32_t>(packet.bytes.size()),
                                     packet.wire_bytes, out.plain));
    if (UNLIKELY(!out.is_plain) || UNLIKELY(!asked)) return;
    out.word = known.word(out.plain, packet.direction);
    out.tuple = &known.find(out.plain, out.word);
    __builtin_prefetch(out.tuple, 1);
}

// Reads the packets from `begin` on, as many as a chunk takes, and asks for the tuple of every
// `asked_every`th: which of these, `turn` says. Returns their number.
template <std::size_t asked_every>
DATAPATH_INLINE std::size_t read_chunk(std::span<const PacketInput> packets, std::size_t begin,
                                       KnownTuples& known, std::size_t turn, FetchAhead& coming,
                                       std::array<ReadPacket, chunk_max>& out) {
    const std::size_t size = std::min(chunk_max, packets.size() - begin);
    for (std::size_t i = 0; i < size; ++i) {
        coming.next();
        prefetch_header(packets, begin + i + headers_ahead);
        read_packet(packets[begin + i], known, (i + turn) % asked_every == 0, out[i]);
    }
    return size;
}

DATAPATH_INLINE void count_known(datapath::TablePlatform& platform, InterfaceTally& tally,
                                 const KnownTuple& tuple, std::uint64_t packets, std::uint64_t ip_bytes,
                                 std::uint64_t frame_bytes) {
    datapath::class_traffic& total = platform.classes[tuple.key.class_id].by_direction[tuple.direction()];
    total.packets += packets;
    total.ip_bytes += ip_bytes;
    total.frame_bytes += frame_bytes;
    tally.add(tuple.sum, packets, frame_bytes);
}

// Of TCP or UDP; `ip_end` and `offset` from the start of the frame.
DATAPATH_INLINE void locate_payload(std::uint32_t captured_bytes, std::uint32_t ip_end, std::uint32_t offset,
                                    ClassifiedPacket& out) {
    constexpr std::uint32_t offset_max = 0xffff;
    const std::uint32_t end = std::min(captured_bytes, ip_end);
    const std::uint32_t bytes = std::min(end - std::min(end, offset), offset_max);
    out.payload_offset = static_cast<std::uint16_t>(offset);
    const bool is_there = (offset != 0) & (offset <= offset_max);
    out.payload_bytes = static_cast<std::uint16_t>(is_there ? bytes : 0);
}

// `place`: of the tuple.
DATAPATH_INLINE void describe_known(const PacketInput& packet, const ReadPacket& seen, std::uint32_t place,
                                    bool sample_payload, ClassifiedPacket& out) {
    const KnownTuple& tuple = *seen.tuple;
    out.key = tuple.key;
    out.hash = tuple.hash;
    out.at_ns = packet.at_ns;
    out.ip_bytes = seen.plain.ip_bytes;
    out.ifindex = packet.ifindex;
    out.direction = tuple.direction();
    out.tcp_flags = seen.plain.tcp_flags;
    out.kind = tuple.entry == KnownTuple::untracked ? ClassifiedPacket::Kind::untracked
                                                    : ClassifiedPacket::Kind::tracked;
    out.tunnelled = false;
    out.is_answer = false;
    out.payload_bytes = 0;
    out.place = place;
    if (sample_payload)
        locate_payload(static_cast<std::uint32_t>(packet.bytes.size()),
                       seen.plain.ip_offset + seen.plain.ip_bytes,
                       payload_offset_of(packet.bytes.data(), seen.plain), out);
}

// Of a packet whose tuple is not known, counting included. What is found out of a plain packet's tuple is
// kept in the tuple's place, unless that is `taken` or it was not asked for.
void take_unknown(datapath::TablePlatform& platform, const LocalNetworks& networks, InterfaceTally& tally,
                  const PacketInput& packet, const ReadPacket& seen, KnownTuples& known, bool taken,
                  ClassifiedBatch::Content& content, ClassifiedPacket& out);
}  // namespace egresswatch
