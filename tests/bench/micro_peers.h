// tests/bench/micro_peers.h - other people's tables, filled with the country data that ours is compiled from.
//
// In:      geo data and the region table compiled from it.
// Out:     DPDK's rte_lpm, rte_fib (DIR-24-8) and rte_lpm6 with the region table's class ids as next hops; an
// MMDB
//          file with the countries.
// Memory:  DPDK's heap without huge pages, dpdk_heap_mib.     Time: rte_lpm takes ten seconds and more to
// fill. Fails:   prints and exits with 3: a measurement without one of its subjects is no measurement.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "classifier/address.h"
#include "classifier/region/geo_data.h"
#include "classifier/region/region_table.h"

struct rte_lpm;
struct rte_fib;
struct rte_lpm6;

namespace egresswatch::test {

struct CountryPrefix {
    Prefix prefix;
    std::string country;
    std::uint16_t class_id = 0;
};
// Every stretch of addresses with one known country, as CIDRs; local and special addresses as the geo data
// have them.
[[nodiscard]] std::vector<CountryPrefix> country_prefixes(const GeoData& geo, const RegionTable& table);

class DpdkTables {
public:
    static constexpr unsigned dpdk_heap_mib = 1536;
    explicit DpdkTables(const std::vector<CountryPrefix>& prefixes);
    ~DpdkTables();
    DpdkTables(const DpdkTables&) = delete;
    DpdkTables& operator=(const DpdkTables&) = delete;

    rte_lpm* lpm = nullptr;
    rte_fib* fib = nullptr;
    rte_lpm6* lpm6 = nullptr;
};

void write_mmdb(const std::string& path, const std::vector<CountryPrefix>& prefixes);

}  // namespace egresswatch::test
