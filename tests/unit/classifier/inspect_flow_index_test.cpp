// tests/unit/classifier/inspect_flow_index_test.cpp - numbers by hash, beside a list that is searched from
// end to end. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "classifier/inspect/flow_index.h"
#include "tests/support/catch.h"

using egresswatch::inspect::FlowIndex;

TEST_CASE("an index finds what is in it and nothing else, however hashes crowd", "[inspect][index]") {
    // Few different hashes, or all at the end of the table so that they run over it.
    const std::uint32_t low = GENERATE(0u, 0xffffff00u);
    const std::uint32_t range = GENERATE(3u, 40u, 256u);
    std::mt19937 random(range);
    FlowIndex index;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> known;  // hash, number
    const auto find = [&](std::uint32_t hash, std::uint32_t number) {
        return index.find(hash, [&](std::uint32_t candidate) { return candidate == number; });
    };
    std::uint32_t next = 0;
    for (int step = 0; step < 3000; ++step) {
        const bool add = known.size() < 10 || random() % 1000 < (step < 1500 ? 600 : 400);
        if (add) {
            known.emplace_back(low + random() % range, next++);
            index.add(known.back().first, known.back().second);
        } else {
            std::swap(known[random() % known.size()], known.back());
            index.remove(known.back().first, known.back().second);
            REQUIRE(find(known.back().first, known.back().second) == FlowIndex::none);
            known.pop_back();
        }
        REQUIRE(index.size() == known.size());
        REQUIRE(std::ranges::all_of(
            known, [&](const auto& one) { return find(one.first, one.second) == one.second; }));
        REQUIRE(find(low + range, 0) == FlowIndex::none);
    }
}
