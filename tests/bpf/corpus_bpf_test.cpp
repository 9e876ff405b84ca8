// tests/bpf/corpus_bpf_test.cpp - every capture of the corpus through the tc programs and through user space:
// the same flow table, totals and losses, byte for byte.
//
// The kernel takes Ethernet frames: a capture of another link type gets an Ethernet header in place of its
// own, for both sides. What the kernel does not take at all (see bpf_test_run.h) is left out of both, and
// counted. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "capture/pcap/file_reader.h"
#include "classifier/flow_table.h"
#include "tests/support/bpf_test_run.h"
#include "tests/support/catch.h"
#include "tests/support/corpus_frames.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;
namespace fs = std::filesystem;

constexpr std::size_t events_drain_every = 256;

struct NullSink final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
};

// The kernel and user space side by side.
class Both {
public:
    explicit Both(std::uint32_t slots)
        : region_(patchwork_region()),
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
    // Where they differ; empty where they do not.
    [[nodiscard]] std::string difference() const {
        if (auto found = difference_of_flows(); !found.empty()) return found;
        if (auto found = difference_of_totals(); !found.empty()) return found;
        return std::ranges::equal(kernel_->losses(), table_.losses()) ? "" : "losses";
    }
    // Entries and outer addresses by key: where an entry lies is each table's own affair.
    [[nodiscard]] std::string difference_of_flows() const {
        const auto theirs = kernel_->table();
        const auto outers = kernel_->outers();
        if (theirs.size() != table_.slots()) return "slots";
        const auto key_of = [](const datapath::flow_entry& entry) {
            return std::string(reinterpret_cast<const char*>(&entry.head.key), sizeof entry.head.key);
        };
        std::map<std::string, std::uint32_t> slot_of;  // of the kernel's
        for (std::uint32_t slot = 0; slot < theirs.size(); ++slot)
            if (theirs[slot].head.tag != datapath::FLOW_FREE) slot_of.emplace(key_of(theirs[slot]), slot);
        std::size_t found = 0;
        for (std::uint32_t slot = 0; slot < table_.slots(); ++slot) {
            const auto ours = table_.entry_in(slot);
            if (!ours) continue;
            const auto known = slot_of.find(key_of(*ours));
            if (known == slot_of.end()) return "slot " + std::to_string(slot) + ", not in the kernel";
            ++found;
            if (std::memcmp(&theirs[known->second], &*ours, sizeof *ours) != 0)
                return "slot " + std::to_string(slot) + ", " + std::to_string(known->second) +
                       " in the kernel";
            if (std::memcmp(&outers[known->second], table_.outer_in(slot), sizeof(datapath::flow_outer)) != 0)
                return "outer addresses in slot " + std::to_string(slot);
        }
        if (found == slot_of.size()) return {};
        return std::to_string(slot_of.size() - found) + " flows are the kernel's only";
    }
    [[nodiscard]] std::string difference_of_totals() const {
        for (std::uint32_t id = 0; id < region_->class_count(); ++id) {
            const auto totals = kernel_->class_totals(id);
            if (std::memcmp(&totals, &table_.class_totals()[id], sizeof totals) != 0)
                return "totals of class " + std::to_string(id);
        }
        const auto interface = kernel_->iface_totals();
        if (std::memcmp(&interface, &table_.interface_totals()[0], sizeof interface) != 0) return "interface";
        return {};
    }
    // Packets that have a flow, and those that found no room for one.
    struct Kept {
        std::uint64_t packets = 0;
        std::uint64_t lost = 0;
    };
    [[nodiscard]] Kept kept_by_kernel() const {
        Kept out{0, kernel_->losses()[datapath::LOSS_FLOWS_FULL]};
        for (const auto& entry : kernel_->table())
            out.packets += entry.counts.packets_out + entry.counts.packets_in;
        return out;
    }
    [[nodiscard]] Kept kept_by_user_space() const {
        Kept out{0, table_.losses()[datapath::LOSS_FLOWS_FULL]};
        for (std::uint32_t slot = 0; slot < table_.slots(); ++slot)
            if (const auto entry = table_.entry_in(slot))
                out.packets += entry->counts.packets_out + entry->counts.packets_in;
        return out;
    }
    [[nodiscard]] std::uint64_t fed() const { return fed_; }
    [[nodiscard]] std::uint64_t refused() const { return refused_; }
    [[nodiscard]] const FlowTable& table() const { return table_; }

private:
    void packet(const PacketInput& record) {
        EthernetFrame frame = as_ethernet(record);
        frame.bytes.resize(std::min(frame.bytes.size(), BpfTestRun::PACKET_BYTES_MAX));
        PacketInput input;
        input.bytes = frame.bytes;
        input.wire_bytes = frame.wire_bytes;
        input.ifindex = BpfTestRun::IFINDEX;
        input.at_ns = record.at_ns;
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

}  // namespace

TEST_CASE("kernel and user space make the same of every capture, byte for byte", "[bpf][corpus]") {
    Both both(65536);
    for (const auto& path : corpus_captures(EGRESSWATCH_SOURCE_DIR)) {
        both.feed(path);
        INFO(path.filename().string());
        REQUIRE(both.difference() == "");
    }
    INFO(both.fed() << " packets, " << both.refused() << " not taken by the kernel's test interface");
    CHECK(both.fed() > 10000);
    CHECK(both.refused() * 50 < both.fed());
}

// In user space a flow that finds its slots taken may move another one away: it loses no more than the
// kernel.
TEST_CASE("a full table changes no total, in the kernel and in user space, and counts what it loses",
          "[bpf][corpus]") {
    Both both(64);
    for (const auto& path : corpus_captures(EGRESSWATCH_SOURCE_DIR)) {
        both.feed(path);
        INFO(path.filename().string());
        REQUIRE(both.difference_of_totals() == "");
        const auto kernel = both.kept_by_kernel();
        const auto user_space = both.kept_by_user_space();
        REQUIRE(kernel.packets + kernel.lost == user_space.packets + user_space.lost);
        REQUIRE(user_space.lost <= kernel.lost);
    }
    CHECK(both.table().losses()[datapath::LOSS_FLOWS_FULL] > 1000);
    CHECK(both.table().live() == 64);
}
