// tests/netns/engines_test.cpp - all engines give the same records for the same traffic: every capture of the
// corpus and a made-up mix of a million packets, one after the other, through each of them.
//
// Given:    Ethernet frames, whole: what a capture cut off is zero bytes again, so that they can be sent.
// Engines:  file (a capture file), ebpf (the tc programs by BPF_PROG_TEST_RUN), pcap (frames sent over a veth
//           pair at given sizes), dpdk (net_pcap).
// Compared: every flow's key with its class, counters, initiator, TCP flags, carrier; totals per class;
//           outcomes per direction; losses. Times and round trips where the engine goes by the time of the
//           frames: a live one stamps them itself.
// The kernel's programs are told the direction by their hook: here by a flow table that decides it by
// address, as the others do. SPDX-License-Identifier: Apache-2.0
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "capture/pcap/live_engine.h"
#include "capture/userspace/file_engine.h"
#include "classifier/flow_table.h"
#include "tests/bench/traffic_mix.h"
#include "tests/support/bpf_test_run.h"
#include "tests/support/catch.h"
#include "tests/support/corpus_frames.h"
#include "tests/support/dpdk_run.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_netns.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;

constexpr std::uint64_t mix_packets = 1'000'000, mix_flows = 150'000;
constexpr std::uint32_t flow_slots = 1u << 20;
constexpr std::uint32_t headers_max = 512;  // bytes of a frame that live engines look at; pinned by a check
constexpr std::uint64_t time_max_ns = (1ULL << 31) * 1'000'000'000;
constexpr std::uint32_t frame_bytes_max = 65535;  // what a veth takes

// ------------------------------------------------------------------------------------------------ traffic

struct Frame {
    std::size_t offset = 0;
    std::uint32_t size = 0;
    std::uint64_t at_ns = 0;  // whole microseconds before 2038: what every format can hold
};

class Traffic {
public:
    Traffic() {
        for (const auto& path : corpus_captures(EGRESSWATCH_SOURCE_DIR)) add_capture(path.string());
        from_corpus_ = frames_.size();
        TrafficSpec spec;
        spec.packets = mix_packets;
        spec.flows = mix_flows;
        spec.odd_of_thousand = 50;
        TrafficMix mix(spec);
        for (MadePacket packet; mix.next(packet);) add(packet.bytes, packet.wire_bytes, packet.at_ns);
    }
    [[nodiscard]] const std::vector<Frame>& frames() const { return frames_; }
    [[nodiscard]] std::span<const std::uint8_t> bytes(const Frame& frame) const {
        return {bytes_.data() + frame.offset, frame.size};
    }
    [[nodiscard]] std::size_t from_corpus() const { return from_corpus_; }
    [[nodiscard]] std::size_t left_out() const { return left_out_; }

private:
    void add_capture(const std::string& path) {
        auto reader = capture::FileReader::open(path);
        if (!reader) return;
        for (;;) {
            const auto batch = reader->next_batch();
            if (!batch || batch->empty()) return;
            for (const auto& record : *batch) {
                const EthernetFrame frame = as_ethernet(record);
                add(frame.bytes, frame.wire_bytes, record.at_ns);
            }
        }
    }
    // What one of the engines cannot be given is given to none.
    void add(std::span<const std::uint8_t> bytes, std::uint32_t wire_bytes, std::uint64_t at_ns) {
        Frame frame{bytes_.size(), std::min(wire_bytes, frame_bytes_max), at_ns % time_max_ns / 1000 * 1000};
        bytes_.insert(bytes_.end(), bytes.begin(),
                      bytes.begin() + std::min(bytes.size(), std::size_t{frame.size}));
        bytes_.resize(frame.offset + frame.size);
        if (frame.size < least_bytes(this->bytes(frame))) {
            bytes_.resize(frame.offset);
            ++left_out_;
            return;
        }
        // Mirrored unicast: engine pcap takes a frame to a group for one that came to its own interface.
        bytes_[frame.offset] &= 0xfe;
        frames_.push_back(frame);
    }
    // BPF_PROG_TEST_RUN refuses half an IP header, the network stack a VLAN tag without two bytes behind it.
    static std::size_t least_bytes(std::span<const std::uint8_t> bytes) {
        if (bytes.size() < 14) return 14;
        const unsigned type = static_cast<unsigned>(bytes[12]) << 8 | bytes[13];
        if (type == 0x0800) return 34;
        if (type == 0x86dd) return 54;
        return type == 0x8100 || type == 0x88a8 ? 20 : 14;
    }

    std::vector<std::uint8_t> bytes_;
    std::vector<Frame> frames_;
    std::size_t from_corpus_ = 0, left_out_ = 0;
};

std::string write_file(const Traffic& traffic, const std::filesystem::path& folder) {
    const std::string path = (folder / "traffic.pcap").string();
    std::FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file != nullptr);
    const std::array<std::uint32_t, 6> header{0xa1b2c3d4, 2 | 4u << 16, 0, 0, 262144, 1};
    std::fwrite(header.data(), sizeof header, 1, file);
    for (const Frame& frame : traffic.frames()) {
        const std::array<std::uint32_t, 4> record{
            static_cast<std::uint32_t>(frame.at_ns / 1'000'000'000),
            static_cast<std::uint32_t>(frame.at_ns % 1'000'000'000 / 1000), frame.size, frame.size};
        std::fwrite(record.data(), sizeof record, 1, file);
        const auto bytes = traffic.bytes(frame);
        std::fwrite(bytes.data(), 1, bytes.size(), file);
    }
    REQUIRE(std::fclose(file) == 0);
    return path;
}

// ------------------------------------------------------------------------------------------------ records

struct FlowRecord {
    FlowCounters counters;
    datapath::initiator initiator = datapath::INITIATOR_UNKNOWN;
    bool initiator_sure = false;
    std::uint8_t tcp_flags_out = 0, tcp_flags_in = 0;
    Address outer_local, outer_remote;
    Timestamp first_seen{}, last_seen{};
    std::uint32_t handshake_rtt_us = 0;

    bool operator==(const FlowRecord&) const = default;
};

struct KeyLess {
    bool operator()(const datapath::flow_key& a, const datapath::flow_key& b) const {
        return std::memcmp(&a, &b, sizeof a) < 0;
    }
};

struct Records {
    std::map<datapath::flow_key, FlowRecord, KeyLess> flows;
    std::vector<datapath::class_totals> classes;
    datapath::iface_totals interface {};
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses{};
    std::uint64_t dropped = 0;
    std::uint64_t told_twice = 0;  // flows that ended twice: no timeout is set, so none may
};

// Ended flows are the records; sums of deltas must be the same as the totals.
class Recorder final : public FlowSink {
public:
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override {
        went_back_ = went_back_ || now < now_;
        now_ = now;
        for (const FlowUpdate& update : updates) {
            sum_.bytes_out += update.delta.bytes_out;
            sum_.bytes_in += update.delta.bytes_in;
            if (update.reason != UpdateReason::ended) continue;
            const FlowRecord record{update.total,           update.initiator,    update.initiator_sure,
                                    update.tcp_flags_out,   update.tcp_flags_in, update.outer_local,
                                    update.outer_remote,    update.first_seen,   update.last_seen,
                                    update.handshake_rtt_us};
            if (!records.flows.emplace(update.key, record).second) ++records.told_twice;
        }
    }
    void take_totals(const capture::TotalsSnapshot& totals) {
        records.classes = totals.by_class;
        records.losses = totals.losses;
        for (const auto& interface : totals.interfaces) {
            records.dropped += interface.dropped.sum();
            auto* to = reinterpret_cast<std::uint64_t*>(&records.interface);
            const auto* from = reinterpret_cast<const std::uint64_t*>(&interface.totals);
            for (std::size_t i = 0; i < sizeof interface.totals / sizeof *to; ++i) to[i] += from[i];
        }
    }
    void check_deltas() const {
        std::uint64_t out = 0, in = 0;
        for (const auto& [key, record] : records.flows) {
            out += record.counters.bytes_out;
            in += record.counters.bytes_in;
        }
        CHECK(sum_.bytes_out == out);
        CHECK(sum_.bytes_in == in);
        CHECK_FALSE(went_back_);
    }
    Records records;

private:
    FlowCounters sum_;
    Timestamp now_{};
    bool went_back_ = false;
};

// ------------------------------------------------------------------------------------------------ engines

struct Given {
    const Traffic& traffic;
    const std::string& file;  // the same traffic
    const RegionTable& region;
};

struct EngineUnderTest {
    std::string name;
    bool time_of_frames;  // first_seen, last_seen and round trips mean the frames' own time
    std::function<Records(const Given&)> run;
};

FlowTableConfig table_config() {
    FlowTableConfig config;
    config.slots_max = flow_slots;
    config.track_all = true;
    config.direction_by_region = true;
    return config;
}

Records run_file(const Given& given) {
    auto engine = capture::FileEngine::open(given.file, table_config());
    REQUIRE(engine);
    Recorder recorder;
    REQUIRE((*engine)->install_region(given.region));
    REQUIRE((*engine)->start(recorder));
    while (!(*engine)->finished()) REQUIRE((*engine)->poll(std::chrono::milliseconds(0)));
    (*engine)->stop();
    recorder.take_totals((*engine)->totals());
    recorder.check_deltas();
    return std::move(recorder.records);
}

FlowRecord record_of(const datapath::flow_entry& entry, const datapath::flow_outer& outer) {
    FlowRecord record;
    record.counters = {entry.counts.packets_out, entry.counts.bytes_out, entry.counts.packets_in,
                       entry.counts.bytes_in};
    record.initiator = static_cast<datapath::initiator>(entry.head.initiator);
    record.initiator_sure = entry.head.initiator_sure != 0;
    record.tcp_flags_out = entry.head.tcp_flags_out;
    record.tcp_flags_in = entry.head.tcp_flags_in;
    if (entry.head.key.tunnel != datapath::TUNNEL_NONE) {
        record.outer_local = Address::from_bytes(outer.local_addr);
        record.outer_remote = Address::from_bytes(outer.remote_addr);
    }
    record.first_seen =
        Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(entry.head.first_seen_ns)));
    record.last_seen =
        Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(entry.counts.last_seen_ns)));
    record.handshake_rtt_us = entry.head.handshake_rtt_us;
    return record;
}

Records run_ebpf(const Given& given) {
    constexpr std::size_t events_drain_every = 256;
    auto kernel = BpfTestRun::open({.flow_slots = flow_slots, .track_all = true}, given.region.block());
    if (!kernel) FAIL(kernel.error().to_string());
    FlowTable directions(table_config());
    directions.install_region(given.region.block());
    Recorder nobody;
    std::size_t fed = 0;
    for (const Frame& frame : given.traffic.frames()) {
        PacketInput input;
        input.bytes = given.traffic.bytes(frame);
        input.wire_bytes = frame.size;
        input.at_ns = frame.at_ns;
        input.link = {LinkStart::ethernet, 0, 0};
        directions.account({&input, 1}, nobody);
        BpfTestRun::Packet packet;
        packet.bytes = input.bytes.first(std::min(input.bytes.size(), BpfTestRun::PACKET_BYTES_MAX));
        packet.wire_bytes = frame.size;
        packet.at_ns = frame.at_ns;
        packet.direction = directions.last_verdict().direction;
        if (const auto run = kernel->run(packet); !run) FAIL(run.error().to_string());
        if (++fed % events_drain_every == 0) (void)kernel->take_events();
    }
    Records records;
    const auto table = kernel->table();
    for (std::size_t slot = 0; slot < table.size(); ++slot)
        if (table[slot].head.tag != datapath::FLOW_FREE)
            records.flows.emplace(table[slot].head.key, record_of(table[slot], kernel->outers()[slot]));
    for (std::uint32_t id = 0; id < given.region.class_count(); ++id)
        records.classes.push_back(kernel->class_totals(id));
    records.interface = kernel->iface_totals();
    records.losses = kernel->losses();
    // The programs were told the direction: what was a guess was guessed by the table that told them.
    records.losses[datapath::LOSS_DIRECTION_GUESSED] = directions.losses()[datapath::LOSS_DIRECTION_GUESSED];
    return records;
}

// Frames out of the world's end of the veth pair, in order.
class FrameSender {
public:
    FrameSender() : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
        REQUIRE(socket_);
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_ifindex = static_cast<int>(TestNetns::ifindex("ew1"));
        REQUIRE(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    void send(const Traffic& traffic, std::span<const Frame> frames) {
        constexpr std::size_t batch = 64;
        std::array<mmsghdr, batch> messages{};
        std::array<iovec, batch> places{};
        while (!frames.empty()) {
            const std::size_t count = std::min(batch, frames.size());
            for (std::size_t i = 0; i < count; ++i) {
                const auto bytes = traffic.bytes(frames[i]);
                places[i] = {const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
                messages[i].msg_hdr.msg_iov = &places[i];
                messages[i].msg_hdr.msg_iovlen = 1;
            }
            const int sent = ::sendmmsg(socket_.get(), messages.data(), static_cast<unsigned>(count), 0);
            if (sent <= 0) FAIL("sendmmsg: " << std::strerror(errno) << ", frame of " << frames[0].size);
            frames = frames.subspan(static_cast<std::size_t>(sent));
        }
    }

private:
    capture::UniqueFd socket_;
};

std::uint64_t packets_seen(const capture::TotalsSnapshot& totals) {
    std::uint64_t packets = 0;
    for (const auto& interface : totals.interfaces)
        for (const auto& direction : interface.totals.by_direction) packets += direction.seen.packets;
    return packets;
}

Records run_pcap(const Given& given) {
    const TestNetns netns;
    // No address, and an Ethernet address that no frame has: a mirror port, on which nobody answers.
    TestNetns::run("ip address flush dev ew0; ip link set ew0 address 06:de:ad:be:ef:01 arp off mtu 65535");
    netns.enter_world();
    TestNetns::run("ip address flush dev ew1; ip link set ew1 arp off mtu 65535");
    FrameSender sender;
    netns.enter_host();
    capture::PcapConfig config;
    config.interfaces = {"ew0"};
    config.live.buffer_bytes = 512ULL << 20;
    config.live.snap_length = headers_max;
    config.table = table_config();
    auto engine = capture::PcapEngine::make(config);
    if (!engine) FAIL(engine.error().to_string());
    Recorder recorder;
    REQUIRE((*engine)->install_region(given.region));
    if (const auto started = (*engine)->start(recorder); !started) FAIL(started.error().to_string());
    REQUIRE((*engine)->totals().interfaces.at(0).why_not_hooked == "");

    constexpr std::size_t frames_a_turn = 4096;
    std::span<const Frame> rest = given.traffic.frames();
    while (!rest.empty()) {
        sender.send(given.traffic, rest.first(std::min(frames_a_turn, rest.size())));
        rest = rest.subspan(std::min(frames_a_turn, rest.size()));
        REQUIRE((*engine)->poll(std::chrono::milliseconds(0)));
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    const auto arrived = [&] {
        const auto totals = (*engine)->totals();
        return packets_seen(totals) + totals.interfaces[0].dropped.sum();
    };
    while (arrived() < given.traffic.frames().size() && std::chrono::steady_clock::now() < deadline)
        REQUIRE((*engine)->poll(std::chrono::milliseconds(50)));
    recorder.take_totals((*engine)->totals());
    (*engine)->stop();
    recorder.check_deltas();
    return std::move(recorder.records);
}

Records run_dpdk(const Given& given) {
    auto run = run_dpdk_over({given.file}, given.traffic.frames().size(), given.region, table_config());
    if (!run) FAIL(run.error());
    Recorder recorder;
    recorder.on_flow_updates(run->updates, Timestamp{});
    recorder.check_deltas();
    recorder.records.classes = std::move(run->by_class);
    recorder.records.interface = run->interface;
    recorder.records.losses = run->losses;
    recorder.records.dropped = run->dropped;
    return std::move(recorder.records);
}

std::vector<EngineUnderTest> engines() {
    return {{"file", true, run_file},
            {"ebpf", true, run_ebpf},
            {"pcap", false, run_pcap},
            {"dpdk", true, run_dpdk}};
}

// ---------------------------------------------------------------------------------------------- comparison

std::string describe(const datapath::flow_key& key) {
    return Address::from_bytes(key.local_addr).to_string() + " " +
           std::to_string(datapath::host16(key.local_port)) + " - " +
           Address::from_bytes(key.remote_addr).to_string() + " " +
           std::to_string(datapath::host16(key.remote_port)) + " protocol " + std::to_string(key.l4_proto) +
           " tunnel " + std::to_string(key.tunnel) + " class " + std::to_string(key.class_id);
}

std::string describe(const FlowRecord& r) {
    return "out " + std::to_string(r.counters.packets_out) + "/" + std::to_string(r.counters.bytes_out) +
           " in " + std::to_string(r.counters.packets_in) + "/" + std::to_string(r.counters.bytes_in) +
           " initiator " + std::to_string(r.initiator) + (r.initiator_sure ? " sure" : "") + " flags " +
           std::to_string(r.tcp_flags_out) + "/" + std::to_string(r.tcp_flags_in) + " rtt " +
           std::to_string(r.handshake_rtt_us);
}

void compare_flows(const Records& first, const Records& other, bool times) {
    std::size_t different = 0;
    std::string examples;
    const auto note = [&](const std::string& text) {
        if (different++ < 5) examples += text + "\n";
    };
    for (const auto& [key, record] : first.flows) {
        const auto found = other.flows.find(key);
        if (found == other.flows.end()) {
            note("missing: " + describe(key));
            continue;
        }
        FlowRecord theirs = found->second;
        if (!times) {
            theirs.first_seen = record.first_seen;
            theirs.last_seen = record.last_seen;
            theirs.handshake_rtt_us = record.handshake_rtt_us;
        }
        if (theirs != record) note(describe(key) + ":\n  " + describe(record) + "\n  " + describe(theirs));
    }
    for (const auto& [key, record] : other.flows)
        if (!first.flows.contains(key)) note("too many: " + describe(key) + ": " + describe(record));
    INFO(examples);
    CHECK(different == 0);
}

void compare_totals(const Records& first, const Records& other, std::size_t class_count) {
    REQUIRE(first.classes.size() >= class_count);
    REQUIRE(other.classes.size() >= class_count);
    for (std::size_t id = 0; id < class_count; ++id) {
        INFO("class " << id);
        CHECK(std::memcmp(&first.classes[id], &other.classes[id], sizeof first.classes[id]) == 0);
    }
    for (std::size_t direction = 0; direction < datapath::DIRECTION_COUNT; ++direction) {
        const auto& a = first.interface.by_direction[direction];
        const auto& b = other.interface.by_direction[direction];
        INFO("direction " << direction);
        CHECK(a.seen.packets == b.seen.packets);
        CHECK(a.seen.bytes == b.seen.bytes);
        for (std::size_t outcome = 0; outcome < datapath::OUTCOME_COUNT; ++outcome) {
            INFO("outcome " << outcome);
            CHECK(a.outcome[outcome].packets == b.outcome[outcome].packets);
            CHECK(a.outcome[outcome].bytes == b.outcome[outcome].bytes);
        }
    }
    for (std::size_t reason = 0; reason < first.losses.size(); ++reason) {
        INFO("loss reason " << reason);
        if (reason == datapath::LOSS_EVENTS_FULL)
            continue;  // only the kernel has that ring, and drains find it
        CHECK(first.losses[reason] == other.losses[reason]);
    }
}

}  // namespace

TEST_CASE("every engine gives the same records for every capture and a million made-up packets",
          "[engines]") {
    const Traffic traffic;
    const testing::TempDir folder;
    const std::string file = write_file(traffic, folder.path());
    const auto region = patchwork_region();
    const Given given{traffic, file, *region};
    INFO(traffic.from_corpus() << " frames of the corpus, " << traffic.left_out() << " left out");
    CHECK(traffic.from_corpus() > 10'000);
    CHECK(traffic.left_out() * 50 < traffic.frames().size());
    CHECK(traffic.frames().size() > mix_packets);

    std::optional<Records> first;
    for (const EngineUnderTest& engine : engines()) {
        INFO("engine " << engine.name);
        const auto begun = std::chrono::steady_clock::now();
        Records records = engine.run(given);
        std::printf("%-5s %zu flows, %.1f s\n", engine.name.c_str(), records.flows.size(),
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
        CHECK(records.dropped == 0);
        CHECK(records.told_twice == 0);
        CHECK(records.losses[datapath::LOSS_FLOWS_FULL] == 0);
        if (!first) {
            CHECK(records.flows.size() > mix_flows / 2);
            // The odd ones are among them.
            CHECK(std::ranges::count_if(records.flows, [](const auto& flow) {
                      return flow.first.tunnel != datapath::TUNNEL_NONE;
                  }) > 100);
            CHECK(records.interface.by_direction[0].outcome[datapath::OUTCOME_MALFORMED].packets > 100);
            first = std::move(records);
            continue;
        }
        compare_flows(*first, records, engine.time_of_frames);
        compare_totals(*first, records, region->class_count());
    }
}
