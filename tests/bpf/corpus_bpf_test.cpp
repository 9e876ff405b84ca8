// tests/bpf/corpus_bpf_test.cpp - every capture of the corpus through the tc programs and through user space:
// the same flow table, totals and losses, byte for byte.
//
// The kernel takes Ethernet frames: a capture of another link type gets an Ethernet header in place of its
// own, for both sides. What the kernel does not take at all (see bpf_test_run.h) is left out of both, and
// counted. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "capture/pcap/file_reader.h"
#include "classifier/flow_table.h"
#include "classifier/link_type.h"
#include "tests/support/bpf_test_run.h"
#include "tests/support/catch.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;
namespace fs = std::filesystem;

constexpr std::uint16_t ether_type_experimental = 0x88b5;  // IEEE 802 local experimental: nothing we walk
constexpr std::uint16_t ether_type_ppp = 0x880b;
constexpr std::uint32_t wire_bytes_max = 65536;
constexpr std::size_t events_drain_every = 256;

struct NullSink final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
};

struct EthernetFrame {
    std::vector<std::uint8_t> bytes;
    std::uint32_t wire_bytes = 0;
};

EthernetFrame as_ethernet(const capture::PacketRecord& record) {
    const LinkPlace place = locate_link(record.link_type, record.bytes);
    EthernetFrame frame;
    if (place.start != LinkStart::ethernet) {
        std::uint16_t type = ether_type_experimental;
        const auto payload = record.bytes.subspan(place.offset);
        if (place.start == LinkStart::ether_type) type = place.ether_type;
        if (place.start == LinkStart::ppp) type = ether_type_ppp;
        if (place.start == LinkStart::ip) type = !payload.empty() && payload[0] >> 4 == 6 ? 0x86dd : 0x0800;
        frame.bytes.assign(14, 0x02);
        frame.bytes[12] = static_cast<std::uint8_t>(type >> 8);
        frame.bytes[13] = static_cast<std::uint8_t>(type);
    }
    const auto rest = record.bytes.subspan(place.offset);
    frame.bytes.insert(frame.bytes.end(), rest.begin(), rest.end());
    frame.wire_bytes =
        std::min(static_cast<std::uint32_t>(frame.bytes.size() - record.bytes.size() + record.wire_bytes),
                 wire_bytes_max);
    frame.bytes.resize(
        std::min({frame.bytes.size(), BpfTestRun::PACKET_BYTES_MAX, std::size_t{frame.wire_bytes}}));
    return frame;
}

// Countries by first byte, so that captures of any addresses meet every kind.
std::shared_ptr<const RegionTable> patchwork() {
    constexpr std::array countries{"IE", "US", "CN", "DE", "SG", "NO"};
    std::string lines;
    for (std::size_t byte = 1; byte < 224; ++byte)
        if (byte % 7 != 0)  // every seventh is in no record: unknown
            lines += std::to_string(byte) + ".0.0.0/8 " + countries[byte % countries.size()] + "\n";
    lines += "2001::/16 IE\n2400::/8 CN\n2600::/8 US\n2a00::/8 DE\n";
    return make_region(lines);
}

// The kernel and user space side by side.
class Both {
public:
    explicit Both(std::uint32_t slots)
        : region_(patchwork()),
          directions_({.track_all = true}),
          table_({.slots_start = slots, .slots_max = slots, .track_all = true, .hash_seed = 42}) {
        auto opened = BpfTestRun::open({.flow_slots = slots, .track_all = true}, region_->block());
        if (!opened) FAIL(opened.error().to_string());
        kernel_.emplace(std::move(*opened));
        table_.install_region(region_->block());
    }

    void feed(const fs::path& path) {
        auto reader = capture::FileReader::open(path.string());
        if (!reader) return;
        for (;;) {
            const auto batch = reader->next_batch();
            if (!batch || batch->empty()) return;
            for (const auto& record : *batch) packet(record);
        }
    }
    [[nodiscard]] bool equal() const {
        const auto theirs = kernel_->table();
        const auto outers = kernel_->outers();
        if (theirs.size() != table_.slots()) return false;
        const datapath::flow_entry nothing{};
        for (std::uint32_t slot = 0; slot < theirs.size(); ++slot) {
            const auto* ours = table_.entry_in(slot);
            if (std::memcmp(&theirs[slot], ours != nullptr ? ours : &nothing, sizeof nothing) != 0)
                return false;
            if (ours != nullptr &&
                std::memcmp(&outers[slot], table_.outer_in(slot), sizeof(datapath::flow_outer)) != 0)
                return false;
        }
        for (std::uint32_t id = 0; id < region_->class_count(); ++id) {
            const auto totals = kernel_->class_totals(id);
            if (std::memcmp(&totals, &table_.class_totals()[id], sizeof totals) != 0) return false;
        }
        const auto interface = kernel_->iface_totals();
        if (std::memcmp(&interface, &table_.interface_totals()[0], sizeof interface) != 0) return false;
        return std::ranges::equal(kernel_->losses(), table_.losses());
    }
    [[nodiscard]] std::uint64_t fed() const { return fed_; }
    [[nodiscard]] std::uint64_t refused() const { return refused_; }
    [[nodiscard]] const FlowTable& table() const { return table_; }

private:
    void packet(const capture::PacketRecord& record) {
        const EthernetFrame frame = as_ethernet(record);
        PacketInput input;
        input.bytes = frame.bytes;
        input.wire_bytes = frame.wire_bytes;
        input.ifindex = BpfTestRun::IFINDEX;
        input.at_ns = static_cast<std::uint64_t>(record.captured_at.time_since_epoch().count());
        input.link = {LinkStart::ethernet, 0, 0};
        directions_.account({&input, 1}, sink_);
        BpfTestRun::Packet packet;
        packet.bytes = frame.bytes;
        packet.wire_bytes = frame.wire_bytes;
        packet.at_ns = input.at_ns;
        packet.direction = directions_.last_verdict().direction;
        if (frame.bytes.size() < BpfTestRun::PACKET_BYTES_MIN || !kernel_->run(packet)) {
            ++refused_;
            return;
        }
        ++fed_;
        input.direction = static_cast<std::uint8_t>(packet.direction);
        table_.account({&input, 1}, sink_);
        if (fed_ % events_drain_every == 0) (void)kernel_->take_events();
    }

    std::shared_ptr<const RegionTable> region_;
    std::optional<BpfTestRun> kernel_;
    FlowTable directions_;  // decides which way a packet goes, as replay does
    FlowTable table_;
    NullSink sink_;
    std::uint64_t fed_ = 0;
    std::uint64_t refused_ = 0;
};

std::vector<fs::path> captures() {
    std::vector<fs::path> paths;
    for (const auto& entry :
         fs::recursive_directory_iterator(fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus/captures"))
        if (entry.is_regular_file()) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
}

}  // namespace

TEST_CASE("kernel and user space make the same of every capture, byte for byte", "[bpf][corpus]") {
    Both both(65536);
    for (const auto& path : captures()) {
        both.feed(path);
        INFO(path.filename().string());
        REQUIRE(both.equal());
    }
    INFO(both.fed() << " packets, " << both.refused() << " not taken by the kernel's test interface");
    CHECK(both.fed() > 10000);
    CHECK(both.refused() * 50 < both.fed());
}

TEST_CASE("kernel and user space lose the same packets of the same flows when the table is full",
          "[bpf][corpus]") {
    Both both(64);
    for (const auto& path : captures()) {
        both.feed(path);
        INFO(path.filename().string());
        REQUIRE(both.equal());
    }
    CHECK(both.table().losses()[datapath::LOSS_FLOWS_FULL] > 1000);
}
