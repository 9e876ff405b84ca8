// tests/bench/micro_peers.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/micro_peers.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_lpm.h>
#include <rte_lpm6.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/support/mmdb_writer.h"

namespace egresswatch::test {
namespace {

using Wide = unsigned __int128;

constexpr std::uint32_t rules_max = 1u << 20;
constexpr std::uint32_t groups4_max = 1u << 16;  // tbl8 groups: /24 networks with longer prefixes inside
constexpr std::uint32_t groups6_max = 1u << 19;

[[noreturn]] void die(const std::string& what, int error = rte_errno) {
    std::fprintf(stderr, "micro_bench: %s: %s\n", what.c_str(), rte_strerror(error));
    std::exit(3);
}

Address address_of(Wide value, bool ipv4) {
    if (ipv4) return Address::from_ipv4(static_cast<std::uint32_t>(value));
    Address address;
    for (unsigned i = 0; i < 16; i++) address.bytes[i] = static_cast<std::uint8_t>(value >> (120 - 8 * i));
    return address;
}

unsigned trailing_zeros(Wide value, unsigned bits) {
    unsigned count = 0;
    while (count < bits && (value >> count & 1) == 0) count++;
    return count;
}

// [first, last] as the fewest CIDRs.
void split(Wide first, Wide last, bool ipv4, const CountryPrefix& what, std::vector<CountryPrefix>& out) {
    const unsigned bits = ipv4 ? 32 : 128;
    for (;;) {
        unsigned size =
            trailing_zeros(first, bits - 1);  // never all bits: one country has not the whole world
        while (((Wide{1} << size) - 1) > last - first) size--;
        CountryPrefix next = what;
        next.prefix.base = address_of(first, ipv4);
        next.prefix.length = static_cast<std::uint8_t>(bits - size);
        out.push_back(std::move(next));
        const Wide end = first + ((Wide{1} << size) - 1);
        if (end >= last) return;
        first = end + 1;
    }
}

// IPv4-mapped addresses are the IPv4 table's affair; the trees of others have them too, but not as a /96 of
// its own.
bool is_mapped(Wide first) {
    return first >> 32 == 0xffff;
}

}  // namespace

std::vector<CountryPrefix> country_prefixes(const GeoData& geo, const RegionTable& table) {
    std::map<std::string, std::uint16_t> classes;
    for (std::size_t id = 0; id < table.class_count(); id++) {
        const auto& info = table.class_info(static_cast<std::uint16_t>(id));
        if (!info.country.empty() && info.kind != datapath::KIND_LOCAL)
            classes.emplace(info.country, static_cast<std::uint16_t>(id));
    }
    std::vector<CountryPrefix> out;
    const auto add = [&](Wide first, Wide last, std::uint16_t code, bool ipv4) {
        const auto country = country_of_code(code);
        if (!country || (!ipv4 && is_mapped(first))) return;
        CountryPrefix what;
        what.country = std::string(*country);
        const auto found = classes.find(what.country);
        if (found == classes.end()) return;
        what.class_id = found->second;
        split(first, last, ipv4, what, out);
    };
    const auto four = geo.segments4();
    for (std::size_t i = 0; i < four.size(); i++)
        add(four[i].first, i + 1 < four.size() ? Wide{four[i + 1].first} - 1 : Wide{0xffffffff}, four[i].code,
            true);
    const auto six = geo.segments6();
    const auto start = [&](std::size_t i) { return Wide{six[i].high} << 64 | six[i].low; };
    for (std::size_t i = 0; i < six.size(); i++)
        add(start(i), i + 1 < six.size() ? start(i + 1) - 1 : ~Wide{0}, six[i].code, false);
    return out;
}

DpdkTables::DpdkTables(const std::vector<CountryPrefix>& prefixes) {
    // The core that this thread is on: the EAL pins the thread to what it is told.
    std::array<std::string, 9> words{"micro_bench",   "--no-huge", "-m", std::to_string(dpdk_heap_mib),
                                     "--no-shconf",   "--no-pci",  "-l", std::to_string(sched_getcpu()),
                                     "--no-telemetry"};
    std::array<char*, words.size() + 1> arguments{};
    std::transform(words.begin(), words.end(), arguments.begin(),
                   [](std::string& word) { return word.data(); });
    if (rte_eal_init(static_cast<int>(words.size()), arguments.data()) < 0) die("EAL");

    rte_lpm_config lpm_config{};
    lpm_config.max_rules = rules_max;
    lpm_config.number_tbl8s = groups4_max;
    lpm = rte_lpm_create("bench4", SOCKET_ID_ANY, &lpm_config);
    if (lpm == nullptr) die("rte_lpm_create");
    rte_fib_conf fib_config{};
    fib_config.type = RTE_FIB_DIR24_8;
    fib_config.max_routes = static_cast<int>(rules_max);
    fib_config.dir24_8.nh_sz = RTE_FIB_DIR24_8_4B;
    fib_config.dir24_8.num_tbl8 = groups4_max;
    fib = rte_fib_create("bench4", SOCKET_ID_ANY, &fib_config);
    if (fib == nullptr) die("rte_fib_create");
    rte_lpm6_config lpm6_config{};
    lpm6_config.max_rules = rules_max;
    lpm6_config.number_tbl8s = groups6_max;
    lpm6 = rte_lpm6_create("bench6", SOCKET_ID_ANY, &lpm6_config);
    if (lpm6 == nullptr) die("rte_lpm6_create");

    const auto need = [](int result, const char* what) {
        if (result < 0) die(what, -result);
    };
    for (const CountryPrefix& entry : prefixes) {
        const auto& [base, length] = entry.prefix;
        if (entry.prefix.is_ipv4()) {
            need(rte_lpm_add(lpm, base.ipv4(), length, entry.class_id), "rte_lpm_add");
            need(rte_fib_add(fib, base.ipv4(), length, entry.class_id), "rte_fib_add");
        } else {
            need(rte_lpm6_add(lpm6, base.bytes.data(), length, entry.class_id), "rte_lpm6_add");
        }
    }
}

DpdkTables::~DpdkTables() {
    rte_lpm_free(lpm);
    rte_fib_free(fib);
    rte_lpm6_free(lpm6);
    (void)rte_eal_cleanup();
}

void write_mmdb(const std::string& path, const std::vector<CountryPrefix>& prefixes) {
    MmdbWriter writer(6, 24);
    for (const CountryPrefix& entry : prefixes) writer.add(entry.prefix, entry.country);
    writer.alias_ipv4();
    writer.write(path);
}

}  // namespace egresswatch::test
