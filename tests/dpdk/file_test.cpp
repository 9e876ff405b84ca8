// tests/dpdk/file_test.cpp - captures through net_pcap: the DPDK engine says what the file engine says.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "capture/userspace/file_engine.h"
#include "tests/support/capture_file.h"
#include "tests/support/catch.h"
#include "tests/support/dpdk_run.h"
#include "tests/support/packet_builder.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_region.h"

using namespace egresswatch;
using namespace egresswatch::test;
namespace fs = std::filesystem;

namespace {

struct Collector final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        updates.insert(updates.end(), news.begin(), news.end());
    }
    std::vector<FlowUpdate> updates;
};

EngineRun run_file_engine(const std::string& file, const RegionTable& region, const FlowTableConfig& table) {
    auto engine = capture::FileEngine::open(file, table);
    REQUIRE(engine);
    REQUIRE((*engine)->install_region(region));
    Collector collector;
    REQUIRE((*engine)->start(collector));
    while (!(*engine)->finished())
        if (!(*engine)->poll(std::chrono::milliseconds(0))) break;
    (*engine)->stop();
    const auto totals = (*engine)->totals();
    return {
        std::move(collector.updates), totals.by_class, totals.interfaces.at(0).totals, totals.losses, 0, 0};
}

bool same(const FlowUpdate& a, const FlowUpdate& b) {
    return std::memcmp(&a.key, &b.key, sizeof a.key) == 0 && a.total == b.total && a.delta == b.delta &&
           a.first_seen == b.first_seen && a.last_seen == b.last_seen && a.outer_local == b.outer_local &&
           a.outer_remote == b.outer_remote && a.handshake_rtt_us == b.handshake_rtt_us &&
           a.initiator == b.initiator && a.initiator_sure == b.initiator_sure &&
           a.tcp_flags_out == b.tcp_flags_out && a.tcp_flags_in == b.tcp_flags_in && a.reason == b.reason;
}

template <typename T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

std::vector<std::string> captures() {
    std::vector<std::string> names;
    for (const auto& entry :
         fs::directory_iterator(fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus/captures"))
        names.push_back(entry.path().string());
    std::ranges::sort(names);
    return names;
}

}  // namespace

TEST_CASE("every Ethernet capture of the corpus: the same updates and totals as from the file engine",
          "[dpdk]") {
    constexpr std::size_t together = 8;  // captures in one run: a start of DPDK takes longer than they do
    const auto region = make_region("0.0.0.0/1 US\n128.0.0.0/2 DE\n2001::/16 US\n");
    FlowTableConfig table;
    table.slots_max = 1u << 14;
    table.track_all = true;
    testing::TempDir folder;
    const std::string file = folder.path() / "as-captured.pcap";
    const std::vector<std::string> names = captures();
    std::uint64_t compared = 0;
    for (std::size_t begin = 0; begin < names.size(); begin += together) {
        const std::vector<std::string> group(
            names.begin() + static_cast<std::ptrdiff_t>(begin),
            names.begin() + static_cast<std::ptrdiff_t>(std::min(begin + together, names.size())));
        const auto packets = on_wire_as_captured(group, file);
        REQUIRE(packets);
        if (*packets == 0) continue;  // all of other link types
        INFO(group.front() << " to " << group.back());
        const EngineRun expected = run_file_engine(file, *region, table);
        const auto seen = run_dpdk_over({file}, *packets, *region, table);
        if (!seen) FAIL(seen.error());
        CHECK(seen->updates.size() == expected.updates.size());
        CHECK(std::ranges::equal(seen->updates, expected.updates, same));
        CHECK(same_bytes(seen->by_class, expected.by_class));
        CHECK(std::memcmp(&seen->interface, &expected.interface, sizeof expected.interface) == 0);
        CHECK(seen->losses == expected.losses);
        CHECK(seen->dropped == 0);
        compared += *packets;
    }
    CHECK(compared > 5000);
}

namespace {

// What was told of each flow, life by life: the deltas summed, and how often it began and ended.
struct Story {
    FlowCounters sum, last_total;
    unsigned created = 0, ended = 0;
    bool operator==(const Story&) const = default;
};

std::map<std::string, Story> stories(const std::vector<FlowUpdate>& updates) {
    std::map<std::string, Story> all;
    for (const FlowUpdate& update : updates) {
        Story& story = all[{reinterpret_cast<const char*>(&update.key), sizeof update.key}];
        story.sum.packets_out += update.delta.packets_out;
        story.sum.bytes_out += update.delta.bytes_out;
        story.sum.packets_in += update.delta.packets_in;
        story.sum.bytes_in += update.delta.bytes_in;
        story.last_total = update.total;
        story.created += update.reason == UpdateReason::created;
        story.ended += update.reason == UpdateReason::ended;
    }
    return all;
}

std::uint64_t seen_packets(const EngineRun& run) {
    return run.interface.by_direction[0].seen.packets + run.interface.by_direction[1].seen.packets;
}

// Packets of 40 conversations of 10.0.0.0/8 with the outside, both directions, a packet a millisecond: dealt
// out to as many files as there are.
std::uint64_t deal_out(const std::vector<std::string>& files, unsigned packets) {
    std::vector<CaptureFile> captures(files.size());
    for (CaptureFile& capture : captures) capture.pcap_header(1);
    for (unsigned i = 0; i < packets; ++i) {
        const unsigned conversation = i % 40;
        const std::string ours = "10.0.0." + std::to_string(1 + conversation), theirs = "8.8.4.4";
        const bool out = i / 40 % 3 != 0;
        const auto frame = PacketBuilder()
                               .ethernet(0x0800)
                               .ipv4(out ? ours : theirs, out ? theirs : ours, 17)
                               .udp(out ? 5000 : 53, out ? 53 : 5000)
                               .payload(20 + i % 1000)
                               .bytes();
        captures[i / 40 % files.size()].pcap_record(1'700'000'000 + i / 1000, i % 1000 * 1000, frame);
    }
    for (std::size_t i = 0; i < files.size(); ++i)
        std::ofstream(files[i], std::ios::binary)
            .write(reinterpret_cast<const char*>(captures[i].bytes.data()),
                   static_cast<std::streamsize>(captures[i].bytes.size()));
    return packets;
}

}  // namespace

TEST_CASE("a flow whose packets come to two cores is told as one flow, and counted as split", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    FlowTableConfig table;
    table.slots_max = 1u << 12;
    table.local_networks = {Prefix::parse("10.0.0.0/8").value()};
    testing::TempDir folder;
    const std::string one = folder.path() / "one.pcap", left = folder.path() / "left.pcap",
                      right = folder.path() / "right.pcap";
    const auto packets = deal_out({one}, 8000);
    REQUIRE(deal_out({left, right}, 8000) == packets);
    const EngineRun expected = run_file_engine(one, *region, table);
    const auto seen = run_dpdk_over({left, right}, packets, *region, table);
    if (!seen) FAIL(seen.error());
    const auto told = stories(seen->updates);
    CHECK(told.size() == 40);
    CHECK(told == stories(expected.updates));
    CHECK(std::ranges::all_of(told, [](const auto& entry) {
        return entry.second.created == 1 && entry.second.ended == 1 &&
               entry.second.sum == entry.second.last_total;
    }));
    CHECK(seen->flows_split == 40);
    CHECK(same_bytes(seen->by_class, expected.by_class));
    CHECK(std::memcmp(&seen->interface, &expected.interface, sizeof expected.interface) == 0);
}

TEST_CASE(
    "two queues, two cores: flows that stay in their queue are not split, and an idle core costs nothing",
    "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    FlowTableConfig table;
    table.slots_max = 1u << 12;
    testing::TempDir folder;
    const std::string all = folder.path() / "all.pcap", none = folder.path() / "none.pcap";
    const auto packets = deal_out({all}, 8000);
    deal_out({none}, 0);
    const EngineRun expected = run_file_engine(all, *region, table);
    const auto seen = run_dpdk_over({none, all}, packets, *region, table);
    if (!seen) FAIL(seen.error());
    CHECK(seen->flows_split == 0);
    CHECK(std::ranges::equal(seen->updates, expected.updates, same));
    CHECK(same_bytes(seen->by_class, expected.by_class));
}

TEST_CASE("a queue that runs out of mbufs: what was sent is what was counted and what was lost", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    FlowTableConfig table;
    table.slots_max = 1u << 12;
    testing::TempDir folder;
    const std::string file = folder.path() / "all.pcap";
    const auto packets = deal_out({file}, 8000);
    // A burst wants 32 mbufs, and there are 15: the 16th packet of each burst is taken from the file and
    // lost.
    const auto seen = run_dpdk_over({file}, packets, *region, table, 15);
    if (!seen) FAIL(seen.error());
    CHECK(seen->dropped > 400);
    CHECK(seen_packets(*seen) + seen->dropped == packets);
}
