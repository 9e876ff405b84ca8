// tests/bench/bpf_bench.cpp - nanoseconds that one packet costs in the kernel, by BPF_PROG_TEST_RUN.
//
// The whole egress program (header walk, region table, totals, flow, flags, handshake, conservation
// counters), 64 byte TCP frames, one CPU. raw: as the kernel measured a run; net: with the floor subtracted,
// which is the same run with an empty program in the place of ours. Minimum and median of REPETITIONS.
// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <vector>

#include "bpf_mutator.skel.h"
#include "capture/ebpf/libbpf_words.h"
#include "capture/ebpf/os.h"
#include "classifier/region/geo_data.h"
#include "tests/support/bpf_test_run.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
using test::BpfTestRun;

constexpr unsigned REPETITIONS = 25;
constexpr std::uint32_t PACKETS = 1 << 19;     // in one repetition
constexpr std::uint32_t FLOWS = 1 << 16;       // of a set with many flows
constexpr std::uint32_t SLOTS = 1 << 17;       // of the flow table: half full with FLOWS
constexpr std::uint32_t STREAM_MAX = 1 << 20;  // more packets than one repetition has: each is a new flow

struct StreamPacket {
    std::uint32_t destination;
    std::uint16_t source_port, destination_port;
};

[[noreturn]] void die(const std::string& why) {
    std::fprintf(stderr, "bpf_bench: %s\n", why.c_str());
    std::exit(3);
}

struct Cost {
    double minimum = 0, median = 0;
};

Cost cost_of(std::vector<double> runs) {
    std::sort(runs.begin(), runs.end());
    return {runs.front(), runs[runs.size() / 2]};
}

// The mutator with a stream of its own; the program under test is put behind it.
class Mutator {
public:
    explicit Mutator(std::span<const StreamPacket> packets) : skeleton_(bpf_mutator_bpf::open()) {
        if (skeleton_ == nullptr) die("the mutator does not open");
        skeleton_->rodata->stream_mask = static_cast<std::uint32_t>(packets.size() - 1);
        bpf_map__set_max_entries(skeleton_->maps.stream, static_cast<std::uint32_t>(packets.size()));
        if (bpf_mutator_bpf::load(skeleton_) != 0) die("the mutator does not load: root is needed");
        auto mapping =
            capture::Mapping::of_map(bpf_map__fd(skeleton_->maps.stream), packets.size_bytes(), "stream");
        if (!mapping) die(mapping.error().to_string());
        std::copy(packets.begin(), packets.end(), static_cast<StreamPacket*>(mapping->data()));
    }
    ~Mutator() { bpf_mutator_bpf::destroy(skeleton_); }
    Mutator(const Mutator&) = delete;
    Mutator& operator=(const Mutator&) = delete;

    [[nodiscard]] int empty_program() const { return bpf_program__fd(skeleton_->progs.empty); }
    [[nodiscard]] int touch_program() const { return bpf_program__fd(skeleton_->progs.touch); }

    // Mean ns of a packet.
    double run(int program_fd, std::uint32_t packets) const {
        const std::uint32_t zero = 0;
        if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.next), &zero, &program_fd, BPF_ANY) != 0)
            die("the program does not go behind the mutator");
        // Ethernet, IPv4 10.0.0.1 -> anywhere, TCP with ACK; 64 bytes with the frame check sequence.
        std::vector<std::uint8_t> frame = {
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 0,    0x40, 0, 64, 6, 0, 0, 10,
            0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,    0, 0, 0,  1, 0x50, 0x10, 1, 0,  0, 0, 0, 0};
        frame.resize(60);
        auto options = capture::libbpf_options<bpf_test_run_opts>();
        options.data_in = frame.data();
        options.data_size_in = static_cast<std::uint32_t>(frame.size());
        options.repeat = static_cast<int>(packets);
        if (bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.mutate), &options) != 0)
            die("BPF_PROG_TEST_RUN is refused");
        if (options.retval != 0xffffffff) die("a packet did not reach the program under test");
        return options.duration;
    }

private:
    bpf_mutator_bpf* skeleton_;
};

// Addresses of a region table by kind.
class Addresses {
public:
    explicit Addresses(const RegionTable& table) : table_(table) {}
    std::uint32_t next(bool home) {
        for (;;) {
            const auto address = static_cast<std::uint32_t>(random_());
            const auto kind = table_.class_info(table_.lookup(Address::from_ipv4(address))).kind;
            if (kind == (home ? datapath::KIND_HOME : datapath::KIND_OUTSIDE))
                return __builtin_bswap32(address);
        }
    }
    std::uint16_t port() { return static_cast<std::uint16_t>(random_()); }
    bool chance(unsigned of_hundred) { return random_() % 100 < of_hundred; }

private:
    const RegionTable& table_;
    std::mt19937 random_{20261124};
};

std::vector<StreamPacket> make_stream(Addresses& from, std::size_t packets, unsigned home_of_hundred) {
    std::vector<StreamPacket> stream(packets);
    for (auto& packet : stream) packet = {from.next(from.chance(home_of_hundred)), from.port(), from.port()};
    return stream;
}

struct Row {
    std::string name, what;
    unsigned budget_ns;
    Cost raw, floor, touch;
    [[nodiscard]] double net() const { return raw.minimum - floor.minimum; }
    [[nodiscard]] double net_median() const { return raw.median - floor.median; }
    // What this machine asks, in this run, for one line of a flow table's memory, with the same flows.
    [[nodiscard]] double line() const { return touch.minimum - floor.minimum; }
};

// One packet set: a table of its own, filled, and the stream that runs over it.
class PacketSet {
public:
    PacketSet(std::string name, std::string what, unsigned budget_ns, const RegionTable& table,
              std::span<const StreamPacket> stream, std::span<const StreamPacket> fill, bool senders = true)
        : name_(std::move(name)),
          what_(std::move(what)),
          budget_ns_(budget_ns),
          mutator_(stream),
          sent_(PACKETS) {
        BpfTestRun::Options options;
        options.flow_slots = SLOTS;
        options.clock_from_packet = false;
        options.senders = senders;
        auto run = BpfTestRun::open(options, table.block());
        if (!run) die(run.error().to_string());
        run_.emplace(std::move(*run));
        program_ = run_->program_fd(datapath::DIRECTION_OUT, true);
        if (!fill.empty()) {
            const Mutator filler(fill);
            for (unsigned i = 0; i < 3; i++) filler.run(program_, static_cast<std::uint32_t>(fill.size()));
            sent_ += 3 * fill.size();
        }
        mutator_.run(mutator_.empty_program(), PACKETS);
        mutator_.run(program_, PACKETS);
    }

    void repeat() {
        floors_.push_back(mutator_.run(mutator_.empty_program(), PACKETS));
        raws_.push_back(mutator_.run(program_, PACKETS));
        touches_.push_back(mutator_.run(mutator_.touch_program(), PACKETS));
        sent_ += PACKETS;
    }

    [[nodiscard]] Row row() const {
        // Every packet is in the totals: a rate without its losses is no result.
        const auto seen = run_->iface_totals().by_direction[datapath::DIRECTION_OUT].seen.packets;
        if (seen != sent_)
            die(name_ + ": " + std::to_string(sent_) + " packets sent, " + std::to_string(seen) + " counted");
        return {name_, what_, budget_ns_, cost_of(raws_), cost_of(floors_), cost_of(touches_)};
    }

private:
    std::string name_, what_;
    unsigned budget_ns_;
    Mutator mutator_;
    std::optional<BpfTestRun> run_;
    int program_ = -1;
    std::uint64_t sent_;
    std::vector<double> floors_, raws_, touches_;
};

std::shared_ptr<const RegionTable> region_for(const std::string& geo_path, std::string& words) {
    if (!std::ifstream(geo_path)) {
        words = "a small made-up region table (no geo file at " + geo_path + ")";
        return test::make_region("1.0.0.0/8 US\n2.0.0.0/7 DE\n4.0.0.0/6 CN\n16.0.0.0/5 NO\n32.0.0.0/3 US\n");
    }
    const auto geo = GeoData::open(geo_path);
    if (!geo) die(geo.error().message);
    RegionSpec spec;
    for (const char* country :
         {"AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT",
          "LV", "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE", "IS", "LI", "NO"})
        spec.home_countries.insert(country);
    auto table = compile_region_table(*geo, spec);
    if (!table) die(table.error().message);
    words = "the country table of the shipped geo data, " + std::to_string((*table)->block().size() >> 20) +
            " MiB, home: the EEA";
    return *table;
}

void print_table(const std::vector<Row>& rows, const std::string& region_words) {
    utsname system{};
    ::uname(&system);
    std::printf("Kernel %s, %s; %u repetitions of %u packets, one CPU; ns per packet, minimum / median.\n\n",
                system.release, region_words.c_str(), REPETITIONS, PACKETS);
    std::printf("| set | packets | raw | floor | net | budget | one line |\n|---|---|---|---|---|---|---|\n");
    for (const Row& row : rows)
        std::printf("| %s | %s | %.0f / %.0f | %.0f / %.0f | %.0f / %.0f | %u%s | %.0f |\n", row.name.c_str(),
                    row.what.c_str(), row.raw.minimum, row.raw.median, row.floor.minimum, row.floor.median,
                    row.net(), row.net_median(), row.budget_ns, row.net() <= row.budget_ns ? "" : " (missed)",
                    row.line());
}

void print_json(const std::vector<Row>& rows) {
    auto list = nlohmann::json::array();
    for (const Row& row : rows)
        list.push_back({{"name", row.name},
                        {"raw_ns", row.raw.minimum},
                        {"net_ns", row.net()},
                        {"raw_median_ns", row.raw.median},
                        {"net_median_ns", row.net_median()},
                        {"floor_ns", row.floor.minimum},
                        {"one_line_ns", row.line()},
                        {"budget_ns", row.budget_ns},
                        {"repetitions", REPETITIONS},
                        {"packets", PACKETS}});
    std::printf("%s\n", list.dump(2).c_str());
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"bpf_bench: what a packet costs in the kernel"};
    bool json = false, compare = false;
    std::string geo_path = "build/share/geo.ewgeo";
    app.add_flag("--json", json, "a list of rows instead of a table");
    app.add_flag("--compare-senders", compare, "three sets once more, without finding out who sends");
    app.add_option("--geo", geo_path, "compiled geo file")->capture_default_str();
    CLI11_PARSE(app, argc, argv);

    std::string region_words;
    const auto table = region_for(geo_path, region_words);
    Addresses addresses(*table);
    const auto home = make_stream(addresses, 1, 100);
    const auto mixed = make_stream(addresses, FLOWS, 90);
    const auto outside = make_stream(addresses, FLOWS, 0);
    const auto fill = make_stream(addresses, STREAM_MAX, 0);
    const auto fresh = make_stream(addresses, STREAM_MAX, 0);
    std::deque<PacketSet> sets;
    sets.emplace_back("home", "home destination, one flow, hot", 20, *table, home, std::span<StreamPacket>{});
    sets.emplace_back("mixed", "90 % home, 10 % outside, 64k flows", 50, *table, mixed,
                      std::span<StreamPacket>{});
    sets.emplace_back("outside", "all outside, 64k flows", 120, *table, outside, std::span<StreamPacket>{});
    sets.emplace_back("full", "each packet a new flow, table full", 300, *table, fresh, fill);
    if (compare) {
        sets.emplace_back("home -", "home, senders off", 20, *table, home, std::span<StreamPacket>{}, false);
        sets.emplace_back("mixed -", "mixed, senders off", 50, *table, mixed, std::span<StreamPacket>{},
                          false);
        sets.emplace_back("outside -", "outside, senders off", 120, *table, outside,
                          std::span<StreamPacket>{}, false);
    }
    // In turns: a noisy neighbour who comes and goes meets all sets, and none has him in every repetition.
    for (unsigned i = 0; i < REPETITIONS; i++)
        for (auto& set : sets) set.repeat();
    std::vector<Row> rows;
    for (const auto& set : sets) rows.push_back(set.row());
    if (json)
        print_json(rows);
    else
        print_table(rows, region_words);
    return 0;
}
