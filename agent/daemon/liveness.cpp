// agent/daemon/liveness.cpp - see liveness.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/liveness.h"

#include "agent/daemon/internal_finding.h"
#include "agent/journal/sector_file.h"

namespace egresswatch::daemon {

Liveness::Liveness(const LivenessSettings& settings, std::filesystem::path canary_file)
    : settings_(settings), canary_file_(std::move(canary_file)) {
    if (auto file = journal::SectorFile::open(canary_file_))
        canary_last_ = Timestamp{std::chrono::nanoseconds{
            static_cast<std::int64_t>(journal::number_field(file->fields(), "last_ns"))}};
}

bool Liveness::heartbeat_due(std::chrono::steady_clock::time_point now) {
    if (settings_.heartbeat.count() == 0 || (heartbeat_at_ && now < *heartbeat_at_)) return false;
    heartbeat_at_ = now + settings_.heartbeat;
    return true;
}

bool Liveness::canary_due(Timestamp now) {
    // A clock that was set back must not silence the canary until it has caught up.
    if (settings_.canary.count() == 0 || (now >= canary_last_ && now - canary_last_ < settings_.canary))
        return false;
    canary_last_ = now;
    if (auto file = journal::SectorFile::open(canary_file_))
        if (file->write({{"last_ns", std::to_string(now.time_since_epoch().count())}}) == 0)
            (void)file->sync();
    return true;
}

records::Json heartbeat_record(const records::Origin& origin, const HeartbeatFacts& facts) {
    records::Json out = records::record_head(origin, "heartbeat", Timestamp{});
    out["uptime_s"] = facts.uptime.count();
    out["findings"] = facts.findings;
    out["journal_seq"] = facts.journal_seq;
    out["outputs"] = facts.outputs;
    return out;
}

records::Json canary_record(const records::Origin& origin, const LivenessSettings& settings, Timestamp now) {
    InternalFinding finding;
    finding.rule = "egresswatch/canary";
    finding.title = "Canary: the way from journal to SIEM is open";
    finding.measure = "interval_s";
    finding.value = static_cast<std::uint64_t>(settings.canary.count());
    finding.message = "not an alert; it is sent every " + std::to_string(settings.canary.count()) +
                      " s, and its absence is the alert";
    finding.time = now;
    records::Json out = internal_finding_record(origin, finding);
    out["level"] = settings.canary_level;
    out["canary"] = true;
    return out;
}

}  // namespace egresswatch::daemon
