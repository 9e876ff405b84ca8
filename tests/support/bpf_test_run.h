// tests/support/bpf_test_run.h - packets through the real tc programs by BPF_PROG_TEST_RUN, and what they
// counted.
//
// Needs root. No interface, no pins: nothing stays behind. libbpf stays inside, so that a test may include
// pcap.h. Packets begin with their Ethernet header (the kernel takes tc test packets so); for a capture of
// bare IP put one in front, for the user-space side too. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "capture/engine.h"
#include "classifier/datapath/layout.h"
#include "classifier/datapath/sample.h"
#include "classifier/datapath/sender.h"

namespace egresswatch::test {

class BpfTestRun {
public:
    struct Options {
        std::uint32_t flow_slots = 4096;  // a power of two; the table of one CPU, which all packets run on
        std::uint64_t hash_seed = 42;
        bool track_all = false;
        bool samples = false;           // of payload, into a ring that nobody reads
        bool senders = false;           // with the program that says who sends: whoever calls run()
        bool clock_from_packet = true;  // Packet::at_ns is the clock, Packet::wire_bytes the length
    };
    struct Packet {
        std::span<const std::uint8_t> bytes;
        std::uint32_t wire_bytes = 0;  // where a capture cut the packet; 0: bytes.size(). At most 65,536
        std::uint64_t at_ns = 0;
        std::uint16_t gso_segments = 0;
        std::uint16_t gso_bytes = 0;
        datapath::direction direction = datapath::DIRECTION_OUT;
    };
    // The kernel takes packets of 14 to about 3,500 bytes; cut longer ones here and give their wire_bytes.
    // Since Linux 6.17 it refuses (EINVAL) a frame whose EtherType says IPv4 or IPv6 and that ends before
    // that header does (34 and 54 bytes).
    static constexpr std::size_t PACKET_BYTES_MIN = 14, PACKET_BYTES_MAX = 3400;
    static constexpr std::uint32_t IFINDEX = 1;  // what flow_entry::ifindex will say: the loopback

    // `block`: a region block (RegionTable::block()).
    [[nodiscard]] static std::expected<BpfTestRun, capture::OsError> open(const Options& options,
                                                                          std::span<const std::byte> block);
    BpfTestRun(BpfTestRun&&) noexcept;
    BpfTestRun& operator=(BpfTestRun&&) noexcept;
    ~BpfTestRun();

    [[nodiscard]] std::expected<void, capture::OsError> run(const Packet& packet);
    // The same packet `repeat` times in the kernel. Returns the mean ns of a run, as the kernel measured it.
    [[nodiscard]] std::expected<double, capture::OsError> run_repeated(const Packet& packet,
                                                                       std::uint32_t repeat);
    [[nodiscard]] std::expected<bool, capture::OsError> install_block(std::span<const std::byte> block);

    [[nodiscard]] std::span<datapath::flow_entry> table() const;
    [[nodiscard]] std::span<const datapath::flow_outer> outers() const;
    [[nodiscard]] std::span<const datapath::flow_sender> senders() const;
    [[nodiscard]] datapath::class_totals class_totals(std::uint32_t class_id) const;
    [[nodiscard]] datapath::iface_totals iface_totals() const;
    [[nodiscard]] std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses() const;
    [[nodiscard]] datapath::sampler sampler() const;  // counters of samples
    [[nodiscard]] std::vector<datapath::flow_event> take_events();

    struct Facts {
        std::string program;
        std::uint32_t instructions, verified_instructions, native_bytes;
    };
    [[nodiscard]] std::vector<Facts> facts() const;
    [[nodiscard]] int program_fd(datapath::direction direction, bool layer2) const;

private:
    struct State;
    explicit BpfTestRun(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::test
