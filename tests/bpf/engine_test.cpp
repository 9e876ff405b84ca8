// tests/bpf/engine_test.cpp - the engine on real interfaces, in network namespaces of its own.
// SPDX-License-Identifier: Apache-2.0
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include "capture/ebpf/detach.h"
#include "capture/ebpf/ebpf_engine.h"
#include "tests/support/catch.h"
#include "tests/support/test_netns.h"
#include "tests/support/test_region.h"

namespace dp = egresswatch::datapath;
using namespace std::chrono_literals;
using egresswatch::Address;
using egresswatch::FlowCounters;
using egresswatch::FlowUpdate;
using egresswatch::Timestamp;
using egresswatch::UpdateReason;
using egresswatch::capture::AttachMode;
using egresswatch::capture::EbpfConfig;
using egresswatch::capture::EbpfEngine;
using egresswatch::test::make_region;
using egresswatch::test::TestNetns;

namespace {

constexpr const char* REGION = "1.0.0.0/8 US\n2.0.0.0/8 DE\n3.0.0.0/8 CN\n";

struct Sink final : egresswatch::FlowSink {
    std::vector<FlowUpdate> updates;
    FlowCounters sum;  // of all deltas
    unsigned calls = 0;
    Timestamp last_now{};
    bool went_back = false;
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp now) noexcept override {
        calls++;
        went_back = went_back || now < last_now;
        last_now = now;
        for (const FlowUpdate& update : news) {
            updates.push_back(update);
            sum.packets_out += update.delta.packets_out;
            sum.bytes_out += update.delta.bytes_out;
            sum.packets_in += update.delta.packets_in;
            sum.bytes_in += update.delta.bytes_in;
        }
    }
    [[nodiscard]] unsigned count(UpdateReason reason) const {
        return static_cast<unsigned>(
            std::count_if(updates.begin(), updates.end(), [&](const auto& u) { return u.reason == reason; }));
    }
};

EbpfConfig config(AttachMode attach = AttachMode::automatic) {
    EbpfConfig made;
    made.interfaces = {"ew0"};
    made.flow_slots_per_cpu = 1024;
    made.attach = attach;
    made.drain_interval = 50ms;
    return made;
}

template <typename T>
T need(std::expected<T, egresswatch::capture::OsError> result) {
    if (!result) FAIL(result.error().to_string());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// A process of its own, which does not outlive the test, however that ends.
class Child {
public:
    explicit Child(pid_t pid) : pid_(pid) { REQUIRE(pid >= 0); }
    ~Child() { (void)end(); }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    // In the child, first of all.
    static void die_with_parent() { ::prctl(PR_SET_PDEATHSIG, SIGKILL); }
    bool end() {
        const pid_t pid = std::exchange(pid_, 0);
        return pid != 0 && ::kill(pid, SIGKILL) == 0 && ::waitpid(pid, nullptr, 0) == pid;
    }

private:
    pid_t pid_;
};

// Sends and counts on one CPU: a flow is another entry on each.
class OnOneCpu {
public:
    OnOneCpu() {
        REQUIRE(::sched_getaffinity(0, sizeof before_, &before_) == 0);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(::sched_getcpu(), &one);
        REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
    }
    ~OnOneCpu() { ::sched_setaffinity(0, sizeof before_, &before_); }
    OnOneCpu(const OnOneCpu&) = delete;
    OnOneCpu& operator=(const OnOneCpu&) = delete;

private:
    cpu_set_t before_{};
};

std::unique_ptr<EbpfEngine> started(const EbpfConfig& made, Sink& sink,
                                    const egresswatch::RegionTable& region) {
    auto engine = need(EbpfEngine::make(made));
    need(engine->install_region(region));
    need(engine->start(sink));
    return engine;
}

// Polls until `reached` or ten seconds are over.
template <typename Reached>
bool poll_until(EbpfEngine& engine, Reached reached) {
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!reached()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        need(engine.poll(100ms));
    }
    return true;
}

std::uint64_t outside_packets(const egresswatch::capture::TotalsSnapshot& totals,
                              const egresswatch::RegionTable& region) {
    std::uint64_t packets = 0;
    for (std::size_t id = 0; id < totals.by_class.size(); id++)
        if (region.class_info(static_cast<std::uint16_t>(id)).kind >= dp::KIND_UNKNOWN)
            packets += totals.by_class[id].by_direction[dp::DIRECTION_OUT].packets;
    return packets;
}

void conserves(const egresswatch::capture::TotalsSnapshot& totals) {
    dp::traffic seen{}, outcome{}, classes{}, ip{};
    for (const auto& interface : totals.interfaces)
        for (const auto& way : interface.totals.by_direction) {
            seen.packets += way.seen.packets;
            seen.bytes += way.seen.bytes;
            for (unsigned i = 0; i < dp::OUTCOME_COUNT; i++) {
                outcome.packets += way.outcome[i].packets;
                outcome.bytes += way.outcome[i].bytes;
                if (i >= dp::OUTCOME_NOT_IP) continue;
                ip.packets += way.outcome[i].packets;
                ip.bytes += way.outcome[i].bytes;
            }
        }
    for (const auto& by_class : totals.by_class)
        for (const auto& way : by_class.by_direction) {
            classes.packets += way.packets;
            classes.bytes += way.frame_bytes;
        }
    CHECK(seen.packets == outcome.packets);
    CHECK(seen.bytes == outcome.bytes);
    CHECK(classes.packets == ip.packets);
    CHECK(classes.bytes == ip.bytes);
}

}  // namespace

TEST_CASE("traffic of a hooked interface becomes flow updates and totals", "[ebpf][bpf]") {
    const auto mode = GENERATE(AttachMode::tcx, AttachMode::clsact);
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto engine = started(config(mode), sink, *region);
    TestNetns::send_udp("1.2.3.4", 443, 5000, 10, 100);
    TestNetns::send_udp("2.2.3.4", 443, 5000, 7, 100);
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 10; }));
    CHECK(sink.sum.packets_out == 10);
    CHECK(sink.sum.bytes_out == 1280);
    const FlowUpdate& first = sink.updates.front();
    CHECK(first.reason == UpdateReason::created);
    CHECK(first.remote() == Address::parse("1.2.3.4").value());
    CHECK(first.local() == Address::parse("10.77.0.1").value());
    CHECK(first.remote_port() == 443);
    CHECK(first.initiator == dp::INITIATOR_LOCAL);
    CHECK(first.ifindex == TestNetns::ifindex("ew0"));
    const auto age = std::chrono::system_clock::now() - first.first_seen;
    CHECK(age > 0s);
    CHECK(age < 10s);
    const auto totals = engine->totals();
    REQUIRE(totals.interfaces.size() == 1);
    CHECK(totals.interfaces[0].hook == (mode == AttachMode::tcx ? "tcx" : "clsact"));
    CHECK(totals.interfaces[0].hooked);
    CHECK(totals.interfaces[0].totals.by_direction[dp::DIRECTION_OUT].seen.packets == 17);
    CHECK(totals.by_class[region->lookup(Address::parse("2.2.3.4").value())].by_direction[0].ip_bytes ==
          7 * 128);
    CHECK(totals.flows_live == 1);
    conserves(totals);
    engine->stop();
    CHECK(sink.count(UpdateReason::ended) == 1);
    CHECK_FALSE(sink.went_back);
    const auto left = need(egresswatch::capture::detach(egresswatch::capture::PIN_DIR_DEFAULT));
    CHECK(left.removed.empty());
    TestNetns::run("! tc qdisc show dev ew0 | grep clsact");
}

TEST_CASE("a volume event is handed over before the drain, and at the bytes that were asked for",
          "[ebpf][bpf]") {
    const OnOneCpu pinned;
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto slow = config();
    slow.drain_interval = 60s;
    auto engine = started(slow, sink, *region);
    TestNetns::send_udp("3.2.3.4", 443, 5000, 1, 1000);
    REQUIRE(poll_until(*engine, [&] { return sink.count(UpdateReason::created) == 1; }));
    engine->notify_at(sink.updates.front().key, 5000);
    TestNetns::send_udp("3.2.3.4", 443, 5000, 4, 1000);
    const auto sent = std::chrono::steady_clock::now();
    REQUIRE(poll_until(*engine, [&] { return sink.count(UpdateReason::volume) >= 1; }));
    CHECK(std::chrono::steady_clock::now() - sent < 1s);
    CHECK(sink.updates.back().total.bytes_out >= 5000);
    TestNetns::send_udp("3.2.3.4", 443, 5000, 70, 1000);
    REQUIRE(poll_until(*engine, [&] { return sink.sum.bytes_out >= 65536; }));
    engine->stop();
    CHECK(sink.sum.bytes_out == 75 * 1028);
}

TEST_CASE("no byte is lost while flows expire under traffic", "[ebpf][bpf]") {
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto quick = config();
    quick.flow_slots_per_cpu = 4096;
    quick.drain_interval = 5ms;
    quick.idle_timeout = 3ms;  // flows die and are born again all the time
    auto engine = started(quick, sink, *region);
    std::atomic<bool> over{false};
    std::thread sender([&] {
        for (unsigned round = 0; round < 400; round++) {
            for (std::uint16_t port = 1; port <= 20; port++)
                TestNetns::send_udp("1.2.3.4", port, static_cast<std::uint16_t>(6000 + port), 2,
                                    50 + round % 100);
            if (round % 8 == 0) std::this_thread::sleep_for(30ms);
        }
        over = true;
    });
    while (!over) need(engine->poll(5ms));
    sender.join();
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 16000; }));
    const auto totals = engine->totals();
    CHECK(totals.losses[dp::LOSS_FLOWS_FULL] == 0);
    engine->stop();
    CHECK(sink.sum.packets_out == 16000);
    CHECK(outside_packets(totals, *region) == 16000);
    const auto& us = totals.by_class[region->lookup(Address::parse("1.2.3.4").value())].by_direction[0];
    CHECK(us.ip_bytes == sink.sum.bytes_out);
    CHECK(sink.count(UpdateReason::ended) > 100);  // it did happen
    // Under one identity: deltas add up to the total, and nothing comes after the end.
    std::map<std::string, FlowCounters> open;
    for (const FlowUpdate& update : sink.updates) {
        const std::string key(reinterpret_cast<const char*>(&update.key), sizeof update.key);
        FlowCounters& flow = open[key];
        flow.packets_out += update.delta.packets_out;
        flow.bytes_out += update.delta.bytes_out;
        REQUIRE(flow == update.total);
        if (update.reason == UpdateReason::ended) open.erase(key);
    }
    CHECK(open.empty());
}

TEST_CASE("the region table is swapped under traffic, also beyond its first capacity", "[ebpf][bpf]") {
    TestNetns netns;
    const auto small = make_region(REGION);
    // Scattered prefixes: the block outgrows the quarter of headroom, and then some.
    std::string many = REGION;
    std::mt19937 random(1);
    for (unsigned i = 0; i < 3000; i++) {
        char line[64];
        std::snprintf(line, sizeof line, "2a01:%x:%x:%x::/64 US\n", static_cast<unsigned>(random() & 0xffff),
                      static_cast<unsigned>(random() & 0xffff), static_cast<unsigned>(random() & 0xffff));
        many += line;
    }
    const auto large = make_region(many, small.get());
    REQUIRE(large->block().size() > std::size_t{2} << 20);
    Sink sink;
    auto engine = started(config(), sink, *small);
    std::atomic<bool> over{false};
    std::thread sender([&] {
        for (unsigned i = 0; i < 300; i++) {
            TestNetns::send_udp("1.2.3.4", 443, 5000, 20, 100);
            std::this_thread::sleep_for(1ms);
        }
        over = true;
    });
    const auto latest = make_region("1.0.0.0/8 US\n9.0.0.0/8 BR\n", small.get());
    need(engine->install_region(*latest));
    const auto on_top = make_region(many, latest.get());
    need(engine->install_region(*on_top));
    while (!over) need(engine->poll(20ms));
    sender.join();
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 6000; }));
    const auto totals = engine->totals();
    CHECK(totals.by_class[on_top->lookup(Address::parse("1.2.3.4").value())].by_direction[0].packets == 6000);
    CHECK(totals.losses[dp::LOSS_NO_REGION_TABLE] == 0);
    conserves(totals);
    engine->stop();
    CHECK(sink.sum.packets_out == 6000);
}

TEST_CASE("a table whose class ids mean something else is refused", "[ebpf][bpf]") {
    TestNetns netns;
    Sink sink;
    auto engine = started(config(), sink, *make_region(REGION));
    const auto refused = engine->install_region(*make_region("9.0.0.0/8 BR\n1.0.0.0/8 JP\n"));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().to_string().find("on top of the previous one") != std::string::npos);
    engine->stop();
}

TEST_CASE("after kill -9 the hooks count on, and the next engine takes them over", "[ebpf][bpf]") {
    const auto mode = GENERATE(AttachMode::tcx, AttachMode::clsact);
    TestNetns netns;
    const auto region = make_region(REGION);
    int pipe_fds[2];
    REQUIRE(::pipe(pipe_fds) == 0);
    const pid_t forked = ::fork();
    if (forked == 0) {
        Child::die_with_parent();
        auto* sink = new Sink;
        auto engine = EbpfEngine::make(config(mode));
        const bool good = engine && (*engine)->install_region(*region) && (*engine)->start(*sink);
        (void)!::write(pipe_fds[1], good ? "y" : "n", 1);
        while (good) (void)(*engine)->poll(50ms);
        ::_exit(1);
    }
    Child child(forked);
    char good = 0;
    REQUIRE(::read(pipe_fds[0], &good, 1) == 1);
    REQUIRE(good == 'y');
    TestNetns::send_udp("1.2.3.4", 443, 5000, 5, 100);

    Sink sink;
    {
        auto second = need(EbpfEngine::make(config(mode)));
        const auto refused = second->install_region(*region);
        REQUIRE_FALSE(refused);  // while the first lives
        CHECK(refused.error().to_string().find("is running") != std::string::npos);
        const auto not_detached = egresswatch::capture::detach(egresswatch::capture::PIN_DIR_DEFAULT);
        CHECK_FALSE(not_detached);
    }
    REQUIRE(child.end());
    TestNetns::send_udp("1.2.3.4", 443, 5000, 6, 100);
    {
        auto other_size = config(mode);
        other_size.flow_slots_per_cpu = 2048;
        auto second = need(EbpfEngine::make(other_size));
        const auto refused = second->install_region(*region);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().to_string().find("egresswatch detach") != std::string::npos);
    }
    auto engine = started(config(mode), sink, *region);
    CHECK(engine->adoption().adopted);
    CHECK(engine->adoption().hooks_replaced == 2);
    CHECK(sink.sum.packets_out == 11);
    TestNetns::send_udp("1.2.3.4", 443, 5000, 7, 100);
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 18; }));
    const auto totals = engine->totals();
    CHECK(outside_packets(totals, *region) == 18);
    CHECK(totals.interfaces[0].totals.by_direction[dp::DIRECTION_OUT].seen.packets == 18);
    conserves(totals);
    engine->stop();
    CHECK(sink.sum.packets_out == 18);
}

TEST_CASE("detach removes everything that a dead daemon left, and says so", "[ebpf][bpf]") {
    const auto mode = GENERATE(AttachMode::tcx, AttachMode::clsact);
    TestNetns netns;
    const auto region = make_region(REGION);
    {
        Sink sink;
        auto engine = started(config(mode), sink, *region);
    }  // destroyed, not stopped: as a crash
    TestNetns::send_udp("1.2.3.4", 443, 5000, 5, 100);
    const auto report = need(egresswatch::capture::detach(egresswatch::capture::PIN_DIR_DEFAULT));
    CHECK(report.problems.empty());
    const auto said = [&](const std::string& word) {
        return std::any_of(report.removed.begin(), report.removed.end(),
                           [&](const std::string& line) { return line.find(word) != std::string::npos; });
    };
    CHECK(said("ew0 egress"));
    CHECK(said("ew0 ingress"));
    CHECK(said("map flows"));
    CHECK(said("qdisc") == (mode == AttachMode::clsact));
    TestNetns::run(
        "! tc qdisc show dev ew0 | grep clsact; ! test -e /sys/fs/bpf/egresswatch; "
        "! bpftool net show dev ew0 | grep ew_");
    CHECK(need(egresswatch::capture::detach(egresswatch::capture::PIN_DIR_DEFAULT)).removed.empty());
}

TEST_CASE("a clsact qdisc that others use stays", "[ebpf][bpf]") {
    TestNetns netns;
    TestNetns::run(
        "tc qdisc add dev ew0 clsact; tc filter add dev ew0 egress prio 7 bpf bytecode '1,6 0 0 4294967295'");
    const auto region = make_region(REGION);
    Sink sink;
    auto engine = started(config(AttachMode::clsact), sink, *region);
    TestNetns::send_udp("1.2.3.4", 443, 5000, 5, 100);
    engine->stop();
    CHECK(sink.sum.packets_out == 5);
    TestNetns::run(
        "tc filter show dev ew0 egress | grep -q 'pref 7'; ! tc filter show dev ew0 egress | grep ew_");
}

TEST_CASE("interfaces that come are hooked within a second, those that go keep their counts", "[ebpf][bpf]") {
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto wide = config();
    wide.interfaces = {"ew*"};
    auto engine = started(wide, sink, *region);
    TestNetns::run("ip link add ew5 type veth peer name other5; ip link set ew5 up");
    const auto made = std::chrono::steady_clock::now();
    const auto hooked = [&](const std::string& name) {
        for (const auto& interface : engine->totals().interfaces)
            if (interface.name == name) return interface.hooked;
        return false;
    };
    REQUIRE(poll_until(*engine, [&] { return hooked("ew5"); }));
    CHECK(std::chrono::steady_clock::now() - made < 1s);
    CHECK_FALSE(hooked("other5"));
    TestNetns::run(
        "ip address add 10.78.0.1/24 dev ew5; ip link set other5 up; ip route add 3.0.0.0/8 via 10.78.0.2; "
        "ip neigh replace 10.78.0.2 lladdr 02:00:00:00:00:05 dev ew5 nud permanent");
    TestNetns::send_udp("3.2.3.4", 443, 5000, 9, 100);
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 9; }));
    TestNetns::run("ip link del ew5");
    REQUIRE(poll_until(*engine, [&] {
        return engine->totals().interfaces.size() == 2 && engine->totals().interfaces[1].name == "(gone)";
    }));
    const auto totals = engine->totals();
    CHECK(totals.interfaces[1].totals.by_direction[dp::DIRECTION_OUT].seen.packets >= 9);
    conserves(totals);
    engine->stop();
    CHECK(sink.sum.packets_out == 9);
}

TEST_CASE("a device without a link header is counted from its IP header on", "[ebpf][bpf]") {
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto tun = config();
    tun.interfaces = {"ewtun"};
    auto engine = started(tun, sink, *region);
    TestNetns::run(
        "ip tuntap add ewtun mode tun; ip link set ewtun up; ip route replace 3.0.0.0/8 dev ewtun");
    REQUIRE(poll_until(*engine, [&] { return engine->totals().interfaces.size() == 1; }));
    CHECK_FALSE(engine->totals().interfaces[0].layer2);
    TestNetns::send_udp("3.2.3.4", 443, 5000, 3, 100);
    need(engine->poll(100ms));
    // Nobody has the device open: packets are dropped behind the hook, which has seen them.
    REQUIRE(poll_until(*engine, [&] { return sink.sum.packets_out >= 3; }));
    CHECK(sink.sum.bytes_out == 3 * 128);
    const auto seen = engine->totals().interfaces[0].totals.by_direction[dp::DIRECTION_OUT].seen;
    CHECK(seen.bytes == 3 * 128);
    engine->stop();
}

TEST_CASE("patterns choose interfaces", "[ebpf][bpf]") {
    using egresswatch::capture::EbpfConfig;
    TestNetns netns;
    const auto region = make_region(REGION);
    Sink sink;
    auto physical = config();
    physical.interfaces = {"all-physical"};
    auto engine = started(physical, sink, *region);
    CHECK(engine->totals().interfaces.empty());  // a veth has a kind: no hardware here
    engine->stop();
    auto everything = config();
    everything.interfaces = {"*"};
    engine = started(everything, sink, *region);
    REQUIRE(engine->totals().interfaces.size() == 1);  // not the loopback
    CHECK(engine->totals().interfaces[0].name == "ew0");
    engine->stop();
    everything.interfaces = {"lo", "ew0"};
    engine = started(everything, sink, *region);
    CHECK(engine->totals().interfaces.size() == 2);
    engine->stop();
}

TEST_CASE("three capabilities are enough, from load to stop", "[ebpf][bpf]") {
    const auto mode = GENERATE(AttachMode::tcx, AttachMode::clsact);
    TestNetns netns;
    const auto region = make_region(REGION);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
        for (const int capability : {CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON})
            sets[CAP_TO_INDEX(capability)].permitted |= CAP_TO_MASK(capability);
        for (auto& set : sets) set.effective = set.permitted;
        if (::syscall(SYS_capset, &header, sets) != 0) ::_exit(2);
        Sink sink;
        auto engine = EbpfEngine::make(config(mode));
        if (!engine || !(*engine)->install_region(*region) || !(*engine)->start(sink)) ::_exit(3);
        TestNetns::send_udp("1.2.3.4", 443, 5000, 5, 100);
        const auto deadline = std::chrono::steady_clock::now() + 10s;
        while (sink.sum.packets_out < 5 && std::chrono::steady_clock::now() < deadline)
            if (!(*engine)->poll(50ms)) ::_exit(4);
        if (!(*engine)->totals().interfaces.at(0).hooked) ::_exit(5);
        (*engine)->stop();
        ::_exit(sink.sum.packets_out == 5 ? 0 : 6);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(need(egresswatch::capture::detach(egresswatch::capture::PIN_DIR_DEFAULT)).removed.empty());
}
