// tests/unit/rules/windows_test.cpp - sliding sums against the naive ones, and what happens at the limits.
// SPDX-License-Identifier: Apache-2.0
#include "rules/windows.h"

#include <map>
#include <random>

#include "rules/limits.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

constexpr std::size_t plenty = 1'000'000;

GroupKey key_of(std::uint32_t number) {
    GroupKey key;
    key.base = Address::from_ipv4(number);
    key.length = 255;
    return key;
}

struct Fact {
    std::uint32_t group;
    Timestamp at;
    std::uint64_t amount;
};

// What the group sent in (from, to].
std::uint64_t naive(const std::vector<Fact>& facts, std::uint32_t group, Timestamp from, Timestamp to) {
    std::uint64_t out = 0;
    for (const Fact& fact : facts)
        if (fact.group == group && fact.at > from && fact.at <= to) out += fact.amount;
    return out;
}

}  // namespace

TEST_CASE("a window's sum lies between the naive sums over its length and over one bucket more",
          "[rules][windows][property]") {
    for (const std::chrono::seconds over : {std::chrono::seconds(1), std::chrono::seconds(7),
                                            std::chrono::seconds(600), std::chrono::seconds(604'800)}) {
        std::mt19937_64 random(over.count());
        WindowBudget budget{0, 0, plenty, plenty};
        Windows windows({over, plenty, GroupHash{42}}, budget);
        std::vector<Fact> facts;
        std::uint64_t late = 0;
        Timestamp now = day_zero;
        const std::chrono::nanoseconds length(over);
        for (int i = 0; i < 2000; ++i) {
            now += std::chrono::nanoseconds(random() % static_cast<std::uint64_t>(length.count() / 10));
            // Up to a tenth of them late, some by more than the window.
            const bool delayed = random() % 10 == 0;
            const Timestamp at = delayed
                                     ? now - std::chrono::nanoseconds(
                                                 random() % static_cast<std::uint64_t>(2 * length.count()))
                                     : now;
            const Fact fact{static_cast<std::uint32_t>(random() % 3), at, random() % 1'000'000};
            const Windows::Sum sum = windows.add(key_of(fact.group), fact.amount, true, fact.at, now);
            facts.push_back(fact);
            if (sum.late) {
                ++late;
                REQUIRE(at <= now - length);
                continue;
            }
            REQUIRE(sum.value >= naive(facts, fact.group, now - length, now));
            REQUIRE(sum.value <= naive(facts, fact.group, now - length - windows.bucket(), now));
            REQUIRE(windows.value(key_of(fact.group), now) == sum.value);
            REQUIRE(sum.start <= at);
        }
        CHECK(late > 0);
        windows.drop_empty(now + 2 * length, plenty);
        CHECK(windows.groups() == 0);
        CHECK(budget.groups == 0);
        CHECK(budget.cells == 0);
    }
}

TEST_CASE("at its limit a rule evicts the group with the oldest activity, and counts it",
          "[rules][windows]") {
    WindowBudget budget{0, 0, plenty, plenty};
    Windows windows({std::chrono::seconds(600), 3, GroupHash{42}}, budget);
    for (std::uint32_t group : {1u, 2u, 3u})
        windows.add(key_of(group), 10, true, at(10 * group), at(10 * group));
    windows.add(key_of(1), 10, true, at(40), at(40));  // 2 is the oldest now
    windows.add(key_of(4), 10, true, at(50), at(50));
    CHECK(windows.groups() == 3);
    CHECK(windows.evicted() == 1);
    CHECK(windows.value(key_of(1), at(50)) == 20);
    CHECK(windows.value(key_of(2), at(50)) == 0);
    CHECK(windows.value(key_of(3), at(50)) == 10);
}

TEST_CASE("the budget of all rules is kept, and a rule's own group is never the victim", "[rules][windows]") {
    WindowBudget budget{0, 0, 4, plenty};
    Windows first({std::chrono::seconds(600), plenty, GroupHash{42}}, budget);
    Windows second({std::chrono::seconds(600), plenty, GroupHash{42}}, budget);
    for (std::uint32_t group = 1; group <= 4; ++group) first.add(key_of(group), 10, true, at(0), at(0));
    CHECK(second.add(key_of(9), 10, true, at(1), at(1)).value == 10);
    CHECK(second.add(key_of(8), 10, true, at(2), at(2)).value == 10);
    CHECK(second.groups() == 1);
    CHECK(second.evicted() == 1);
    CHECK(first.groups() == 4);
    CHECK(budget.groups == 5);
}

TEST_CASE("buckets in use are bounded over all groups", "[rules][windows]") {
    WindowBudget budget{0, 0, plenty, 100};
    Windows windows({std::chrono::seconds(60), plenty, GroupHash{42}}, budget);
    for (int second = 0; second < 50; ++second)
        for (std::uint32_t group = 0; group < 10; ++group)
            windows.add(key_of(group), 1, true, at(second), at(second));
    CHECK(budget.cells <= 100);
    CHECK(windows.evicted() > 0);
}

TEST_CASE("suppressions end, are bounded, and keep repeats that nobody was told", "[rules][windows]") {
    Suppressions suppressions(2, GroupHash{42});
    CHECK(!suppressions.repeat(key_of(1), at(0)));
    CHECK(suppressions.start(key_of(1), at(10)) == 0);
    CHECK(suppressions.repeat(key_of(1), at(9)));
    CHECK(!suppressions.repeat(key_of(1), at(10)));
    suppressions.drop_ended(at(100), 100);
    CHECK(suppressions.start(key_of(1), at(120)) == 1);
    CHECK(suppressions.start(key_of(1), at(130)) == 0);
    suppressions.start(key_of(2), at(140));
    suppressions.start(key_of(3), at(150));
    CHECK(suppressions.evicted() == 1);
    CHECK(!suppressions.active(key_of(1), at(125)));
    CHECK(suppressions.active(key_of(2), at(125)));
}

TEST_CASE("the memory of groups is as the limits say", "[rules][windows]") {
    WindowBudget budget{0, 0, plenty, plenty};
    Windows windows({std::chrono::seconds(600), limits::window_groups_max, GroupHash{42}}, budget);
    const auto groups = static_cast<std::uint32_t>(limits::window_groups_max + 1000);
    for (std::uint32_t group = 0; group < groups; ++group) windows.add(key_of(group), 1, true, at(0), at(0));
    CHECK(windows.groups() == limits::window_groups_max);
    CHECK(windows.evicted() == 1000);
}
