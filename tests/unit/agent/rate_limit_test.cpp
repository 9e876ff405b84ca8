// tests/unit/agent/rate_limit_test.cpp - who passes when there is too much, and what is said of the others.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/rate_limit.h"

#include "tests/support/catch.h"

using namespace egresswatch;
using outputs::RateLimit;
using records::Level;

namespace {

Timestamp at(double seconds) {
    return Timestamp{std::chrono::nanoseconds{static_cast<std::int64_t>((1'000'000 + seconds) * 1e9)}};
}

int admitted(RateLimit& limit, Level level, int offered, double seconds) {
    int count = 0;
    for (int i = 0; i < offered; ++i) count += limit.admit(level, at(seconds)) ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("what is least important stops first, what is critical never", "[outputs][rate_limit]") {
    RateLimit limit({10, 100});
    CHECK(admitted(limit, Level::low, 1'000, 0) == 51);     // down to half
    CHECK(admitted(limit, Level::medium, 1'000, 0) == 25);  // to a quarter
    CHECK(admitted(limit, Level::high, 1'000, 0) == 24);    // to nothing
    CHECK(admitted(limit, Level::critical, 1'000, 0) == 1'000);
    CHECK(admitted(limit, Level::high, 1'000, 2) == 20);  // 2 s later, 10 a second
    CHECK(admitted(limit, Level::low, 1'000, 1'000) == 51);
}

TEST_CASE("a backlog is judged by the time of its records", "[outputs][rate_limit]") {
    RateLimit limit({10, 100});
    int count = 0;
    for (int i = 0; i < 10'000; ++i) count += limit.admit(Level::low, at(i / 10.0)) ? 1 : 0;
    CHECK(count == 10'000);
    CHECK(limit.admit(Level::low, at(0)));  // a clock that was set back takes nothing away
}

TEST_CASE("the account names numbers, levels and rules, and is due after ten seconds",
          "[outputs][rate_limit]") {
    RateLimit limit({1, 1});
    CHECK(limit.admit(Level::high, at(0)));
    CHECK_FALSE(limit.summary_due(at(100)));
    for (int i = 0; i < 40; ++i) {
        REQUIRE_FALSE(limit.admit(Level::medium, at(0)));
        limit.skip(static_cast<std::uint64_t>(100 + i), i == 7 ? Level::high : Level::medium,
                   "rule-" + std::to_string(i));
    }
    CHECK_FALSE(limit.summary_due(at(9.9)));
    CHECK(limit.summary_due(at(10)));
    const auto skipped = limit.take();
    CHECK(skipped.records == 40);
    CHECK(skipped.first_seq == 100);
    CHECK(skipped.last_seq == 139);
    CHECK(skipped.highest == Level::high);
    CHECK(skipped.by_level[2] == 39);
    CHECK(skipped.by_rule.size() == RateLimit::rules_named_max + 1);
    CHECK(skipped.by_rule.at("others") == 24);
    CHECK_FALSE(limit.summary_due(at(1'000)));
}
