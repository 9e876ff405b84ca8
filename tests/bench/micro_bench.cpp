// tests/bench/micro_bench.cpp - what the pieces cost: header walk, region lookup, flow table, evaluator.
//
// Region lookups run beside DPDK's and libmaxminddb's, all filled with the same country data (micro_peers.h);
// before anything is measured all must agree. hot: one address. random: addresses that do not depend on each
// other. chain: each address waits for the last answer. Repetitions of all measurements are interleaved at
// random. SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>
#include <maxminddb.h>
#include <netinet/in.h>
#include <rte_fib.h>
#include <rte_lpm.h>
#include <rte_lpm6.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "classifier/datapath/region.h"
#include "classifier/flow_table.h"
#include "rules/evaluator.h"
#include "rules/policy.h"
#include "tests/bench/micro_peers.h"
#include "tests/bench/traffic_mix.h"
#include "tests/support/memory_frame.h"
#include "tests/support/packet_builder.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::datapath;
using egresswatch::test::PacketBuilder;
using Bytes = std::vector<std::uint8_t>;

constexpr int repetitions = 9;
constexpr std::size_t addresses_max = 1u << 20;
constexpr std::size_t burst = 32;  // addresses of one rte_fib_lookup_bulk(), packets of one account()

[[noreturn]] void die(const std::string& what) {
    std::fprintf(stderr, "micro_bench: %s\n", what.c_str());
    std::exit(3);
}

// Interleaved repetitions end in any order: the table keeps the order of registration.
std::vector<std::string>& registered() {
    static std::vector<std::string> names;
    return names;
}

template <typename Body>
benchmark::internal::Benchmark* enlist(const std::string& name, Body body) {
    registered().push_back(name);
    return benchmark::RegisterBenchmark(name.c_str(), body);
}

// ------------------------------------------------------------------------------------------------ walk

void walk_frame(benchmark::State& state, const Bytes& bytes, bool fast) {
    const MemoryFrame frame{bytes.data(), static_cast<__u32>(bytes.size())};
    frame_facts facts{};
    facts.wire_bytes = facts.captured_bytes = frame.captured;
    facts.start = START_ETHERNET;
    walk_result result;
    static walk_state scratch;
    const bool answers =
        walk_fast(bytes.data(), bytes.data() + bytes.size(), START_ETHERNET, frame.captured, &result);
    if (answers != fast) die("a frame does not take the walk that is to be measured");
    for (auto _ : state) {
        const std::uint8_t* data = bytes.data();
        benchmark::DoNotOptimize(data);
        if (fast)
            benchmark::DoNotOptimize(
                walk_fast(data, data + bytes.size(), START_ETHERNET, frame.captured, &result));
        else
            benchmark::DoNotOptimize(walk_full(&frame, &scratch, &facts));
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

PacketBuilder vxlan_head() {
    PacketBuilder packet;
    packet.ethernet(0x0800)
        .ipv4("10.32.0.1", "10.33.0.1", 17)
        .udp(49152, 4789)
        .raw("08 00 00 00 00 00 07 00");
    return packet;
}

void add_walks() {
    const auto add = [](const char* name, const PacketBuilder& packet, bool fast) {
        enlist(name,
               [bytes = packet.bytes(), fast](benchmark::State& state) { walk_frame(state, bytes, fast); });
    };
    add("walk/IPv4 TCP, fast walk",
        PacketBuilder().ethernet(0x0800).ipv4("10.32.0.1", "3.0.0.1", 6).tcp(1024, 443, 16).payload(100),
        true);
    add("walk/IPv6 UDP, fast walk",
        PacketBuilder().ethernet(0x86dd).ipv6("fd00:32::1", "2601::1", 17).udp(1024, 443).payload(100), true);
    add("walk/802.1Q, IPv4 TCP, fast walk",
        PacketBuilder().ethernet(0x8100).vlan(7, 0x0800).ipv4("10.32.0.1", "3.0.0.1", 6).tcp(1024, 443, 16),
        true);
    add("walk/IPv4 options, TCP",
        PacketBuilder().ethernet(0x0800).ipv4("10.32.0.1", "3.0.0.1", 6, 8).tcp(1024, 443, 16), false);
    add("walk/IPv6, three extension headers, TCP",
        PacketBuilder()
            .ethernet(0x86dd)
            .ipv6("fd00:32::1", "2601::1", 0)
            .extension(60, 8)
            .extension(43, 8)
            .extension(6, 24)
            .tcp(1024, 443, 16),
        false);
    add("walk/VXLAN, IPv4 TCP inside",
        vxlan_head().ethernet(0x0800).ipv4("10.32.0.1", "3.0.0.1", 6).tcp(1024, 443, 16), false);
    add("walk/VXLAN, 802.1Q, IPv6 in IPv4, TCP",
        vxlan_head()
            .ethernet(0x8100)
            .vlan(7, 0x0800)
            .ipv4("10.32.0.1", "3.0.0.1", 41)
            .ipv6("fd00:32::1", "2601::1", 6)
            .tcp(1024, 443, 16),
        false);
}

// ------------------------------------------------------------------------------------------------ region

// One kind of table, asked for one address.
using Lookup4 = std::function<std::uint32_t(std::uint32_t)>;

struct World {
    explicit World(const std::string& geo_path);
    ~World() { MMDB_close(&mmdb); }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    std::shared_ptr<const rules::Policy> policy;
    std::shared_ptr<const RegionTable> region;
    std::unique_ptr<test::DpdkTables> dpdk;
    std::vector<std::uint32_t> four;  // uniform
    std::vector<Address> six;         // in random country prefixes
    testing::TempDir folder;
    MMDB_s mmdb{};
    std::size_t prefixes4 = 0, prefixes6 = 0;

    [[nodiscard]] const __u16* block() const {
        return reinterpret_cast<const __u16*>(region->block().data());
    }
    [[nodiscard]] __u32 cells() const { return region->cells(); }

private:
    void pick_addresses(const std::vector<test::CountryPrefix>& prefixes);
    void agree();
};

std::uint32_t fib_lookup(rte_fib* fib, std::uint32_t address) {
    std::uint64_t hop = 0;
    (void)rte_fib_lookup_bulk(fib, &address, &hop, 1);
    return static_cast<std::uint32_t>(hop);
}

MMDB_lookup_result_s mmdb_lookup(const MMDB_s& mmdb, const Address& address) {
    int error = 0;
    if (address.is_ipv4()) {
        sockaddr_in in{};
        in.sin_family = AF_INET;
        in.sin_addr.s_addr = __builtin_bswap32(address.ipv4());
        return MMDB_lookup_sockaddr(&mmdb, reinterpret_cast<const sockaddr*>(&in), &error);
    }
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    std::memcpy(&in.sin6_addr, address.bytes.data(), 16);
    return MMDB_lookup_sockaddr(&mmdb, reinterpret_cast<const sockaddr*>(&in), &error);
}

std::string mmdb_country(const MMDB_s& mmdb, const Address& address) {
    auto found = mmdb_lookup(mmdb, address);
    if (!found.found_entry) return {};
    MMDB_entry_data_s data;
    if (MMDB_get_value(&found.entry, &data, "country", "iso_code", nullptr) != MMDB_SUCCESS || !data.has_data)
        return {};
    return {data.utf8_string, data.data_size};
}

World::World(const std::string& geo_path) {
    const auto geo = GeoData::open(geo_path);
    if (!geo) die(geo.error().message);
    auto loaded = rules::load_policy("docs/examples/policy.d");
    if (!loaded) die("docs/examples/policy.d does not load");
    policy = loaded->policy;
    auto table = compile_region_table(*geo, policy->region_spec());
    if (!table) die(table.error().message);
    region = *table;
    // The peers know countries only: theirs is compared with the country of our class.
    const auto prefixes = test::country_prefixes(*geo, *region);
    dpdk = std::make_unique<test::DpdkTables>(prefixes);
    const std::string path = (folder.path() / "country.mmdb").string();
    test::write_mmdb(path, prefixes);
    if (MMDB_open(path.c_str(), MMDB_MODE_MMAP, &mmdb) != MMDB_SUCCESS) die("the MMDB file does not open");
    pick_addresses(prefixes);
    agree();
}

void World::pick_addresses(const std::vector<test::CountryPrefix>& prefixes) {
    std::mt19937_64 random(20261125);
    four.resize(addresses_max);
    for (auto& address : four) address = static_cast<std::uint32_t>(random());
    std::vector<const Prefix*> known6;
    for (const auto& entry : prefixes) {
        (entry.prefix.is_ipv4() ? prefixes4 : prefixes6)++;
        if (!entry.prefix.is_ipv4()) known6.push_back(&entry.prefix);
    }
    six.resize(addresses_max);
    for (auto& address : six) {
        const Prefix& prefix = *known6[random() % known6.size()];
        address = prefix.base;
        for (unsigned i = prefix.length; i < 128; i++)
            if ((random() & 1) != 0) address.bytes[i / 8] |= static_cast<std::uint8_t>(0x80 >> i % 8);
    }
}

// What is compared must be equal first, or the fastest is the one that knows least.
void World::agree() {
    const auto ours = [&](const Address& address) { return region->class_info(region->lookup(address)); };
    const auto check = [&](const Address& address, const char* who, const std::string& country) {
        const ClassInfo info = ours(address);
        if (info.kind != KIND_LOCAL && info.country != country)
            die(address.to_string() + " is in " + info.country + ", says the region table; " + who +
                " says " + country);
    };
    const auto country_of = [&](std::uint32_t id) {
        return region->class_info(static_cast<std::uint16_t>(id)).country;
    };
    for (std::size_t i = 0; i < addresses_max; i += 10) {
        const Address address = Address::from_ipv4(four[i]);
        std::uint32_t hop = 0;
        check(address, "rte_lpm",
              rte_lpm_lookup(dpdk->lpm, four[i], &hop) == 0 ? country_of(hop) : std::string());
        check(address, "rte_fib", country_of(fib_lookup(dpdk->fib, four[i])));
        check(address, "libmaxminddb", mmdb_country(mmdb, address));
        if (six[i].bytes[0] == 0x20 && six[i].bytes[1] == 0x02)
            continue;  // 6to4: ours takes the address inside
        check(six[i], "rte_lpm6",
              rte_lpm6_lookup(dpdk->lpm6, six[i].bytes.data(), &hop) == 0 ? country_of(hop) : std::string());
        check(six[i], "libmaxminddb", mmdb_country(mmdb, six[i]));
    }
}

// hot, random and chain over one lookup; `Look` is inlined, as it would be in a data path.
template <typename Key, typename Look>
void add_lookup(const std::string& name, const std::vector<Key>& keys, Look look) {
    enlist(name + ", hot", [&keys, look](benchmark::State& state) {
        Key key = keys[1];
        for (auto _ : state) {
            benchmark::DoNotOptimize(key);
            benchmark::DoNotOptimize(look(key));
        }
        state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
    });
    enlist(name + ", random", [&keys, look](benchmark::State& state) {
        std::size_t i = 0;
        for (auto _ : state) {
            benchmark::DoNotOptimize(look(keys[i]));
            i = (i + 1) % addresses_max;
        }
        state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
    });
    enlist(name + ", chain", [&keys, look](benchmark::State& state) {
        std::size_t i = 0;
        for (auto _ : state) {
            std::uint32_t answer = look(keys[i]);
            asm volatile("" : "+r"(answer));  // the compiler forgets what it knows of the answer's range
            i = (i + 1 + (answer >> 31)) % addresses_max;  // no answer has the highest bit
        }
        benchmark::DoNotOptimize(i);
        state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
    });
}

void add_regions(const World& world) {
    const __u16* block = world.block();
    const __u32 cells = world.cells();
    add_lookup("region IPv4/egresswatch", world.four,
               [=](std::uint32_t address) { return region_lookup4(block, cells, address); });
    add_lookup("region IPv4/rte_lpm", world.four, [lpm = world.dpdk->lpm](std::uint32_t address) {
        std::uint32_t hop = 0;
        (void)rte_lpm_lookup(lpm, address, &hop);
        return hop;
    });
    enlist("region IPv4/rte_fib, hot", [&world](benchmark::State& state) {
        std::array<std::uint32_t, burst> addresses;
        std::array<std::uint64_t, burst> hops;
        addresses.fill(world.four[1]);
        for (auto _ : state) {
            benchmark::DoNotOptimize(
                rte_fib_lookup_bulk(world.dpdk->fib, addresses.data(), hops.data(), burst));
            benchmark::ClobberMemory();
        }
        state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * burst));
    });
    enlist("region IPv4/rte_fib, random", [&world](benchmark::State& state) {
        std::array<std::uint64_t, burst> hops;
        std::size_t i = 0;
        for (auto _ : state) {
            auto* addresses = const_cast<std::uint32_t*>(&world.four[i]);
            benchmark::DoNotOptimize(rte_fib_lookup_bulk(world.dpdk->fib, addresses, hops.data(), burst));
            benchmark::ClobberMemory();
            i = (i + burst) % addresses_max;
        }
        state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * burst));
    });
    add_lookup("region IPv4/libmaxminddb", world.four, [&world](std::uint32_t address) {
        return static_cast<std::uint32_t>(mmdb_lookup(world.mmdb, Address::from_ipv4(address)).found_entry);
    });
    add_lookup("region IPv6/egresswatch", world.six,
               [=](const Address& address) { return region_lookup6(block, cells, address.bytes.data()); });
    add_lookup("region IPv6/rte_lpm6", world.six, [lpm6 = world.dpdk->lpm6](const Address& address) {
        std::uint32_t hop = 0;
        (void)rte_lpm6_lookup(lpm6, address.bytes.data(), &hop);
        return hop;
    });
    add_lookup("region IPv6/libmaxminddb", world.six, [&world](const Address& address) {
        return static_cast<std::uint32_t>(mmdb_lookup(world.mmdb, address).found_entry);
    });
}

// ------------------------------------------------------------------------------------------------ flow table

struct NullSink final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
};

// One packet of each flow, in random order, all within one second: no tick interrupts.
struct FlowPackets {
    Bytes bytes;
    std::vector<PacketInput> inputs;

    explicit FlowPackets(std::uint64_t flows) {
        test::TrafficMix mix({.packets = flows, .flows = flows, .even = true, .snap_bytes = 96});
        std::vector<std::size_t> ends;
        for (test::MadePacket packet; mix.next(packet);) {
            bytes.insert(bytes.end(), packet.bytes.begin(), packet.bytes.end());
            ends.push_back(bytes.size());
            PacketInput input;
            input.wire_bytes = packet.wire_bytes;
            input.at_ns = test::TrafficSpec{}.start_ns;
            input.link.start = LinkStart::ethernet;
            inputs.push_back(input);
        }
        for (std::size_t i = 0, begin = 0; i < inputs.size(); begin = ends[i++])
            inputs[i].bytes = std::span(bytes).subspan(begin, ends[i] - begin);
    }
};

FlowTable make_table(const World& world, std::uint64_t flows) {
    FlowTable table({.slots_start = static_cast<std::uint32_t>(flows * 2),
                     .track_all = true,
                     .local_networks = test::TrafficMix::local_networks()});
    table.install_region(world.region->block());
    return table;
}

void add_flows(const World& world) {
    for (const auto& [flows, words] : std::map<std::uint64_t, const char*>{
             {1, "one flow"}, {1u << 16, "64k flows"}, {1u << 20, "1M flows"}}) {
        const std::string name = std::string("flow table/packet of ") + words;
        enlist(name, [&world, flows = flows](benchmark::State& state) {
            static std::map<std::uint64_t, FlowPackets> made;
            auto& packets = made.try_emplace(flows, flows).first->second;
            if (flows == 1) packets.inputs.resize(burst, packets.inputs[0]);
            FlowTable table = make_table(world, std::max<std::uint64_t>(flows, 64));
            NullSink sink;
            table.account(packets.inputs, sink);
            std::size_t i = 0;
            const std::span<const PacketInput> all = packets.inputs;
            for (auto _ : state) {
                table.account(all.subspan(i, burst), sink);
                i = (i + burst) % all.size();
            }
            if (table.live() != flows) die("the flow table has not the flows that were made");
            state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * burst));
        });
    }
    enlist("flow table/first packet of a flow, into room for 4M",
           [&world](benchmark::State& state) {
               static const FlowPackets packets(1u << 20);
               NullSink sink;
               for (auto _ : state) {
                   FlowTable table = make_table(world, 1u << 21);
                   const auto begin = std::chrono::steady_clock::now();
                   table.account(packets.inputs, sink);
                   state.SetIterationTime(
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
               }
               state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * packets.inputs.size()));
           })
        ->UseManualTime()
        ->Iterations(1);
}

// ------------------------------------------------------------------------------------------------ evaluator

void add_evaluator(const World& world) {
    struct Kind {
        const char* name;
        const char* base;  // of the remote addresses
        unsigned remotes;
    };
    static constexpr std::array kinds{Kind{"home, no rule can match", "53.0.0.0", 10'000},
                                      Kind{"outside, 100 remotes", "126.0.0.0", 100},
                                      Kind{"outside, 50,000 remotes", "126.0.0.0", 50'000}};
    for (const Kind& kind : kinds) {
        enlist(std::string("evaluator/update, ") + kind.name, [&](benchmark::State& state) {
            rules::Evaluator evaluator(world.policy);
            std::vector<rules::Finding> findings;
            const std::uint32_t base = Address::parse(kind.base)->ipv4();
            FlowUpdate update;
            update.key.local_port = host16(49152);
            update.key.remote_port = host16(443);
            update.key.l4_proto = 6;
            update.delta = update.total = {1, 100, 0, 0};
            unsigned i = 0;
            for (auto _ : state) {
                const Address remote = Address::from_ipv4(base + i * 2654435761u % kind.remotes);
                std::memcpy(update.key.remote_addr, remote.bytes.data(), 16);
                update.first_seen = update.last_seen =
                    Timestamp(std::chrono::seconds(1'764'000'000 + i++ / 100'000));
                evaluator.evaluate(update, world.region->class_info(world.region->lookup(remote)),
                                   update.last_seen, findings);
                findings.clear();
            }
            state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
        });
    }
}

// ------------------------------------------------------------------------------------------------ results

// Keeps every repetition's nanoseconds per item; prints when all is done.
class TableReporter final : public benchmark::BenchmarkReporter {
public:
    TableReporter(bool json, const World& world) : json_(json), world_(world) {}
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            if (run.run_type != Run::RT_Iteration) continue;
            if (run.error_occurred) die(run.run_name.function_name + ": " + run.error_message);
            const std::string name = run.run_name.function_name;
            results_[name].push_back(1e9 / run.counters.at("items_per_second"));
        }
    }
    void Finalize() override {
        if (json_)
            std::printf("[");
        else
            std::printf(
                "One core, minimum / median of %d repetitions, interleaved at random; %zu IPv4 and %zu IPv6 "
                "prefixes of "
                "countries.\n\n| what | ns | part |\n|---|---|---|\n",
                repetitions, world_.prefixes4, world_.prefixes6);
        bool first = true;
        for (const std::string& name : registered()) {
            auto& times = results_[name];
            if (times.empty()) continue;  // filtered out
            std::sort(times.begin(), times.end());
            const auto slash = name.find('/');
            const std::string group = name.substr(0, slash);
            const std::string what = name.substr(slash + 1);
            if (json_)
                std::printf(
                    "%s\n  {\"group\": \"%s\", \"name\": \"%s\", \"ns\": %.3f, \"ns_median\": %.3f, "
                    "\"repetitions\": %zu}",
                    first ? "" : ",", group.c_str(), what.c_str(), times.front(), times[times.size() / 2],
                    times.size());
            else
                std::printf("| %s | %.1f / %.1f | %s |\n", what.c_str(), times.front(),
                            times[times.size() / 2], group.c_str());
            first = false;
        }
        if (json_) std::printf("\n]\n");
    }

private:
    bool json_;
    const World& world_;
    std::map<std::string, std::vector<double>> results_;
};

}  // namespace

int main(int argc, char** argv) {
    bool json = false;
    std::vector<std::string> words{"micro_bench", "--benchmark_enable_random_interleaving=true",
                                   "--benchmark_repetitions=" + std::to_string(repetitions),
                                   "--benchmark_min_time=0.02"};
    for (int i = 1; i < argc; i++) {
        if (std::string_view(argv[i]) == "--json")
            json = true;
        else
            words.emplace_back(argv[i]);  // --benchmark_filter=...
    }
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

    const World world("build/share/geo.ewgeo");
    add_walks();
    add_regions(world);
    add_flows(world);
    add_evaluator(world);
    TableReporter reporter(json, world);
    benchmark::RunSpecifiedBenchmarks(&reporter);
    return 0;
}
