// agent/daemon/liveness.h - heartbeats and canaries: what a SIEM can miss when the way to it is closed.
// SPDX-License-Identifier: Apache-2.0
//
// Clock:  steady for the heartbeat; the host's for the canary, whose last time is kept over restarts in
//         <state_dir>/canary, so that a daemon that restarts often neither floods nor starves the SIEM.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>

#include "agent/daemon/config.h"
#include "agent/records/record.h"

namespace egresswatch::daemon {

class Liveness {
public:
    Liveness(const LivenessSettings& settings, std::filesystem::path canary_file);

    [[nodiscard]] bool heartbeat_due(std::chrono::steady_clock::time_point now);
    // True once; notes the time durably first: a canary too few is found sooner than one too many.
    [[nodiscard]] bool canary_due(Timestamp now);

private:
    LivenessSettings settings_;
    std::filesystem::path canary_file_;
    std::optional<std::chrono::steady_clock::time_point> heartbeat_at_;
    Timestamp canary_last_{};
};

struct HeartbeatFacts {
    std::chrono::seconds uptime{0};
    std::uint64_t findings = 0;
    std::uint64_t journal_seq = 0;
    records::Json outputs = records::Json::array();  // of Daemon::outputs_field()
};
[[nodiscard]] records::Json heartbeat_record(const records::Origin& origin, const HeartbeatFacts& facts);
[[nodiscard]] records::Json canary_record(const records::Origin& origin, const LivenessSettings& settings,
                                          Timestamp now);

}  // namespace egresswatch::daemon
