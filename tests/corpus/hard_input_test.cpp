// tests/corpus/hard_input_test.cpp - captures cut anywhere, snapped short, and packets that nobody sent.
//
// Held for all of them: no crash (this suite also runs under sanitizers), and every packet in exactly one
// counter. EGRESSWATCH_HARD_PACKETS: how many random packets (default 1,000,000). SPDX-License-Identifier:
// Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "capture/pcap/file_reader.h"
#include "capture/userspace/file_engine.h"
#include "classifier/link_type.h"
#include "tests/bench/traffic_mix.h"
#include "tests/support/capture_file.h"
#include "tests/support/catch.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;
namespace fs = std::filesystem;

const fs::path captures_dir = fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus/captures";

std::shared_ptr<const RegionTable> region() {
    static const auto table =
        make_region("1.0.0.0/8 US\n10.0.0.0/8 DE\n64.0.0.0/2 US\n192.0.0.0/3 IE\n2000::/4 NO\n2600::/8 US\n");
    return table;
}

Bytes read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<fs::path> all_captures() {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::recursive_directory_iterator(captures_dir))
        if (entry.is_regular_file()) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
}

// What flows were told to the sink, as sums of all deltas.
struct SumSink final : FlowSink {
    std::uint64_t packets = 0;
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp) noexcept override {
        for (const FlowUpdate& update : updates)
            packets += update.delta.packets_out + update.delta.packets_in;
    }
};

struct Sums {
    std::uint64_t seen = 0, seen_bytes = 0, outcomes = 0, outcome_bytes = 0, counted = 0, counted_bytes = 0;
    std::uint64_t class_packets = 0, class_frame_bytes = 0, class_ip_bytes = 0;

    void add(const datapath::iface_totals& interface) {
        for (const auto& side : interface.by_direction) {
            seen += side.seen.packets;
            seen_bytes += side.seen.bytes;
            for (int i = 0; i < datapath::OUTCOME_COUNT; ++i) {
                outcomes += side.outcome[i].packets;
                outcome_bytes += side.outcome[i].bytes;
                if (i > datapath::OUTCOME_OUTSIDE) continue;
                counted += side.outcome[i].packets;
                counted_bytes += side.outcome[i].bytes;
            }
        }
    }
    void add(const datapath::class_totals& totals) {
        for (const auto& side : totals.by_direction) {
            class_packets += side.packets;
            class_frame_bytes += side.frame_bytes;
            class_ip_bytes += side.ip_bytes;
        }
    }
    // Every packet in one outcome, every byte with it, and the classes hold what was counted to a region.
    [[nodiscard]] bool conserve() const {
        return seen == outcomes && seen_bytes == outcome_bytes && class_packets == counted &&
               class_frame_bytes == counted_bytes && class_ip_bytes <= class_frame_bytes;
    }
};

struct Replayed {
    Sums sums;
    std::uint64_t flow_packets = 0, flows_full = 0;
    std::optional<capture::FileError> damage;
};

Replayed replay(std::expected<capture::FileReader, capture::FileError> reader) {
    Replayed result;
    if (!reader) {
        result.damage = reader.error();
        return result;
    }
    auto engine = capture::FileEngine::of(std::move(*reader), {.slots_start = 64, .track_all = true});
    SumSink sink;
    REQUIRE(engine->install_region(*region()));
    REQUIRE(engine->start(sink));
    while (!engine->finished()) (void)engine->poll({});
    engine->stop();
    const auto totals = engine->totals();
    for (const auto& interface : totals.interfaces) result.sums.add(interface.totals);
    for (const auto& by_class : totals.by_class) result.sums.add(by_class);
    result.flow_packets = sink.packets;
    result.flows_full = totals.losses[datapath::LOSS_FLOWS_FULL];
    result.damage = engine->damage();
    return result;
}

// ------------------------------------------------------------------------------------------------ cut files

// Where a file may end cleanly, and where each of its packets ends: found by stepping over lengths alone.
struct Layout {
    std::vector<std::size_t> clean_ends;
    std::vector<std::size_t> packet_ends;
};

class LengthWalker {
public:
    explicit LengthWalker(const Bytes& file) : file_(file) {}

    [[nodiscard]] Layout walk() {
        const bool pcapng = raw32(0) == 0x0a0d0d0a;
        if (pcapng) {
            std::size_t at = 0;
            while (at + 12 <= file_.size()) {
                if (raw32(at) == 0x0a0d0d0a) swapped_ = raw32(at + 8) != 0x1a2b3c4d;
                const std::uint32_t type = read32(at);
                const std::uint32_t length = read32(at + 4);
                at += length;
                if (at > file_.size()) break;
                layout_.clean_ends.push_back(at);
                if (type == 2 || type == 3 || type == 6) layout_.packet_ends.push_back(at);
            }
            return layout_;
        }
        swapped_ = raw32(0) != 0xa1b2c3d4 && raw32(0) != 0xa1b23c4d;
        for (std::size_t at = 24; at <= file_.size();) {
            layout_.clean_ends.push_back(at);
            if (at > 24) layout_.packet_ends.push_back(at);
            if (at + 16 > file_.size()) break;
            at += 16 + read32(at + 8);
        }
        return layout_;
    }

private:
    [[nodiscard]] std::uint32_t raw32(std::size_t at) const {
        std::uint32_t value = 0;
        std::memcpy(&value, file_.data() + at, sizeof value);
        return value;
    }
    [[nodiscard]] std::uint32_t read32(std::size_t at) const {
        return swapped_ ? __builtin_bswap32(raw32(at)) : raw32(at);
    }
    const Bytes& file_;
    bool swapped_ = false;
    Layout layout_;
};

// Small, and together every format: both byte orders, micro- and nanoseconds, pcap and pcapng with several
// sections, link types with and without a header.
constexpr std::array small_captures{"ipip-udp.pcap",
                                    "sixinsixinsix-udp.pcap",
                                    "fmt-nanosec-sll.pcap",
                                    "erspan3-vlan-icmp.pcap",
                                    "gre-pptp-in-4over6-dns.pcap",
                                    "vntag-vlan-fragments.pcap",
                                    "nest-too-many-layers.pcap",
                                    "ext6-all-headers-one-packet.pcap",
                                    "fmt-null-loopback.pcap",
                                    "fmt-bigendian-nanosec-http.pcap",
                                    "fmt-pcapng-be-multi-section.pcapng",
                                    "malformed/td-resp_4_infiniteloop.pcapng",
                                    "malformed/td-rsvp-inf-loop-2.pcapng",
                                    "malformed/td-smb_data_print-oobr.pcapng"};

void check_cut(const Replayed& found, const Layout& layout, std::size_t length) {
    const auto complete = static_cast<std::uint64_t>(
        std::upper_bound(layout.packet_ends.begin(), layout.packet_ends.end(), length) -
        layout.packet_ends.begin());
    const bool clean = std::binary_search(layout.clean_ends.begin(), layout.clean_ends.end(), length);
    CHECK(found.sums.seen == complete);
    CHECK(found.sums.conserve());
    CHECK(found.flow_packets == found.sums.counted);
    CHECK(found.damage.has_value() == !clean);
    if (!found.damage) return;
    CHECK(found.damage->offset <= length);
    CHECK_FALSE(found.damage->to_string().empty());
}

}  // namespace

TEST_CASE("a capture that is cut anywhere counts every packet before the cut, and says where it ends",
          "[corpus][hard]") {
    // Bytes between two cuts of the file on disk, where each reading fills a window of 4 MiB; a prime, so
    // that every place within a record has its turn.
    constexpr std::size_t file_step = 5;
    const testing::TempDir folder;
    for (const char* name : small_captures) {
        const Bytes whole = read_file(captures_dir / name);
        REQUIRE(whole.size() > 24);
        const Layout layout = LengthWalker(whole).walk();
        REQUIRE_FALSE(layout.packet_ends.empty());
        const std::string copy = (folder.path() / "cut").string();
        fs::copy_file(captures_dir / name, copy, fs::copy_options::overwrite_existing);
        fs::permissions(copy, fs::perms::owner_all);
        for (std::size_t length = whole.size() + 1; length-- > 0;) {
            INFO(name << " cut to " << length << " of " << whole.size() << " bytes");
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
            check_cut(replay(capture::FileReader::from_memory(cut)), layout, length);
            if (length % file_step != 0) continue;
            REQUIRE(::truncate(copy.c_str(), static_cast<off_t>(length)) == 0);
            check_cut(replay(capture::FileReader::open(copy)), layout, length);
        }
    }
}

// ------------------------------------------------------------------------------------------------ snapped

TEST_CASE("with a snap length of 64 bytes no packet is lost, and totals are of the length on the wire",
          "[corpus][hard]") {
    constexpr std::uint32_t snap = 64;
    std::uint64_t packets = 0;
    for (const fs::path& path : all_captures()) {
        auto reader = capture::FileReader::open(path.string());
        if (!reader) continue;  // corpus_test and file_reader_test say what is wrong with each
        CaptureFile snapped;
        snapped.section();
        std::map<std::uint32_t, std::uint32_t> interfaces;  // by link type
        std::uint64_t expected = 0;
        std::uint64_t wire_bytes = 0;
        for (;;) {
            const auto batch = reader->next_batch();
            if (!batch || batch->empty()) break;
            for (const auto& record : *batch) {
                const std::uint32_t link_type = reader->link_type_of(record);
                const auto [found, fresh] =
                    interfaces.try_emplace(link_type, static_cast<std::uint32_t>(interfaces.size()));
                if (fresh) snapped.interface(static_cast<std::uint16_t>(link_type), snap);
                const auto kept = record.bytes.first(std::min<std::size_t>(record.bytes.size(), snap));
                snapped.enhanced(found->second, record.at_ns / 1000, kept, record.wire_bytes);
                ++expected;
                // A writer cannot say zero bytes on the wire: CaptureFile takes the captured length then.
                wire_bytes += record.wire_bytes != 0 ? record.wire_bytes : kept.size();
            }
        }
        const Replayed found = replay(capture::FileReader::from_memory(snapped.bytes));
        INFO(path.filename());
        CHECK_FALSE(found.damage.has_value());
        CHECK(found.sums.seen == expected);
        CHECK(found.sums.seen_bytes == wire_bytes);
        CHECK(found.sums.conserve());
        CHECK(found.flow_packets == found.sums.counted);
        packets += expected;
    }
    CHECK(packets > 10000);
}

TEST_CASE("a snapped packet that is still counted has its IP bytes whole", "[corpus][hard]") {
    // Plain traffic, whose headers end before the cut: flows and bytes are those of the whole frames.
    for (const std::uint32_t snap : {0u, 64u, 96u}) {
        TrafficMix mix({.packets = 20000, .flows = 500, .snap_bytes = snap});
        Bytes file;
        append_capture(file, mix, snap);
        const Replayed found = replay(capture::FileReader::from_memory(file));
        INFO("snap length " << snap);
        CHECK(found.sums.seen_bytes == mix.truth().frame_bytes);
        CHECK(found.sums.class_ip_bytes == mix.truth().ip_bytes);
        CHECK(found.sums.counted == 20000);
    }
}

// ------------------------------------------------------------------------------------------------ random
// packets

namespace {

std::uint64_t random_packets() {
    const char* wanted = std::getenv("EGRESSWATCH_HARD_PACKETS");
    return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 1'000'000;
}

struct RealPacket {
    Bytes bytes;
    std::uint32_t link_type = 1;
};

// Packets of the corpus and of every odd kind that the generator knows.
std::vector<RealPacket> real_packets() {
    constexpr std::size_t of_a_capture = 200;
    std::vector<RealPacket> packets;
    for (const fs::path& path : all_captures()) {
        auto reader = capture::FileReader::open(path.string());
        if (!reader) continue;
        const auto batch = reader->next_batch();
        if (!batch) continue;
        for (const auto& record : batch->first(std::min(batch->size(), of_a_capture)))
            packets.push_back({{record.bytes.begin(), record.bytes.end()}, reader->link_type_of(record)});
    }
    TrafficMix mix({.packets = 3000, .flows = 600, .odd_of_thousand = 900});
    for (MadePacket packet; mix.next(packet);)
        packets.push_back({{packet.bytes.begin(), packet.bytes.end()}, 1});
    return packets;
}

class PacketMonkey {
public:
    explicit PacketMonkey(std::vector<RealPacket> real) : real_(std::move(real)) {}

    // Half random bytes, half real packets with something wrong.
    RealPacket next() {
        if (chance(2)) {
            RealPacket packet{Bytes(random_() % (chance(8) ? 1600 : 128)), link_type()};
            for (auto& byte : packet.bytes) byte = static_cast<std::uint8_t>(random_());
            // A beginning that gets past the first look.
            if (chance(2) && packet.bytes.size() > 14) {
                packet.link_type = 1;
                packet.bytes[12] = chance(2) ? 0x08 : 0x86;
                packet.bytes[13] = packet.bytes[12] == 0x08 ? 0x00 : 0xdd;
                if (packet.bytes.size() > 15) packet.bytes[14] = packet.bytes[12] == 0x08 ? 0x45 : 0x60;
            }
            return packet;
        }
        RealPacket packet = real_[random_() % real_.size()];
        for (std::uint64_t changes = 1 + random_() % 8; changes > 0; --changes) mutate(packet);
        return packet;
    }
    std::uint64_t random() { return random_(); }
    bool chance(unsigned one_of) { return random_() % one_of == 0; }

private:
    std::uint32_t link_type() { return static_cast<std::uint32_t>(random_() % (chance(2) ? 2 : 300)); }

    void mutate(RealPacket& packet) {
        Bytes& bytes = packet.bytes;
        if (bytes.empty()) return;
        // Headers are in front: most of the damage goes there.
        const std::size_t reach = chance(4) ? bytes.size() : std::min<std::size_t>(bytes.size(), 80);
        const std::size_t at = random_() % reach;
        static constexpr std::array<std::uint8_t, 8> odd_values{0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60, 0x40};
        switch (random_() % 7) {
            case 0:
                bytes[at] ^= static_cast<std::uint8_t>(1u << random_() % 8);
                break;
            case 1:
                bytes[at] = static_cast<std::uint8_t>(random_());
                break;
            case 2:
                bytes[at] = odd_values[random_() % odd_values.size()];
                break;
            case 3:
                bytes.resize(at);
                break;
            case 4:
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + random_() % 8,
                             static_cast<std::uint8_t>(random_()));
                break;
            case 5: {  // the rest of another packet
                const Bytes& other = real_[random_() % real_.size()].bytes;
                bytes.resize(at);
                if (!other.empty())
                    bytes.insert(bytes.end(),
                                 other.begin() + static_cast<std::ptrdiff_t>(random_() % other.size()),
                                 other.end());
                break;
            }
            default:
                packet.link_type = chance(8) ? link_type() : packet.link_type;
                break;
        }
    }

    std::vector<RealPacket> real_;
    std::mt19937_64 random_{20261125};
};

}  // namespace

TEST_CASE("random and mutated packets each end in exactly one counter, also when the table is full",
          "[corpus][hard][random]") {
    constexpr std::size_t batch = 256;
    const std::uint64_t wanted = random_packets();
    PacketMonkey monkey(real_packets());
    // Room for few of the flows, and idle ones end: growing, full and emptying all happen.
    FlowTable table({.slots_start = 64,
                     .slots_max = 1u << 14,
                     .track_all = true,
                     .idle_timeout = std::chrono::seconds(2),
                     .local_networks = {*Prefix::parse("10.0.0.0/8"), *Prefix::parse("fe80::/10")}});
    table.install_region(region()->block());
    SumSink sink;
    std::uint64_t fed = 0;
    std::uint64_t fed_bytes = 0;
    std::uint64_t now = 1'764'000'000'000'000'000;
    while (fed < wanted) {
        std::vector<RealPacket> packets;
        std::vector<PacketInput> inputs;
        for (std::size_t i = 0; i < batch; ++i) packets.push_back(monkey.next());
        for (const RealPacket& packet : packets) {
            PacketInput input;
            // Exactly as long as it is: a sanitizer sees one byte too far.
            input.bytes = packet.bytes;
            input.wire_bytes = static_cast<std::uint32_t>(packet.bytes.size());
            if (monkey.chance(3)) input.wire_bytes += static_cast<std::uint32_t>(monkey.random() % 70000);
            input.link = locate_link(packet.link_type, packet.bytes);
            input.interface = static_cast<std::uint32_t>(monkey.random() % 3);
            input.direction = static_cast<std::uint8_t>(monkey.random() % 3);
            now += monkey.random() % 100'000;
            input.at_ns = monkey.chance(50) ? now - monkey.random() % 5'000'000'000 : now;
            fed_bytes += input.wire_bytes;
            inputs.push_back(input);
        }
        table.account(inputs, sink);
        fed += inputs.size();
        Sums sums;
        for (const auto& interface : table.interface_totals()) sums.add(interface);
        REQUIRE(sums.seen == fed);
        REQUIRE(sums.seen_bytes == fed_bytes);
        REQUIRE(sums.outcomes == fed);
        REQUIRE(sums.outcome_bytes == fed_bytes);
    }
    table.finish(sink);
    Sums sums;
    for (const auto& interface : table.interface_totals()) sums.add(interface);
    for (const auto& by_class : table.class_totals()) sums.add(by_class);
    CHECK(sums.conserve());
    // What was counted to a class is in a flow, or in the counter of flows that found no room.
    CHECK(sums.counted == sink.packets + table.losses()[datapath::LOSS_FLOWS_FULL]);
    CHECK(table.losses()[datapath::LOSS_FLOWS_FULL] > 0);
    CHECK(sums.counted > wanted / 4);
    CHECK(sums.counted < wanted);
}
