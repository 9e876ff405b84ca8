// tests/unit/agent/liveness_test.cpp - when heartbeats and canaries come. SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/liveness.h"

#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using namespace std::chrono_literals;
using daemon::Liveness;
using daemon::LivenessSettings;

TEST_CASE("a heartbeat comes at once and then at its interval", "[daemon][liveness]") {
    const TempDir dir;
    Liveness liveness({60s, 0s, "low"}, dir.path() / "canary");
    const auto start = std::chrono::steady_clock::now();
    CHECK(liveness.heartbeat_due(start));
    CHECK_FALSE(liveness.heartbeat_due(start + 59s));
    CHECK(liveness.heartbeat_due(start + 60s));
    CHECK_FALSE(liveness.canary_due(sample_time(0)));
    Liveness silent({0s, 0s, "low"}, dir.path() / "canary");
    CHECK_FALSE(silent.heartbeat_due(start));
}

TEST_CASE("a canary keeps its interval over restarts and clocks that step", "[daemon][liveness]") {
    const TempDir dir;
    const LivenessSettings settings{0s, 3'600s, "high"};
    CHECK(Liveness(settings, dir.path() / "canary").canary_due(sample_time(0)));
    CHECK_FALSE(Liveness(settings, dir.path() / "canary").canary_due(sample_time(3'599)));
    Liveness later(settings, dir.path() / "canary");
    CHECK(later.canary_due(sample_time(3'600)));
    CHECK_FALSE(later.canary_due(sample_time(3'601)));
    CHECK(later.canary_due(sample_time(-100)));
    const auto record = daemon::canary_record(sample_origin(), settings, sample_time(0));
    CHECK(record["rule"]["id"] == "egresswatch/canary");
    CHECK(record["level"] == "high");
    CHECK(record["canary"] == true);
}
