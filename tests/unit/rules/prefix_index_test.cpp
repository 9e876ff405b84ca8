// tests/unit/rules/prefix_index_test.cpp - the index against looking at every prefix.
// SPDX-License-Identifier: Apache-2.0
#include "rules/prefix_index.h"

#include <map>
#include <random>
#include <set>

#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

Address random_address(std::mt19937_64& random, bool six) {
    if (!six) return Address::from_ipv4(static_cast<std::uint32_t>(random() & 0x0303ffff));
    Address out = *Address::parse("2001:db8::");
    for (std::size_t i = 4; i < 16; ++i)
        out.bytes[i] = static_cast<std::uint8_t>(random() & (i < 6 ? 1 : 0xff));
    return out;
}

}  // namespace

TEST_CASE("an address is in the sets whose prefixes contain it, and in no other",
          "[rules][prefixes][property]") {
    std::mt19937_64 random(7);
    for (int round = 0; round < 30; ++round) {
        PrefixIndex index;
        std::vector<std::pair<std::uint32_t, Prefix>> all;
        for (int i = 0; i < 200; ++i) {
            const bool six = random() % 2 == 0;
            const auto length = static_cast<std::uint8_t>(random() % (six ? 129 : 33));
            const Prefix prefix = Prefix::containing(random_address(random, six), length);
            all.emplace_back(random() % 40, prefix);
            index.add(all.back().first, prefix);
        }
        index.build();
        for (int i = 0; i < 500; ++i) {
            // Edges of prefixes, and the addresses beside them.
            Address address = random_address(random, random() % 2 == 0);
            if (i % 3 == 0) address = all[random() % all.size()].second.base;
            if (i % 3 == 1) address = all[random() % all.size()].second.last();
            std::set<std::uint32_t> expected, found;
            for (const auto& [set, prefix] : all)
                if (prefix.contains(address)) expected.insert(set);
            const PrefixIndex::Place place = index.find(address);
            index.each_set(place, [&](std::uint32_t set) { CHECK(found.insert(set).second); });
            REQUIRE(found == expected);
            for (std::uint32_t set = 0; set < 40; ++set)
                REQUIRE(index.contains(place, set) == expected.contains(set));
        }
    }
}

TEST_CASE("an address that stands for an IPv4 address is where that one is", "[rules][prefixes]") {
    PrefixIndex index;
    index.add(0, *Prefix::parse("203.0.113.0/24"));
    index.add(1, *Prefix::parse("::/0"));
    index.build();
    CHECK(index.contains(index.find(*Address::parse("64:ff9b::203.0.113.9")), 0));
    CHECK(index.contains(index.find(*Address::parse("2002:cb00:7109::1")), 0));
    CHECK(!index.contains(index.find(*Address::parse("64:ff9b::203.0.114.9")), 0));
    CHECK(index.contains(index.find(*Address::parse("2001:db8::1")), 1));
    CHECK(index.find(*Address::parse("203.0.114.1")) == 0);
    CHECK(PrefixIndex{}.find(*Address::parse("203.0.113.1")) == 0);
}
