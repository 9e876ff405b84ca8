// agent/cli/replay_pass.h - one pass of a capture file through classifier and policy.
//
// In:       a capture file, a policy or none, geo data.   Out: ended flows and findings to a ReplayListener,
// in an
//           order that depends on the packets alone; totals, progress and damage when asked.
// Clock:    packet time.
// Threads:  one.
// Fails:    ReplayFailure with the exit code and the sentence to print; the diagnostics of a policy have been
// printed. Not here: options and what is printed (replay.cpp, replay_output.h). SPDX-License-Identifier:
// Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/naming.h"
#include "agent/resolvers.h"
#include "capture/userspace/file_engine.h"
#include "classifier/flow_update.h"
#include "classifier/region/asn_data.h"
#include "classifier/region/region_table.h"
#include "rules/evaluator.h"
#include "rules/owned_facts.h"
#include "rules/policy.h"

namespace egresswatch {
class GeoData;
}

namespace egresswatch::cli {

struct ReplayFailure {
    int exit_code = 0;
    std::string text;
};

// What packets are held against. The same geo data serves any number of policies.
struct ReplayPolicy {
    std::shared_ptr<const rules::Policy> policy;  // null: no rules, and the EEA is home
    std::shared_ptr<const RegionTable> region;
    std::string site;
    std::shared_ptr<const AsnData> asn;  // null: AS numbers are unknown
    ResolverSettings resolvers{.local = true};

    [[nodiscard]] rules::Evaluator make_evaluator() const;  // with a policy
    // Of an update out of a file; its class id is that of this region.
    void evaluate(rules::Evaluator& evaluator, const FlowUpdate& update, const rules::OwnedFacts& facts,
                  Timestamp now, std::vector<rules::Finding>& findings) const;
};

// Of the host whose traffic it is. Empty: unknown.
struct ReplayHost {
    std::string site;
    std::string asn_file;
    ResolverSettings resolvers{.local = true};
};

// "none": every public address is of unknown country. Empty: where find_geo_file() looks.
[[nodiscard]] std::expected<GeoData, ReplayFailure> open_replay_geo(const std::string& option);
// `path` may be empty: no policy. Warnings and errors of the policy go to standard error.
[[nodiscard]] std::expected<ReplayPolicy, ReplayFailure> open_replay_policy(const std::string& path,
                                                                            const GeoData& geo,
                                                                            const ReplayHost& host = {});

class ReplayListener {
public:
    virtual ~ReplayListener() = default;
    // `names`: null where nothing is known.
    virtual void on_flow_ended(const FlowUpdate& flow, const ClassInfo& info,
                               const inspect::FlowNames* names) = 0;
    // A flow that goes on is an active timeout older.
    virtual void on_flow_lasting(const FlowUpdate& /*flow*/, const ClassInfo& /*info*/,
                                 const inspect::FlowNames* /*names*/) {}
    virtual void on_finding(const rules::Finding& finding, const inspect::FlowNames* names) = 0;
    // Whether it looks at the names of flows; those of a finding it is told always.
    [[nodiscard]] virtual bool wants_flow_names() const noexcept { return true; }
};

class ReplayPass final : public FlowSink,
                         public PayloadSink,
                         private inspect::QuestionSink,
                         private rules::BatchHandler {
public:
    [[nodiscard]] static std::expected<std::unique_ptr<ReplayPass>, ReplayFailure> open(
        const std::string& file, FlowTableConfig config, ReplayPolicy policy,
        capture::FileEngineOptions options = {});

    // To the end of the file, or until `go_on`, asked after every batch and while nothing is due, says no.
    void run(ReplayListener& listener, const std::function<bool(const capture::FileProgress&)>& go_on);

    [[nodiscard]] capture::TotalsSnapshot totals() const { return engine_->totals(); }
    [[nodiscard]] const capture::FileProgress& progress() const { return engine_->progress(); }
    [[nodiscard]] const FlowTable& table() const { return engine_->table(); }
    [[nodiscard]] const std::optional<capture::FileError>& damage() const { return engine_->damage(); }
    [[nodiscard]] const ClassInfo& class_info(std::uint16_t id) const {
        return policy_.region->class_info(id);
    }
    [[nodiscard]] const rules::Evaluator* evaluator() const noexcept {  // null without a policy
        return evaluator_ ? &*evaluator_ : nullptr;
    }
    [[nodiscard]] inspect::InspectionCounters inspection() const noexcept { return inspection_.counters(); }
    [[nodiscard]] std::uint64_t flows() const noexcept { return flows_; }
    [[nodiscard]] std::uint64_t findings() const noexcept { return findings_count_; }

private:
    ReplayPass(std::unique_ptr<capture::FileEngine> engine, ReplayPolicy policy,
               inspect::Resolvers resolvers);
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override;
    bool on_payload(const PayloadSample& sample) noexcept override;
    void on_question(const PayloadSample& sample, std::string_view name) noexcept override;
    const ClassInfo& info_of(const FlowUpdate& update) override { return class_info(update.key.class_id); }
    const rules::FlowFacts& facts_of(const FlowUpdate& update) override;
    // Of which tell() has something for the listener.
    static constexpr std::uint32_t told_reasons =
        reason_bit(UpdateReason::ended) | reason_bit(UpdateReason::active);
    [[nodiscard]] std::uint32_t reasons_told() const noexcept override { return told_reasons; }
    void evaluated(const FlowUpdate& update, std::uint64_t missing) override;
    void tell_evaluated(const FlowUpdate& update, std::uint64_t missing);
    void tell(const FlowUpdate& update);
    // Of the update that is told now; null where nothing is known.
    const inspect::FlowNames* names_of(const FlowUpdate& update);
    void tell_findings(const inspect::FlowNames* names);

    std::unique_ptr<capture::FileEngine> engine_;
    ReplayPolicy policy_;
    std::optional<rules::Evaluator> evaluator_;
    inspect::Inspection inspection_;
    ReplayListener* listener_ = nullptr;
    std::vector<rules::Finding> findings_;  // reused
    std::optional<NamedFlow> named_;        // the flow of the update that is told now, if anybody has asked
    rules::FlowFacts facts_;                // of the same
    bool rules_want_names_ = false;
    bool listener_wants_names_ = false;
    std::uint64_t flows_ = 0;
    std::uint64_t findings_count_ = 0;
};

}  // namespace egresswatch::cli
