// tests/unit/classifier/region_naive.h - longest-prefix match the slow way, and helpers of the region tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "classifier/region/geo_builder.h"
#include "classifier/region/region_table.h"
#include "tests/support/catch.h"

namespace egresswatch::test {

inline Address addr(const char* text) {
    return Address::parse(text).value();
}
inline Prefix cidr(const char* text) {
    return Prefix::parse(text).value();
}

// One hash map for each prefix length, asked from the longest to the shortest.
class NaiveMatch {
public:
    void add(const Prefix& prefix, std::string country) {
        by_length_[prefix.is_ipv4()][prefix.length][prefix.base] = std::move(country);
    }
    [[nodiscard]] std::pair<std::string, int> match(const Address& address) const {
        const auto family = by_length_.find(address.is_ipv4());
        if (family == by_length_.end()) return {"", -1};
        for (auto level = family->second.rbegin(); level != family->second.rend(); ++level) {
            const auto found = level->second.find(Prefix::containing(address, level->first).base);
            if (found != level->second.end()) return {found->second, level->first};
        }
        return {"", -1};
    }

private:
    struct Hash {
        std::size_t operator()(const Address& address) const {
            std::uint64_t words[2];
            std::memcpy(words, address.bytes.data(), sizeof words);
            return (words[0] * 31 + words[1]) * 0x9e3779b97f4a7c15u >> 20;
        }
    };
    std::map<bool, std::map<std::uint8_t, std::unordered_map<Address, std::string, Hash>>> by_length_;
};

inline Address plus(const Address& address, int delta) {
    Address moved = address;
    for (std::size_t i = 16; i-- > 0;) {
        const int sum = moved.bytes[i] + delta;
        moved.bytes[i] = static_cast<std::uint8_t>(sum & 0xff);
        delta = sum < 0 ? -1 : sum > 255 ? 1 : 0;
        if (delta == 0) break;
    }
    return moved;
}

inline Address random_ipv6(std::mt19937_64& random) {
    Address address;
    for (std::size_t i = 0; i < 16; i += 8) {
        const std::uint64_t word = random();
        for (std::size_t k = 0; k < 8; k++) address.bytes[i + k] = static_cast<std::uint8_t>(word >> (8 * k));
    }
    return address;
}

// The first, last and neighbouring addresses of a prefix, all in its family.
inline std::vector<Address> edges_of(const Prefix& prefix) {
    std::vector<Address> edges;
    for (const auto& edge : {prefix.base, prefix.last()})
        for (const int delta : {-1, 0, 1}) {
            const auto address = plus(edge, delta);
            if (address.is_ipv4() == prefix.is_ipv4()) edges.push_back(address);
        }
    return edges;
}

inline GeoData geo_from(const std::string& text, GeoFormat format = GeoFormat::cidr) {
    GeoBuilder builder;
    const auto added = builder.add_text({format, "test", "test", {}}, text);
    if (!added) FAIL(added.error().message);
    return builder.finish().value();
}

inline std::shared_ptr<const RegionTable> compiled(const GeoData& geo, const RegionSpec& spec,
                                                   const RegionTable* previous = nullptr) {
    auto table = compile_region_table(geo, spec, previous);
    if (!table) FAIL(table.error().message);
    const auto valid = region_validate((*table)->block());
    if (!valid) FAIL(valid.error().message);
    return *table;
}

class TestFolder {
public:
    TestFolder() {
        std::string text = (std::filesystem::temp_directory_path() / "egresswatch-region.XXXXXX").string();
        if (::mkdtemp(text.data()) == nullptr) FAIL("mkdtemp");
        path_ = text;
    }
    TestFolder(const TestFolder&) = delete;
    TestFolder& operator=(const TestFolder&) = delete;
    ~TestFolder() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }
    [[nodiscard]] std::filesystem::path operator/(const char* name) const { return path_ / name; }

private:
    std::filesystem::path path_;
};

}  // namespace egresswatch::test
