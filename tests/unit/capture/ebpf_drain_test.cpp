// tests/unit/capture/ebpf_drain_test.cpp - the drain over a table that the test writes, as the kernel would.
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/drain.h"

#include <cstring>

#include "capture/ebpf/interfaces.h"
#include "classifier/flow_place.h"
#include "tests/support/catch.h"

namespace dp = egresswatch::datapath;
using namespace std::chrono_literals;
using egresswatch::FlowUpdate;
using egresswatch::UpdateReason;
using egresswatch::capture::FlowDrain;
using egresswatch::capture::interface_wanted;
using egresswatch::capture::LinkNews;

namespace {

constexpr std::uint32_t SLOTS = 64;  // per CPU; two CPUs
constexpr std::uint64_t SECOND = 1'000'000'000;

struct Table {
    std::vector<dp::flow_entry> entries{2 * SLOTS};
    std::vector<dp::flow_tags> tags{2 * SLOTS / dp::FLOW_PROBES};
    std::vector<dp::flow_outer> outers{2 * SLOTS};
    std::vector<dp::flow_sender> senders{2 * SLOTS};
    bool grace_over = false;
    unsigned graces = 0;
    FlowDrain drain{{SLOTS, 60s, 5s}, entries, tags,
                    outers,           senders, {[this] { graces++; }, [this] { return grace_over; }}};

    dp::flow_entry& put(std::uint32_t slot, std::uint16_t port, std::uint64_t bytes, std::uint64_t at_ns) {
        dp::flow_entry& entry = entries[slot];
        entry = {};
        entry.head.key.remote_port = port;
        entry.head.key.l4_proto = 6;
        entry.counts.packets_out = 1;
        entry.counts.bytes_out = bytes;
        entry.head.first_seen_ns = entry.counts.last_seen_ns = at_ns;
        entry.counts.notify_bytes_out = dp::VOLUME_EVENT_MIN;
        entry.head.tag = (slot << 8) | dp::FLOW_LIVE;
        tags[slot / dp::FLOW_PROBES].tag[slot % dp::FLOW_PROBES] = entry.head.tag;
        return entry;
    }
    std::vector<FlowUpdate> scan(std::uint64_t now_ns) {
        while (!drain.scan(7, now_ns)) continue;
        drain.advance_closing();
        drain.update_senders().clear();
        return std::exchange(drain.updates(), {});
    }
};

}  // namespace

TEST_CASE("a flow's sender is that of the slot that moves, and a process before a reason for none",
          "[ebpf][unit]") {
    Table table;
    table.put(3, 443, 100, 10 * SECOND);
    table.put(SLOTS + 9, 443, 100, 10 * SECOND);
    table.senders[3] = {1, 4711, 1, 0, dp::SENDER_PROCESS, dp::HOW_SENT, 0, 0};
    table.senders[SLOTS + 9] = {0, 0, 0, 0, dp::SENDER_HANDSHAKE, 0, 0, 0};
    (void)table.drain.scan(2 * SLOTS, 11 * SECOND);
    REQUIRE(table.drain.updates().size() == table.drain.update_senders().size());
    REQUIRE(!table.drain.updates().empty());
    CHECK(table.drain.update_senders().back().pid == 4711);
    table.drain.updates().clear();
    table.drain.update_senders().clear();
    // Another process sends, on the other CPU.
    table.entries[SLOTS + 9].counts.bytes_out = 200;
    table.senders[SLOTS + 9] = {2, 4712, 1, 0, dp::SENDER_PROCESS, dp::HOW_INHERITED, 1, 0};
    (void)table.drain.scan(2 * SLOTS, 12 * SECOND);
    REQUIRE(table.drain.update_senders().size() == 1);
    CHECK(table.drain.update_senders()[0].pid == 4712);
    CHECK(table.drain.update_senders()[0].changes == 1);
}

TEST_CASE("who sends on a flow is found by its key before any news of it, on whichever CPU", "[ebpf][unit]") {
    constexpr std::uint64_t seed = 77;
    Table table;
    FlowDrain drain({SLOTS, 60s, 5s, true, seed}, table.entries, table.tags, table.outers, table.senders,
                    {[] {}, [] { return true; }});
    dp::flow_key key{};
    key.remote_port = 53;
    key.l4_proto = 17;
    CHECK(drain.sender_of(key).outcome == dp::SENDER_UNSEEN);
    const egresswatch::FlowPlace place = egresswatch::place_of(key, seed, SLOTS);
    for (const std::uint32_t bucket : place.buckets) {
        const std::uint32_t slot = SLOTS + bucket + 5;
        dp::flow_entry& entry = table.put(slot, 53, 100, SECOND);
        entry.head.key = key;
        entry.head.tag = place.tag;
        table.senders[slot] = {1, 4711 + bucket, 1, 0, dp::SENDER_PROCESS, dp::HOW_SENT, 0, 0};
        CHECK(drain.sender_of(key).pid == 4711 + bucket);
        dp::flow_key other = key;
        other.local_port = 1;
        CHECK(drain.sender_of(other).outcome == dp::SENDER_UNSEEN);
        entry.head.tag = dp::FLOW_FREE;
        CHECK(drain.sender_of(key).outcome == dp::SENDER_UNSEEN);
    }
}

TEST_CASE("what was sent while nobody looked says so", "[ebpf][unit]") {
    Table table;
    table.put(3, 443, 100, 10 * SECOND);
    FlowDrain drain({SLOTS, 60s, 5s, true}, table.entries, table.tags, table.outers, table.senders,
                    {[] {}, [] { return true; }});
    (void)drain.scan(2 * SLOTS, 11 * SECOND);
    REQUIRE(drain.update_senders().size() == 1);
    CHECK(drain.update_senders()[0].outcome == dp::SENDER_DAEMON_AWAY);
}

TEST_CASE("two CPUs' slots of one flow are one flow", "[ebpf][unit]") {
    Table table;
    dp::flow_entry& out = table.put(3, 443, 100, 10 * SECOND);
    out.head.initiator = dp::INITIATOR_REMOTE;  // a guess, made first
    out.counts.handshake_out_ns = 10 * SECOND;
    dp::flow_entry& in = table.put(SLOTS + 9, 443, 0, 11 * SECOND);
    in.counts.packets_out = 0;
    in.counts.packets_in = 2;
    in.counts.bytes_in = 300;
    in.head.initiator = dp::INITIATOR_LOCAL;
    in.head.initiator_sure = 1;
    in.counts.handshake_in_ns = 10 * SECOND + 25'000'000;
    auto updates = table.scan(12 * SECOND);
    // One update, or one for each part of the pass that met a slot.
    REQUIRE_FALSE(updates.empty());
    const FlowUpdate& last = updates.back();
    CHECK(last.total.bytes_out == 100);
    CHECK(last.total.bytes_in == 300);
    CHECK(last.initiator == dp::INITIATOR_LOCAL);  // sure beats guess
    CHECK(last.initiator_sure);
    CHECK(last.handshake_rtt_us == 25'000);
    CHECK(last.first_seen.time_since_epoch() == 10s);
    CHECK(updates.front().reason == UpdateReason::created);
    CHECK(table.drain.flows() == 1);
    CHECK(table.drain.slots_used() == 2);
}

TEST_CASE("a slot is read last after the grace period, and freed only then", "[ebpf][unit]") {
    Table table;
    table.put(5, 80, 100, SECOND);
    CHECK(table.scan(2 * SECOND).size() == 1);
    CHECK(table.scan(62 * SECOND).empty());  // idle: CLOSING, and no news
    CHECK(table.entries[5].head.tag == dp::FLOW_CLOSING);
    CHECK(table.graces == 1);
    // A program run that still saw the slot live adds its packet.
    table.entries[5].counts.bytes_out += 40;
    CHECK(table.scan(63 * SECOND).empty());
    table.grace_over = true;
    const auto updates = table.scan(64 * SECOND);
    REQUIRE(updates.size() == 1);
    CHECK(updates[0].reason == UpdateReason::ended);
    CHECK(updates[0].delta.bytes_out == 40);
    CHECK(updates[0].total.bytes_out == 140);
    CHECK(table.entries[5].head.tag == dp::FLOW_FREE);
    CHECK(table.tags[0].tag[5] == dp::FLOW_FREE);
    CHECK(table.drain.flows() == 0);
}

TEST_CASE("a flow whose old slot closes while a new one counts does not end", "[ebpf][unit]") {
    Table table;
    table.put(5, 80, 100, SECOND);
    table.scan(2 * SECOND);
    table.scan(62 * SECOND);
    table.put(6, 80, 7, 62 * SECOND);  // came while slot 5 was CLOSING
    table.grace_over = true;
    std::uint64_t delta = 0;
    for (const auto& update : table.scan(63 * SECOND)) {
        CHECK(update.reason == UpdateReason::active);
        delta += update.delta.bytes_out;
    }
    CHECK(delta == 7);
    CHECK(table.drain.flows() == 1);
    CHECK(table.drain.slots_used() == 1);
}

TEST_CASE("a closed connection is freed sooner than an idle one", "[ebpf][unit]") {
    Table table;
    dp::flow_entry& closed = table.put(1, 1, 100, SECOND);
    closed.head.tcp_flags_out = closed.head.tcp_flags_in = dp::TCP_FIN | dp::TCP_ACK;
    dp::flow_entry& half = table.put(2, 2, 100, SECOND);
    half.head.tcp_flags_out = dp::TCP_FIN | dp::TCP_ACK;
    table.put(3, 3, 100, SECOND).head.tcp_flags_in = dp::TCP_RST;
    table.scan(7 * SECOND);
    CHECK(table.entries[1].head.tag == dp::FLOW_CLOSING);
    CHECK(table.entries[2].head.tag != dp::FLOW_CLOSING);
    CHECK(table.entries[3].head.tag == dp::FLOW_CLOSING);
}

TEST_CASE("in a crowded section flows are idle after a quarter of the time", "[ebpf][unit]") {
    Table table;
    for (std::uint32_t slot = 0; slot < 50; slot++)
        table.put(slot, static_cast<std::uint16_t>(slot), 1, SECOND);
    table.put(SLOTS + 1, 1000, 1, SECOND);  // the other section has room
    table.scan(2 * SECOND);
    table.scan(20 * SECOND);
    CHECK(table.entries[0].head.tag == dp::FLOW_CLOSING);
    CHECK(table.entries[SLOTS + 1].head.tag != dp::FLOW_CLOSING);
}

TEST_CASE("what a dead daemon left half freed is read and freed", "[ebpf][unit]") {
    Table table;
    table.put(4, 80, 500, SECOND).head.tag = dp::FLOW_CLOSING;
    table.tags[1].tag[2] = 0x1234 | dp::FLOW_LIVE;  // entry 10 is FREE: the copy was not cleared any more
    table.drain.adopt(SECOND);
    CHECK(table.tags[1].tag[2] == dp::FLOW_FREE);
    CHECK(table.tags[0].tag[4] != dp::FLOW_FREE);
    table.grace_over = true;
    std::uint64_t bytes = 0;
    for (unsigned i = 0; i < 2; i++)
        for (const auto& update : table.scan(2 * SECOND)) bytes += update.delta.bytes_out;
    CHECK(bytes == 500);
    CHECK(table.entries[4].head.tag == dp::FLOW_FREE);
}

TEST_CASE("an adopter tells a flow of two CPUs once and whole", "[ebpf][unit]") {
    Table table;
    table.put(3, 443, 1000, SECOND);
    table.put(SLOTS + 9, 443, 200, SECOND + 1);  // the other CPU's part
    table.put(5, 80, 50, SECOND);
    table.drain.adopt(4 * SECOND);
    const auto updates = std::exchange(table.drain.updates(), {});
    REQUIRE(updates.size() == 2);
    for (const FlowUpdate& update : updates) {
        CHECK(update.reason == UpdateReason::created);
        CHECK(update.delta == update.total);
        CHECK(update.total.bytes_out == (update.key.remote_port == 443 ? 1200U : 50U));
    }
    table.entries[SLOTS + 9].counts.bytes_out += 5;
    const auto later = table.scan(5 * SECOND);
    REQUIRE(later.size() == 1);
    CHECK(later[0].delta.bytes_out == 5);
}

TEST_CASE("a wanted volume is split over the slots through which it may come", "[ebpf][unit]") {
    Table table;
    dp::flow_entry& one = table.put(1, 443, 10'000, SECOND);
    dp::flow_entry& two = table.put(SLOTS + 1, 443, 30'000, SECOND);
    table.scan(2 * SECOND);
    table.drain.notify_at(one.head.key, 60'000);
    CHECK(one.counts.notify_bytes_out == 20'000);
    CHECK(two.counts.notify_bytes_out == 40'000);
    table.drain.notify_at(one.head.key, 1'000'000'000);  // never later than the kernel's own step
    CHECK(one.counts.notify_bytes_out == 20'000);
    one.counts.bytes_out = 20'000;
    table.drain.on_event({dp::EVENT_FLOW_VOLUME, 0, 1, 0, 0, 20'000, one.head.key});
    REQUIRE(table.drain.updates().size() == 1);
    CHECK(table.drain.updates()[0].reason == UpdateReason::volume);
    CHECK(table.drain.updates()[0].delta.bytes_out == 10'000);
    // An event of nonsense reads nothing it should not.
    table.drain.on_event({dp::EVENT_FLOW_VOLUME, 900, 1, 0, 0, 0, one.head.key});
    table.drain.on_event({dp::EVENT_FLOW_VOLUME, 0, SLOTS, 0, 0, 0, one.head.key});
    CHECK(table.drain.updates().size() == 1);
}

TEST_CASE("interfaces are chosen by name, pattern and kind", "[ebpf][unit]") {
    const LinkNews nic{2, "eth0", 1, "", false}, veth{3, "veth1", 1, "veth", false},
        tun{4, "tun0", 65534, "tun", false}, lo{1, "lo", 772, "", false};
    CHECK(interface_wanted({"all-physical"}, nic));
    CHECK_FALSE(interface_wanted({"all-physical"}, veth));
    CHECK_FALSE(interface_wanted({"all-physical"}, tun));
    CHECK(interface_wanted({"veth*"}, veth));
    CHECK_FALSE(interface_wanted({"veth?"}, nic));
    CHECK_FALSE(interface_wanted({"*"}, lo));
    CHECK(interface_wanted({"lo"}, lo));
}
