// agent/daemon/coverage.h - coverage records: every ten seconds, what passed, what was lost, and the proof
// that nothing went around us. SPDX-License-Identifier: Apache-2.0
//
// Owns:    the last snapshot. Periods tile time: one begins where the last ended, over a restart too, when
// the
//          kernel counted on meanwhile (save() and resume()).
// Fails:   never; a driver counter that cannot be read leaves the residual out of that period's record.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "agent/daemon/conservation.h"
#include "agent/records/record.h"
#include "capture/engine.h"

namespace egresswatch::daemon {

// What the coverage record says beside the counters.
struct CoverageContext {
    std::string engine;
    std::string policy_hash;
    bool policy_broken = false;  // the one on disk; policy_hash stayed in force
    std::string geo_hash;
    std::vector<ClassInfo> classes;
    std::uint64_t findings = 0;  // running sums; the record carries differences
    std::uint64_t findings_suppressed = 0;
    std::uint64_t window_evictions = 0;
    std::uint64_t flow_records_skipped = 0;
    std::uint64_t unjournaled = 0;  // since start
};

class CoverageKeeper {
public:
    // `baseline`: counters that belong to what was before `begin`; default-constructed: all zero.
    CoverageKeeper(records::Origin origin, unsigned cpus, Timestamp begin, capture::TotalsSnapshot baseline)
        : origin_(std::move(origin)), conservation_(cpus), from_(begin), before_(std::move(baseline)) {}

    // The record of the period that ends at `now`. Driver counters read before and after `totals`. The next
    // one begins there once recorded() was said; a period whose record was refused is part of the next.
    [[nodiscard]] records::Json period(Timestamp now, capture::TotalsSnapshot totals,
                                       const std::vector<LinkCounters>& driver_before,
                                       const std::vector<LinkCounters>& driver_after,
                                       const CoverageContext& context);

    void recorded();

    // Of the last period.
    [[nodiscard]] const std::vector<ConservationResult>& conservation() const noexcept { return results_; }
    [[nodiscard]] const capture::TotalsSnapshot& last() const noexcept { return before_; }

    // The snapshot of the last period, so that a successor that adopts the maps can go on from it. Written
    // beside and renamed; not synced: after a crash of the host the maps are gone as well.
    [[nodiscard]] bool save(const std::filesystem::path& file) const;
    struct Saved {
        Timestamp to{};
        capture::TotalsSnapshot totals;
    };
    // Nothing where the file is missing or not ours.
    [[nodiscard]] static std::optional<Saved> load(const std::filesystem::path& file);
    // True where no counter of `earlier` is above its value in `later`.
    [[nodiscard]] static bool continues(const capture::TotalsSnapshot& earlier,
                                        const capture::TotalsSnapshot& later);

private:
    records::Origin origin_;
    Conservation conservation_;
    Timestamp from_;
    capture::TotalsSnapshot before_;
    CoverageContext sums_;
    Timestamp next_from_{};
    capture::TotalsSnapshot next_before_;
    CoverageContext next_sums_;
    std::vector<ConservationResult> results_;
};

[[nodiscard]] records::Json conservation_json(const ConservationResult& result);

}  // namespace egresswatch::daemon
