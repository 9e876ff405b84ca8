// tests/unit/classifier/tuple_sums_test.cpp - packets counted as sums tell what packets counted one by one
// tell. SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "classifier/flow_table.h"
#include "classifier/payload_sample.h"
#include "tests/support/catch.h"
#include "tests/support/packet_builder.h"
#include "tests/support/same_update.h"
#include "tests/support/test_region.h"

using namespace egresswatch;
using test::PacketBuilder;
using test::raw;
using test::same;

namespace {

// Asks to be told earlier now and then, of amounts that are reached already, too.
struct Recorder final : FlowSink, PayloadSink {
    explicit Recorder(const FlowTableConfig& config) : table(config) {}

    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        for (const FlowUpdate& update : news) {
            updates.push_back(update);
            volumes += update.reason == UpdateReason::volume;
            if (updates.size() % 3 == 0) table.notify_at(update.key, update.total.bytes_out + 30'000);
            if (updates.size() % 16 == 0) table.notify_at(update.key, update.total.bytes_out / 2);
        }
    }
    bool on_payload(const PayloadSample& sample) noexcept override {
        payload_bytes.push_back(sample.payload.size());
        return payload_bytes.size() % 3 != 0;
    }

    FlowTable table;
    std::vector<FlowUpdate> updates;
    std::size_t volumes = 0;
    std::vector<std::size_t> payload_bytes;
};

void check_entries(const FlowTable& one, const FlowTable& other) {
    REQUIRE(one.slots() == other.slots());
    for (std::uint32_t slot = 0; slot < one.slots(); ++slot) {
        const auto left = one.entry_in(slot), right = other.entry_in(slot);
        REQUIRE(left.has_value() == right.has_value());
        if (left) REQUIRE(raw(&*left, sizeof *left) == raw(&*right, sizeof *right));
    }
}

// A few conversations, both ways; mostly acknowledgements and data, as in the middle of a transfer.
class Transfers {
public:
    explicit Transfers(std::uint32_t flows) : flows_(flows) {}

    // `odd`: one packet of so many is no mere data.
    std::vector<std::uint8_t> next(std::uint32_t odd) {
        const std::uint32_t flow = any(4) == 0 ? any(flows_) : any(1 + flows_ / 8);
        const bool is_six = flow % 5 == 4, is_udp = flow % 3 == 2, is_home = flow % 7 == 6,
                   leaves = any(3) != 0;
        const std::string ours = is_six ? "fd00::1" : "10.0.0.1";
        const std::string theirs = is_six ? "2600::" + std::to_string(1 + flow)
                                          : (is_home ? "5.0.0." : "8.0.0.") + std::to_string(1 + flow % 250);
        const auto port = static_cast<std::uint16_t>(40000 + flow);
        const std::uint16_t service = is_udp && flow % 40 == 35 ? 53 : 443;
        PacketBuilder out;
        const std::uint32_t shape = any(5);
        const std::uint16_t ether_type = is_six ? 0x86dd : 0x0800;
        out.ethernet(shape == 0 ? 0x8100 : ether_type);
        if (shape == 0) out.vlan(7, ether_type);
        const std::uint8_t protocol = is_udp ? 17 : 6;
        if (is_six)
            out.ipv6(leaves ? ours : theirs, leaves ? theirs : ours, protocol);
        else
            out.ipv4(leaves ? ours : theirs, leaves ? theirs : ours, protocol, any(odd) == 0 ? 4 : 0);
        constexpr std::uint8_t rare[] = {2, 18, 1, 17, 4, 0, 8};
        const std::uint8_t flags = any(odd) == 0 ? rare[any(7)] : any(2) != 0 ? 16 : 24;
        if (is_udp)
            out.udp(leaves ? port : service, leaves ? service : port);
        else
            out.tcp(leaves ? port : service, leaves ? service : port, flags);
        return out.payload(any(2) != 0 ? any(1400) : 0).bytes();
    }
    std::uint32_t any(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }

private:
    std::mt19937_64 random_{20261126};
    std::uint32_t flows_;
};

}  // namespace

TEST_CASE("packets of tuples that repeat: sums tell what packets one by one tell",
          "[classifier][flow][property]") {
    const std::uint32_t flows = GENERATE(1u, 4u, 24u, 200u);
    const bool track_all = GENERATE(true, false);
    const auto region = test::make_region("8.0.0.0/8 US\n5.0.0.0/8 IE\n2600::/16 US\n");
    const FlowTableConfig config{.track_all = track_all,
                                 .hash_seed = 7,
                                 .idle_timeout = std::chrono::seconds(2),
                                 .closed_timeout = std::chrono::seconds(1),
                                 .active_timeout = std::chrono::seconds(3),
                                 .sample_payload = true};
    Recorder sums(config), singles(config);
    sums.table.install_region(region->block());
    Transfers transfers(flows);
    std::uint64_t at_ns = 1'000'000'000;
    for (int batch = 0; batch < 300; ++batch) {
        std::vector<std::vector<std::uint8_t>> bytes;
        std::vector<PacketInput> inputs;
        const std::uint32_t size = 1 + transfers.any(batch % 4 == 0 ? 40 : 2500);
        const std::uint32_t odd =
            std::array{60u, 8000u, 700u, 8000u}[static_cast<std::size_t>(batch / 3) % 4];
        for (std::uint32_t i = 0; i < size; ++i) bytes.push_back(transfers.next(odd));
        for (auto& packet : bytes) {
            PacketInput& input = inputs.emplace_back();
            input.wire_bytes = static_cast<std::uint32_t>(packet.size());
            if (transfers.any(3) == 0 && packet.size() > 96) packet.resize(96);  // a snap length
            input.bytes = packet;
            at_ns += transfers.any(200'000);
            if (transfers.any(odd) == 0) at_ns += 2'500'000'000;
            input.at_ns = transfers.any(4) == 0 ? at_ns - transfers.any(30'000'000) : at_ns;
            input.link = {LinkStart::ethernet, 0, 0};
            if (transfers.any(odd) == 0) input.direction = static_cast<std::uint8_t>(transfers.any(2));
            if (transfers.any(odd) == 0) input.interface = 1;
        }
        sums.table.account(inputs, sums);
        for (const PacketInput& input : inputs) {
            singles.table.install_region(region->block());  // no tuple is known
            singles.table.account({&input, 1}, singles);
        }
        const PacketVerdict one = sums.table.last_verdict(), other = singles.table.last_verdict();
        REQUIRE(one.outcome == other.outcome);
        REQUIRE(one.direction == other.direction);
        REQUIRE(one.ip_bytes == other.ip_bytes);
        REQUIRE(raw(&one.key, sizeof one.key) == raw(&other.key, sizeof other.key));
        REQUIRE(sums.table.now() == singles.table.now());
        // Nothing is left in a sum between two calls.
        REQUIRE(raw(sums.table.class_totals().data(), sums.table.class_totals().size_bytes()) ==
                raw(singles.table.class_totals().data(), singles.table.class_totals().size_bytes()));
        REQUIRE(raw(sums.table.interface_totals().data(), sums.table.interface_totals().size_bytes()) ==
                raw(singles.table.interface_totals().data(), singles.table.interface_totals().size_bytes()));
    }
    check_entries(sums.table, singles.table);
    sums.table.finish(sums);
    singles.table.finish(singles);
    REQUIRE(sums.volumes > 20);
    REQUIRE(sums.updates.size() == singles.updates.size());
    bool all_same = true;
    for (std::size_t i = 0; i < sums.updates.size(); ++i)
        all_same = all_same && same(sums.updates[i], singles.updates[i]);
    CHECK(all_same);
    CHECK(sums.payload_bytes == singles.payload_bytes);
}

TEST_CASE("a handshake amid packets that repeat, and more tuples than there are sums", "[classifier][flow]") {
    const auto region = test::make_region("8.0.0.0/8 US\n");
    const FlowTableConfig config{.track_all = true, .hash_seed = 7};
    Recorder sums(config), singles(config);
    sums.table.install_region(region->block());
    std::vector<std::vector<std::uint8_t>> bytes;
    const auto segment = [&](bool leaves, std::uint8_t flags) {
        const char* ours = "10.0.0.1";
        const char* theirs = "8.0.0.1";
        PacketBuilder out;
        out.ethernet(0x0800).ipv4(leaves ? ours : theirs, leaves ? theirs : ours, 6);
        out.tcp(leaves ? 40000 : 443, leaves ? 443 : 40000, flags);
        bytes.push_back(out.bytes());
    };
    const auto exchange = [&](int times) {
        for (int i = 0; i < times; ++i) {
            segment(true, 16);
            segment(false, 16);
        }
    };
    exchange(1000);  // until runs are tried
    segment(true, 2);
    for (int i = 0; i < 100; ++i) segment(true, 24);
    segment(false, 16);  // the first acknowledgement after the SYN: a round trip
    exchange(50);
    for (int round = 0; round < 9; ++round)
        for (std::uint32_t flow = 0; flow < 300; ++flow)
            for (int i = 0; i < 4; ++i)
                bytes.push_back(PacketBuilder()
                                    .ethernet(0x0800)
                                    .ipv4("10.0.0.1", "8.0.1.1", 17)
                                    .udp(static_cast<std::uint16_t>(40000 + flow), 443)
                                    .payload(20)  // long enough to be plain
                                    .bytes());
    std::vector<PacketInput> inputs;
    std::uint64_t at_ns = 1'000'000'000;
    for (const auto& packet : bytes) {
        PacketInput& input = inputs.emplace_back();
        input.bytes = packet;
        input.wire_bytes = static_cast<std::uint32_t>(packet.size());
        input.at_ns = at_ns += 10'000;
        input.link = {LinkStart::ethernet, 0, 0};
    }
    sums.table.account(inputs, sums);
    for (const PacketInput& input : inputs) {
        singles.table.install_region(region->block());
        singles.table.account({&input, 1}, singles);
    }
    check_entries(sums.table, singles.table);
    CHECK(sums.table.live() == 301);
    sums.table.finish(sums);
    CHECK(sums.updates.back().handshake_rtt_us + sums.updates.front().handshake_rtt_us > 0);
}

TEST_CASE("a volume that is reached to the byte is told amid packets that repeat", "[classifier][flow]") {
    const auto region = test::make_region("8.0.0.0/8 US\n");
    const FlowTableConfig config{.track_all = true, .hash_seed = 7};
    struct Volumes final : FlowSink {
        void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
            for (const FlowUpdate& update : news)
                if (update.reason == UpdateReason::volume) told.push_back(update.total.bytes_out);
        }
        std::vector<std::uint64_t> told;
    } sink;
    FlowTable table(config);
    table.install_region(region->block());
    // 1 KiB of IP, so that every power of two is met.
    const auto packet = PacketBuilder()
                            .ethernet(0x0800)
                            .ipv4("10.0.0.1", "8.0.0.1", 17)
                            .udp(40000, 443)
                            .payload(1024 - 28)
                            .bytes();
    PacketInput input;
    input.bytes = packet;
    input.wire_bytes = static_cast<std::uint32_t>(packet.size());
    input.link = {LinkStart::ethernet, 0, 0};
    input.at_ns = 1'000'000'000;
    table.account(std::vector(8192, input), sink);
    std::vector<std::uint64_t> due;
    for (std::uint64_t bytes = datapath::VOLUME_EVENT_MIN; bytes <= 8192u * 1024; bytes *= 2)
        due.push_back(bytes);
    CHECK(sink.told == due);
}
