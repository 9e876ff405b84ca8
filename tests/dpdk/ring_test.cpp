// tests/dpdk/ring_test.cpp - the engine on net_ring devices, fed from the same process: cores, queues,
// reloads, stop. SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <thread>

#include "capture/dpdk/dpdk_engine.h"
#include "classifier/payload_sample.h"
#include "tests/support/catch.h"
#include "tests/support/dpdk_rings.h"
#include "tests/support/packet_builder.h"
#include "tests/support/test_region.h"

using namespace egresswatch;
using namespace egresswatch::test;
using namespace std::chrono_literals;
using capture::DpdkConfig;
using capture::DpdkEngine;

namespace {

using Clock = std::chrono::steady_clock;

// Adds up what it is told.
struct Sums final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp time) noexcept override {
        backwards += time < now;
        now = time;
        for (const FlowUpdate& update : updates) {
            packets += update.delta.packets_out + update.delta.packets_in;
            created += update.reason == UpdateReason::created;
            ended += update.reason == UpdateReason::ended;
        }
    }
    std::uint64_t packets = 0, created = 0, ended = 0, backwards = 0;
    Timestamp now{};
};

DpdkConfig two_rings() {
    DpdkConfig config;
    config.eal_args = {"--no-pci", "--vdev=net_ring0"};
    config.huge_pages = false;
    config.memory_mb = 256;
    config.queues = 2;
    config.cores = {0, 1};
    config.mbufs = 1023;
    config.descriptors = 512;
    config.spread = capture::DpdkSpread::queues;
    config.table.slots_max = 1u << 14;
    config.table.local_networks = {Prefix::parse("10.0.0.0/8").value()};
    return config;
}

// Packet `i` of a conversation with the outside; which queue it belongs to follows from the conversation.
constexpr unsigned conversations = 1000;

std::vector<std::uint8_t> frame_of(unsigned i, std::size_t payload = 20) {
    const unsigned conversation = i % conversations;
    const std::string ours =
        "10.0." + std::to_string(conversation / 250) + "." + std::to_string(1 + conversation % 250);
    const std::string theirs = "8.8.4." + std::to_string(1 + conversation % 200);
    const bool out = i / conversations % 2 == 0;
    return PacketBuilder()
        .ethernet(0x0800)
        .ipv4(out ? ours : theirs, out ? theirs : ours, 17)
        .udp(out ? 5000 : 443, out ? 443 : 5000)
        .payload(payload)
        .bytes();
}

// An engine that runs, or why it does not.
struct Running {
    std::unique_ptr<DpdkEngine> engine;
    Sums sums;
    std::string error;

    // News goes to `sink`, or else to `sums`.
    Running(const DpdkConfig& config, const RegionTable& region, FlowSink* sink = nullptr) {
        auto made = DpdkEngine::make(config);
        if (!made) {
            error = made.error().to_string();
            return;
        }
        engine = std::move(*made);
        if (auto done = engine->install_region(region); !done) error = done.error().to_string();
        if (auto done = engine->start(sink != nullptr ? *sink : sums); error.empty() && !done)
            error = done.error().to_string();
    }
    [[nodiscard]] std::uint64_t counted() const {
        std::uint64_t packets = 0;
        for (const auto& core : engine->status().cores) packets += core.packets;
        return packets;
    }
    [[nodiscard]] bool wait_for(std::uint64_t packets) {
        for (const auto deadline = Clock::now() + 30s; counted() < packets;) {
            if (auto done = engine->poll(1ms); !done) {
                error = done.error().to_string();
                return false;
            }
            if (Clock::now() > deadline) return false;
        }
        return true;
    }
    [[nodiscard]] std::uint64_t outcome(datapath::outcome which) const {
        const auto& totals = engine->totals().interfaces.at(0).totals;
        return totals.by_direction[0].outcome[which].packets + totals.by_direction[1].outcome[which].packets;
    }
};

// Whether payload of 777 bytes is told before the last volume.
struct Order final : FlowSink, PayloadSink {
    bool on_payload(const PayloadSample& sample) noexcept override {
        if (sample.payload.size() == 777) payload_told = true;
        return false;
    }
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
        for (const FlowUpdate& update : updates) {
            if (update.reason != UpdateReason::volume) continue;
            payload_was_first = payload_told;
            if (volumes++ == 0 && while_told) while_told();
        }
    }
    std::function<void()> while_told;  // while the first one is told
    unsigned volumes = 0;
    bool payload_told = false, payload_was_first = false;
};

#define EXPECT(condition) \
    if (!(condition)) return std::string(#condition " does not hold, line ") + std::to_string(__LINE__)

}  // namespace

TEST_CASE("two cores count what two rings bring, with idle cores asleep and time going on", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        constexpr unsigned packets = 40'000;
        Running run(two_rings(), *region);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        std::jthread feeder([&] {
            rte_ring* rings[2] = {ring_of(0, 0), ring_of(0, 1)};
            for (unsigned i = 0; i < packets; ++i) pool.put(rings[i % conversations % 2], frame_of(i));
        });
        EXPECT(run.wait_for(packets));
        // Without a packet time goes on: a tick tells the flows that no packet tells.
        const auto deadline = Clock::now() + 10s;
        while (run.sums.packets < packets && Clock::now() < deadline) EXPECT(run.engine->poll(10ms));
        EXPECT(run.sums.packets == packets);
        EXPECT(run.sums.created == conversations);
        const auto status = run.engine->status();
        EXPECT(status.spread == "as queued");
        EXPECT(status.cores.size() == 2 && status.cores[0].packets == packets / 2 &&
               status.cores[1].packets == packets / 2);
        EXPECT(status.cores[0].sleeps > 0 && status.cores[1].sleeps > 0);
        EXPECT(status.flows_split == 0);
        run.engine->stop();
        EXPECT(run.sums.ended == conversations && run.sums.packets == packets && run.sums.backwards == 0);
        EXPECT(run.outcome(datapath::OUTCOME_OUTSIDE) == packets);
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("all packets in one of two queues: exact, and the status shows who works", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        constexpr unsigned packets = 20'000;
        Running run(two_rings(), *region);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        std::jthread feeder([&] {
            for (unsigned i = 0; i < packets; ++i) pool.put(ring_of(0, 1), frame_of(i));
        });
        EXPECT(run.wait_for(packets));
        const auto details = run.engine->details();
        EXPECT(details.counters.at("core.0.packets") == 0 &&
               details.counters.at("core.1.packets") == packets);
        run.engine->stop();
        EXPECT(run.sums.packets == packets && run.sums.created == conversations &&
               run.sums.ended == conversations);
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("two hundred reloads under load: every packet is classified by one whole table", "[dpdk]") {
    constexpr std::string_view to_america = "8.0.0.0/8 US\n", to_china = "8.0.0.0/8 CN\n9.0.0.0/8 US\n";
    const std::string wrong = in_own_process([&]() -> std::string {
        auto in_force = make_region(to_america);
        Running run(two_rings(), *in_force);
        if (!run.error.empty()) return run.error;
        fill_for_ever(ring_of(0, 0), "round0", [](unsigned i) { return frame_of(2 * i); });
        fill_for_ever(ring_of(0, 1), "round1", [](unsigned i) { return frame_of(2 * i + 1); });
        for (int i = 0; i < 200; ++i) {
            auto next = make_region(i % 2 == 0 ? to_china : to_america, in_force.get());
            EXPECT(run.engine->install_region(*next));
            in_force = std::move(next);  // the one before is gone, and its memory: whoever reads it ends here
            EXPECT(run.engine->poll(1ms));
        }
        run.engine->stop();
        std::uint64_t packets = 0;
        for (const auto& core : run.engine->status().cores) {
            EXPECT(core.packets > 10'000);
            packets += core.packets;
        }
        const auto totals = run.engine->totals();
        EXPECT(run.outcome(datapath::OUTCOME_OUTSIDE) == packets);
        EXPECT(totals.losses[datapath::LOSS_NO_REGION_TABLE] == 0);
        unsigned classes = 0;
        for (const auto& by_class : totals.by_class)
            classes += by_class.by_direction[0].packets + by_class.by_direction[1].packets != 0;
        EXPECT(classes == 2);
        EXPECT(run.sums.packets == packets);
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("an owner that does not take its updates: nothing is lost, and the delay is counted", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        constexpr unsigned packets = 20'000;
        DpdkConfig config = two_rings();
        config.updates_ring = 64;
        config.idle = capture::DpdkIdle::spin;
        Running run(config, *region);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        std::atomic<unsigned> fed = 0;
        std::jthread feeder([&] {
            rte_ring* rings[2] = {ring_of(0, 0), ring_of(0, 1)};
            for (unsigned i = 0; i < packets; ++i) {
                pool.put(rings[i % conversations % 2], frame_of(i));
                fed = i + 1;
            }
        });
        // A tick finds the rings full: 500 flows of each core have news, and nobody takes 64 of them.
        std::uint64_t delayed = 0;
        for (const auto deadline = Clock::now() + 10s; delayed == 0 && Clock::now() < deadline;) {
            delayed = 0;
            for (const auto& core : run.engine->status().cores) delayed += core.updates_delayed;
        }
        EXPECT(delayed > 0);
        EXPECT(run.wait_for(packets));
        run.engine->stop();
        EXPECT(fed == packets);
        EXPECT(run.sums.packets == packets && run.sums.created == conversations &&
               run.sums.ended == conversations);
        EXPECT(run.outcome(datapath::OUTCOME_OUTSIDE) == packets);
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("a packet in several mbufs counts as a packet in one, and one of jumbo size is counted as cut",
          "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        Running run(config, *region);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        for (unsigned i = 0; i < 100; ++i)
            pool.put(ring_of(0, 0), frame_of(2 * i, 200), 16);  // headers over three mbufs
        for (unsigned i = 0; i < 100; ++i) pool.put(ring_of(0, 0), frame_of(2 * i, 9000), 2000);
        EXPECT(run.wait_for(200));
        run.engine->stop();
        const auto status = run.engine->status();
        EXPECT(status.cores[0].segmented == 200 && status.cores[0].cut == 100);
        const auto totals = run.engine->totals().interfaces.at(0).totals;
        EXPECT(run.outcome(datapath::OUTCOME_OUTSIDE) == 200);
        EXPECT(totals.by_direction[0].seen.bytes == 100 * (14 + 20 + 8 + 200) + 100 * (14 + 20 + 8 + 9000));
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("payload that came to one core is told before what another counted after it", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        config.table.sample_payload = true;
        Order sink;
        Running run(config, *region, &sink);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        // While an update of core 0 is told, core 0 gets a payload, and core 1 then a volume.
        sink.while_told = [&] {
            pool.put(ring_of(0, 0), frame_of(2, 777));
            std::this_thread::sleep_for(20ms);
            for (unsigned i = 0; i < 70; ++i) pool.put(ring_of(0, 1), frame_of(1, 1000));
            std::this_thread::sleep_for(20ms);
        };
        for (unsigned i = 0; i < 70; ++i) pool.put(ring_of(0, 0), frame_of(0, 1000));
        for (const auto deadline = Clock::now() + 10s; sink.volumes < 2 && Clock::now() < deadline;)
            EXPECT(run.engine->poll(1ms));
        EXPECT(sink.volumes == 2 && sink.payload_was_first);
        run.engine->stop();
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("payload that a core has not polled yet is waited for", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        config.table.sample_payload = true;
        config.updates_ring = 64;
        Order sink;
        Running run(config, *region, &sink);
        if (!run.error.empty()) return run.error;
        // A tick finds core 0 with more news than its ring holds: it stands still until these are taken.
        PacketPool pool("feed", 4095);
        for (unsigned i = 0; i < 500; ++i) pool.put(ring_of(0, 0), frame_of(2 * i));
        std::this_thread::sleep_for(1500ms);
        const auto answer = PacketBuilder()
                                .ethernet(0x0800)
                                .ipv4("8.8.4.4", "10.0.0.1", 17)
                                .udp(53, 6000)
                                .payload(777)
                                .bytes();
        pool.put(ring_of(0, 0), answer);
        for (unsigned i = 0; i < 70; ++i) pool.put(ring_of(0, 1), frame_of(1, 1000));
        std::this_thread::sleep_for(50ms);
        EXPECT(run.engine->poll(0ms));
        EXPECT(sink.volumes == 1);
        // On a machine that lets core 0 not run in time, that is counted.
        EXPECT(sink.payload_was_first || run.engine->status().cores[0].behind != 0);
        run.engine->stop();
        EXPECT(sink.payload_told);
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("payload of a key that comes again is told after the end of the flow that had it", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    struct Lives final : FlowSink, PayloadSink {
        bool on_payload(const PayloadSample& sample) noexcept override {
            if (sample.payload.size() != 777) return false;
            ++samples;
            while_alive += lives;
            return false;
        }
        void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
            for (const FlowUpdate& update : updates)
                if (datapath::host16(update.key.local_port) == 6000)
                    lives = update.reason != UpdateReason::ended;
        }
        bool lives = false;
        unsigned samples = 0, while_alive = 0;
    };
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        config.table.sample_payload = true;
        config.table.idle_timeout = 1s;
        Lives sink;
        Running run(config, *region, &sink);
        if (!run.error.empty()) return run.error;
        // Core 1 has a backlog for ever, and news: core 0's updates wait for it.
        fill_for_ever(ring_of(0, 1), "for_ever", [](unsigned i) { return frame_of(2 * i + 1); });
        PacketPool pool("feed", 4095);
        const auto frame = PacketBuilder()
                               .ethernet(0x0800)
                               .ipv4("10.0.0.1", "8.8.4.4", 17)
                               .udp(6000, 443)
                               .payload(777)
                               .bytes();
        // Just behind the tick that ends the flow before.
        std::jthread feeder([&] {
            auto at = std::chrono::ceil<std::chrono::seconds>(std::chrono::system_clock::now()) + 5ms;
            for (int i = 0; i < 3; ++i, at += 2s) {
                std::this_thread::sleep_until(at);
                pool.put(ring_of(0, 0), frame);
            }
        });
        for (const auto deadline = Clock::now() + 10s; sink.samples < 3 && Clock::now() < deadline;)
            EXPECT(run.engine->poll(1ms));
        feeder.join();
        EXPECT(sink.samples == 3 && sink.while_alive == 0);
        run.engine->stop();
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("a core that has a backlog for ever holds up another's updates for a moment, which is counted",
          "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    struct Told final : FlowSink, PayloadSink {
        bool on_payload(const PayloadSample&) noexcept override { return false; }
        void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
            for (const FlowUpdate& update : updates)
                volumes +=
                    update.reason == UpdateReason::volume && datapath::host16(update.key.local_port) == 6000;
        }
        unsigned volumes = 0;
    };
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        config.table.sample_payload = true;
        Told sink;
        Running run(config, *region, &sink);
        if (!run.error.empty()) return run.error;
        fill_for_ever(ring_of(0, 0), "for_ever", [](unsigned i) { return frame_of(2 * i); });
        PacketPool pool("feed", 4095);
        const auto frame = PacketBuilder()
                               .ethernet(0x0800)
                               .ipv4("10.0.0.1", "8.8.4.4", 17)
                               .udp(6000, 443)
                               .payload(1000)
                               .bytes();
        for (unsigned i = 0; i < 70; ++i) pool.put(ring_of(0, 1), frame);
        for (const auto deadline = Clock::now() + 10s; sink.volumes == 0 && Clock::now() < deadline;)
            EXPECT(run.engine->poll(1ms));
        EXPECT(sink.volumes == 1);
        EXPECT(run.engine->status().cores[0].behind > 0);
        run.engine->stop();
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("a volume is told at once, and notify_at reaches the core that has the flow", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    struct Volumes final : FlowSink {
        void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
            for (const FlowUpdate& update : updates) {
                last = update;
                if (update.reason == UpdateReason::volume) told.push_back(update.total.bytes_out);
            }
        }
        FlowUpdate last;
        std::vector<std::uint64_t> told;
    };
    const std::string wrong = in_own_process([&]() -> std::string {
        Volumes sink;
        Running run(two_rings(), *region, &sink);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        const auto send = [&](unsigned packets) {
            for (unsigned i = 0; i < packets; ++i)
                pool.put(ring_of(0, 1), frame_of(1, 1000));  // 1028 B of IP
        };
        const auto until = [&](std::size_t number) {
            for (const auto deadline = Clock::now() + 10s;
                 sink.told.size() < number && Clock::now() < deadline;)
                if (!run.engine->poll(1ms)) return false;
            return sink.told.size() >= number;
        };
        send(70);
        EXPECT(until(1));
        EXPECT(sink.told[0] >= datapath::VOLUME_EVENT_MIN &&
               sink.told[0] < datapath::VOLUME_EVENT_MIN + 1028);
        // The next one would come at the double; asked for earlier, it comes earlier.
        run.engine->notify_at(sink.last.key, 80'000);
        std::this_thread::sleep_for(5ms);
        send(20);
        EXPECT(until(2));
        EXPECT(sink.told[1] >= 80'000 && sink.told[1] < 80'000 + 1028);
        run.engine->stop();
        return {};
    });
    CHECK(wrong == "");
}

TEST_CASE("after a clean stop nothing is left, and DPDK cannot start twice in a process", "[dpdk]") {
    namespace fs = std::filesystem;
    const auto region = make_region("8.0.0.0/8 US\n");
    const auto names_in = [](const char* folder) {
        std::set<std::string> names;
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator(folder, ignored))
            names.insert(entry.path().filename());
        return names;
    };
    const auto polling_threads = [] {
        unsigned count = 0;
        for (const auto& task : fs::directory_iterator("/proc/self/task")) {
            std::string name;
            std::getline(std::ifstream(task.path() / "comm") >> std::ws, name);
            count += name.starts_with("ew-poll");
        }
        return count;
    };
    const auto before = names_in("/var/run/dpdk");
    const std::string wrong = in_own_process([&]() -> std::string {
        Running run(two_rings(), *region);
        if (!run.error.empty()) return run.error;
        for (const auto deadline = Clock::now() + 5s; polling_threads() < 2 && Clock::now() < deadline;)
            std::this_thread::yield();  // a thread names itself
        EXPECT(polling_threads() == 2);
        run.engine->stop();
        EXPECT(polling_threads() == 0);
        EXPECT(run.engine->totals().interfaces.size() == 1);  // the last word stays readable
        Running again(two_rings(), *region);
        EXPECT(again.error.find("DPDK starts once in a process") != std::string::npos);
        return {};
    });
    CHECK(wrong == "");
    CHECK(names_in("/var/run/dpdk") == before);
}

TEST_CASE("what cannot start says why and how to cure it", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const auto error_of = [&](const std::function<void(DpdkConfig&)>& change) {
        return in_own_process([&] {
            DpdkConfig config = two_rings();
            change(config);
            return Running(config, *region).error;
        });
    };
    CHECK(error_of([](auto& c) {
              c.eal_args.emplace_back("-l0");
          }).find("use eal_args (-l); the engine sets this") == 0);
    CHECK(error_of([](auto& c) { c.cores = {0}; }).find("1 CPUs for 2 queues") != std::string::npos);
    CHECK(error_of([](auto& c) { c.cores = {1, 1}; }).find("a core polls alone") != std::string::npos);
    CHECK(error_of([](auto& c) { c.eal_args = {"--no-pci"}; }).find("DPDK found no port") !=
          std::string::npos);
    CHECK(error_of([](auto& c) { c.ports = {"net_ring7"}; }).find("DPDK has these ports: net_ring0") !=
          std::string::npos);
    CHECK(error_of([](auto& c) {
              c.eal_args = {"--no-pci", "--vdev=net_nonsense0"};
          }).find("look at the devices in eal_args") != std::string::npos);
    CHECK(error_of([](auto& c) { c.mbufs = 1'000'000; }).find("lower mbufs or descriptors") !=
          std::string::npos);
    CHECK(error_of([](auto& c) { c.time = capture::DpdkTime::device; }).find("only net_pcap has one") !=
          std::string::npos);
    CHECK(error_of([](auto& c) {
              c.queues = 17;
              c.cores.clear();
          }).find("lower queues") != std::string::npos);
    CHECK(error_of([](auto& c) {
              c.huge_pages = true;
              c.memory_mb = 1u << 20;
          }).find("set huge pages aside") != std::string::npos);
}

TEST_CASE("without a symmetric hash one core polls every queue, and says so", "[dpdk]") {
    const auto region = make_region("8.0.0.0/8 US\n");
    const std::string wrong = in_own_process([&]() -> std::string {
        DpdkConfig config = two_rings();
        config.spread = capture::DpdkSpread::automatic;
        std::string warning;
        config.log = [&](capture::DpdkLogLevel level, std::string_view line) {
            if (level == capture::DpdkLogLevel::warning) warning += line;
        };
        Running run(config, *region);
        if (!run.error.empty()) return run.error;
        PacketPool pool("feed", 4095);
        for (unsigned i = 0; i < 1000; ++i) pool.put(ring_of(0, i % 2), frame_of(i));
        EXPECT(run.wait_for(1000));
        EXPECT(run.engine->details().words.at("spread") == "one core");
        EXPECT(run.engine->status().cores.size() == 1);
        EXPECT(warning.find("one core polls every queue") != std::string::npos);
        run.engine->stop();
        EXPECT(run.sums.packets == 1000);
        return {};
    });
    CHECK(wrong == "");
}
