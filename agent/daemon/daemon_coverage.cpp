// agent/daemon/daemon_coverage.cpp - coverage records, the gap of a restart, and findings about ourselves.
// SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include <thread>

#include "agent/daemon/daemon.h"
#include "agent/daemon/internal_finding.h"
#include "agent/evidence/line_source.h"
#include "agent/journal/segment.h"

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

// Readings of the counters while packets are inside the hooks: one that balances is found soon or not at all.
constexpr int balanced_readings_max = 5;
// A full flow table or a bypass goes on for long: one finding in this time is enough, the totals are exact.
constexpr std::chrono::seconds internal_finding_interval{60};
// Where the last coverage record is looked for: more have none only where no daemon ran for long.
constexpr std::size_t segments_searched_max = 3;

// Where the journal's coverage ends: coverage.json is not synced, and may be gone, older or newer after the
// host died.
std::optional<Timestamp> last_coverage_end(const std::filesystem::path& journal) {
    auto segments = journal::list_segments(journal);
    for (std::size_t i = 0; i < segments_searched_max && i < segments.size(); i++) {
        std::optional<Timestamp> end;
        evidence::LineSource lines(segments[segments.size() - 1 - i].path);
        while (const auto line = lines.next())
            if (journal::text_member(*line, "kind") == "coverage")
                end = records::parse_time(journal::text_member(*line, "to"));
        if (end) return end;
    }
    return std::nullopt;
}

}  // namespace

capture::TotalsSnapshot Daemon::read_totals() const {
    capture::TotalsSnapshot totals = engine_->totals();
    for (int i = 1; i < balanced_readings_max && !Conservation::balanced(totals); i++)
        totals = engine_->totals();
    return totals;
}

std::vector<LinkCounters> Daemon::read_links() {
    auto links = netlink_->links();
    if (links) return std::move(*links);
    spdlog::warn("{}; this period has no residual", links.error().to_string());
    return {};
}

CoverageContext Daemon::coverage_context() const {
    CoverageContext context;
    context.engine = engine_->name();
    context.policy_hash = state_->policy->content_hash();
    context.policy_broken = broken_policy_.has_value();
    context.geo_hash = state_->geo->content_hash();
    for (std::size_t id = 0; id < state_->table->class_count(); id++)
        context.classes.push_back(state_->table->class_info(static_cast<std::uint16_t>(id)));
    const auto evaluated = evaluation_->evaluator().counters();
    context.findings = evaluation_->counters().findings + internal_findings_;
    context.findings_suppressed = evaluated.suppressed;
    context.window_evictions = evaluated.window_evictions;
    context.flow_records_skipped = evaluation_->counters().flow_records_skipped;
    context.unjournaled = journal_->status().unjournaled;
    return context;
}

// The hooks are up since `now`. Where coverage goes on after a restart, and for how long nobody evaluated.
void Daemon::begin_coverage(Timestamp now) {
    const unsigned cpus = std::max(1u, std::thread::hardware_concurrency());
    const auto saved = CoverageKeeper::load(state_file("coverage.json"));
    const auto totals = engine_->totals();
    const bool goes_on =
        saved && predecessor_.adopted && CoverageKeeper::continues(saved->totals, totals) && saved->to <= now;
    if (goes_on) {
        coverage_.emplace(origin_, cpus, saved->to, saved->totals);
    } else {
        // Counters that were adopted and cannot be placed in time belong to nobody's period.
        coverage_.emplace(origin_, cpus, now, predecessor_.adopted ? totals : capture::TotalsSnapshot{});
    }
    losses_reported_ = totals.losses;
    const auto recorded = last_coverage_end(config_.state_dir / "journal");
    if (!saved && !recorded) return;
    records::Gap gap;
    gap.reason = "evaluation";
    gap.from = saved ? saved->to : *recorded;
    if (recorded && !goes_on) gap.from = std::min(gap.from, *recorded);
    gap.to = now;
    if (goes_on)
        gap.detail =
            "the daemon did not run; the kernel counted on, and the next coverage record holds the totals of "
            "this time; " +
            std::to_string(predecessor_.flows) + " flows were taken over";
    else if (predecessor_.adopted)
        gap.detail =
            "the daemon did not run; the kernel counted on, but the totals cannot be divided from earlier "
            "ones";
    else
        gap.detail =
            "the daemon did not run and no hooks were in place: traffic of this time was not counted";
    spdlog::warn("evaluation gap from {} to {}: {}", records::format_time(gap.from),
                 records::format_time(gap.to), gap.detail);
    writer_->write(records::gap_record(origin_, gap));
}

records::Json Daemon::outputs_field() const {
    records::Json out = records::Json::array();
    for (const auto& output : outputs_) {
        const auto status = output->status();
        out.push_back({{"name", status.name},
                       {"state", status.state},
                       {"lag_records", status.lag_records},
                       {"lag_seconds", status.lag_seconds},
                       {"undelivered_from", status.cursor_seq + 1}});
    }
    return out;
}

void Daemon::write_signs_of_life(Timestamp now) {
    if (liveness_->heartbeat_due(Clock::now())) {
        HeartbeatFacts facts;
        facts.uptime = std::chrono::duration_cast<std::chrono::seconds>(now - started_);
        facts.findings = evaluation_->counters().findings + internal_findings_;
        facts.journal_seq = journal_->last_seq();
        facts.outputs = outputs_field();
        writer_->write(heartbeat_record(origin_, facts));
    }
    if (liveness_->canary_due(now)) writer_->write(canary_record(origin_, config_.liveness, now));
}

void Daemon::write_coverage(Timestamp now) {
    const auto driver_before = read_links();
    auto totals = read_totals();
    const auto driver_after = read_links();
    auto record = coverage_->period(now, std::move(totals), driver_before, driver_after, coverage_context());
    record["outputs"] = outputs_field();
    if (writer_->write(record)) coverage_->recorded();
    if (!coverage_->save(state_file("coverage.json")))
        spdlog::warn("cannot write {}; after a restart the totals of the gap cannot be told",
                     state_file("coverage.json").string());
    write_conservation_findings(now);
}

void Daemon::write_loss_findings(const capture::TotalsSnapshot& totals, Timestamp now) {
    const auto lost = [&](datapath::loss_reason reason) {
        return totals.losses[reason] - losses_reported_[reason];
    };
    const std::uint64_t packets = lost(datapath::LOSS_FLOWS_FULL);
    if (packets == 0 || Clock::now() < loss_finding_after_) return;
    InternalFinding finding;
    finding.rule = "egresswatch/flow-table-full";
    finding.title = "Flows found no place in the flow table and were not evaluated";
    finding.level = rules::Level::high;
    finding.measure = "packets";
    finding.value = packets;
    finding.details = {{"bytes", lost(datapath::LOSS_FLOWS_FULL_BYTES)},
                       {"flows_live", totals.flows_live},
                       {"flow_slots", totals.flow_slots}};
    finding.message =
        std::to_string(packets) + " packets (" + std::to_string(lost(datapath::LOSS_FLOWS_FULL_BYTES)) +
        " bytes) belong to flows that found no slot; totals are exact, rules did not see them; raise " +
        std::string(config_.engine == EngineKind::ebpf ? "flow_slots_per_cpu" : "flow_memory");
    finding.time = now;
    writer_->write(internal_finding_record(origin_, finding));
    spdlog::warn("flow table full: {}", finding.message);
    internal_findings_++;
    losses_reported_ = totals.losses;
    loss_finding_after_ = Clock::now() + internal_finding_interval;
}

void Daemon::write_evidence_findings(Timestamp now) {
    for (auto& event : notary_->take_events()) {
        InternalFinding finding;
        finding.rule = std::move(event.rule);
        finding.title = std::move(event.title);
        finding.level = rules::Level::critical;
        finding.measure = "records";
        finding.message = std::move(event.message);
        finding.details = std::move(event.details);
        finding.time = now;
        writer_->write(internal_finding_record(origin_, finding));
        spdlog::critical("evidence: {}", finding.message);
        internal_findings_++;
    }
}

// Worse than a full table: these packets are in no total.
void Daemon::write_drop_findings(const capture::TotalsSnapshot& totals, Timestamp now) {
    capture::CaptureDrops dropped;
    records::Json interfaces = records::Json::object();
    for (const auto& interface : totals.interfaces) {
        if (interface.dropped.sum() == 0) continue;
        dropped.buffer += interface.dropped.buffer;
        dropped.device += interface.dropped.device;
        dropped.memory += interface.dropped.memory;
        interfaces[interface.name] = interface.dropped.sum();
    }
    if (dropped.sum() <= drops_reported_ || Clock::now() < drop_finding_after_) return;
    InternalFinding finding;
    finding.rule = "egresswatch/capture-drops";
    finding.title = "Packets were lost before they could be counted";
    finding.level = rules::Level::high;
    finding.measure = "packets";
    finding.value = dropped.sum() - drops_reported_;
    finding.details = {{"buffer", dropped.buffer},
                       {"device", dropped.device},
                       {"memory", dropped.memory},
                       {"interfaces", std::move(interfaces)}};
    finding.message = std::to_string(finding.value) +
                      " packets reached an interface and were lost before they were counted: they are in no "
                      "total, and no rule saw them; enlarge the capture buffer or give the daemon more CPU";
    finding.time = now;
    writer_->write(internal_finding_record(origin_, finding));
    spdlog::warn("capture drops: {}", finding.message);
    internal_findings_++;
    drops_reported_ = dropped.sum();
    drop_finding_after_ = Clock::now() + internal_finding_interval;
}

void Daemon::write_conservation_findings(Timestamp now) {
    if (Clock::now() < conservation_finding_after_) return;
    for (const ConservationResult& result : coverage_->conservation()) {
        if (!result.bypass_suspected && !result.balance_broken) continue;
        InternalFinding finding;
        finding.level = rules::Level::high;
        finding.time = now;
        finding.details = {{"interface", result.interface}, {"conservation", conservation_json(result)}};
        if (result.bypass_suspected) {
            finding.rule = "egresswatch/conservation-residual";
            finding.title = "Traffic left an interface without passing the hook";
            finding.measure = "bytes";
            finding.value = result.excess_bytes;
            finding.threshold = result.tolerance_bytes;
            finding.message = result.interface + ": the driver sent " + std::to_string(result.excess_bytes) +
                              " bytes more than the hook saw (tolerance " +
                              std::to_string(result.tolerance_bytes) +
                              "): a packet socket with PACKET_QDISC_BYPASS, AF_XDP, or a program before ours";
        } else {
            finding.rule = "egresswatch/conservation-balance";
            finding.title = "The counters of a hook do not add up";
            finding.measure = "packets";
            finding.value = static_cast<std::uint64_t>(std::abs(result.unbalanced_packets));
            finding.message = result.interface + ": packets seen and the sum of their outcomes differ by " +
                              std::to_string(result.unbalanced_packets) +
                              ": a fault of egresswatch, please report it";
        }
        writer_->write(internal_finding_record(origin_, finding));
        spdlog::warn("conservation: {}", finding.message);
        internal_findings_++;
        conservation_finding_after_ = Clock::now() + internal_finding_interval;
    }
}

}  // namespace egresswatch::daemon
