// tests/unit/classifier/table_places_test.cpp - where the tag of a flow says that it lies.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <random>
#include <vector>

#include "classifier/table_platform.h"
#include "tests/support/catch.h"

using namespace egresswatch;

namespace {

constexpr std::uint64_t slots_max = FlowTableConfig::slots_ceiling;

std::uint64_t first_of(std::uint32_t tag) {
    return places_of(tag) & (slots_max - 1);
}
std::uint64_t second_of(std::uint32_t tag) {
    return places_of(tag) >> 20 & (slots_max - 1);
}

}  // namespace

TEST_CASE("a flow is looked for under its tag, at two places that its tag says", "[classifier][flow]") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 10'000; ++i) {
        const std::uint32_t tag = datapath::flow_tag(random());
        REQUIRE(datapath::flow_tag(places_of(tag)) == tag);
        REQUIRE(places_of(tag | 1) == places_of(tag));  // as it stands in a head without counts
    }
    // Each bit of a place is one of the tag, and no other bit of that place is the same: all places are had,
    // and as many flows have each.
    std::uint64_t firsts = 0, seconds = 0;
    for (unsigned bit = 2; bit < 32; ++bit) {
        const std::uint32_t tag = std::uint32_t{1} << bit;
        REQUIRE(std::popcount(first_of(tag)) <= 1);
        REQUIRE(std::popcount(second_of(tag)) <= 1);
        REQUIRE((firsts & first_of(tag)) == 0);
        REQUIRE((seconds & second_of(tag)) == 0);
        firsts |= first_of(tag);
        seconds |= second_of(tag);
    }
    CHECK(firsts == slots_max - 1);
    CHECK(seconds == slots_max - 1);
}

TEST_CASE("flows of one bucket have many second buckets, in tables of any size", "[classifier][flow]") {
    for (std::uint64_t slots = 1u << 12; slots <= slots_max; slots *= 2) {
        const std::uint64_t buckets = (slots - 1) & ~std::uint64_t{datapath::FLOW_PROBES - 1};
        std::uint64_t differ = 0;  // bits of the second bucket that the first one leaves open
        for (unsigned bit = 2; bit < 32; ++bit) {
            const std::uint32_t tag = std::uint32_t{1} << bit;
            if ((places_of(tag) & buckets) == 0) differ |= places_of(tag) >> 20 & buckets;
        }
        CHECK(std::popcount(differ) >= 6);
    }
}
