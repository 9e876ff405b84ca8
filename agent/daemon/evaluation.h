// agent/daemon/evaluation.h - flow updates in, records out: the path from a packet to an alert.
// SPDX-License-Identifier: Apache-2.0
//
// In:      flow updates of the engine.    Out: findings and flow records, through RecordWriter.
// Threads: the daemon's loop only.
// Latency: after each evaluation the engine is asked to tell at once when the flow has sent what is missing
// to
//          the next threshold, so that a crossing does not wait for the drain. Where many flows share one
//          window the flows' unreported bytes add up: each is asked at half of what is missing, until little
//          is; what several flows cross together is seen at the next of their events or drains.
// Limits:  flow records per second (FlowRecordSettings), long_lived_flows_max flows remembered for repeated
//          records; what is beyond is counted and named in the coverage record.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "agent/daemon/config.h"
#include "agent/daemon/policy_state.h"
#include "agent/daemon/record_writer.h"
#include "agent/naming.h"
#include "agent/observation.h"
#include "capture/engine.h"
#include "capture/senders.h"
#include "classifier/flow_update.h"
#include "rules/evaluator.h"

namespace egresswatch::daemon {

struct EvaluationCounters {
    std::uint64_t updates = 0;
    std::uint64_t findings = 0;
    std::uint64_t flow_records = 0;
    std::uint64_t flow_records_skipped = 0;  // per_second_max reached
    std::uint64_t long_lived_untracked = 0;  // long_lived_flows_max reached: one record at the end only
};

class Evaluation final : public FlowSink,
                         public PayloadSink,
                         private inspect::QuestionSink,
                         private rules::BatchHandler {
public:
    static constexpr std::size_t long_lived_flows_max = 65536;
    // Below this distance to a threshold the engine is asked for the exact byte.
    static constexpr std::uint64_t exact_notify_bytes = 256 * 1024;

    Evaluation(std::shared_ptr<const PolicyState> state, const std::string& site, FlowRecordSettings settings,
               records::NamePrivacy privacy, inspect::Resolvers resolvers, RecordWriter& writer);
    Evaluation(const Evaluation&) = delete;
    Evaluation& operator=(const Evaluation&) = delete;

    void set_engine(capture::Engine* engine) noexcept {
        engine_ = engine;
        senders_ = dynamic_cast<capture::SenderSource*>(engine);
    }
    void replace_state(std::shared_ptr<const PolicyState> state);
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override;
    bool on_payload(const PayloadSample& sample) noexcept override;

    // From now on, for at most that long, what leaves and is not allowed is added up; what was, is forgotten.
    void observe(std::chrono::seconds at_most);
    // What has been added up; nothing where nobody has asked for it, or it is too long ago. Ends it.
    [[nodiscard]] std::optional<Observation> take_observation();

    // What is known of a live flow by name; the class in its key is that of the table in force.
    void add_names(const FlowUpdate& update, rules::OwnedFacts& facts) const;
    [[nodiscard]] const EvaluationCounters& counters() const noexcept { return counters_; }
    [[nodiscard]] inspect::InspectionCounters inspection() const noexcept { return inspection_.counters(); }
    [[nodiscard]] const inspect::Resolvers& resolvers() const noexcept { return inspection_.resolvers(); }
    void set_resolvers(inspect::Resolvers resolvers) { inspection_.set_resolvers(std::move(resolvers)); }
    [[nodiscard]] const rules::Evaluator& evaluator() const noexcept { return evaluator_; }
    [[nodiscard]] rules::Evaluator& evaluator() noexcept { return evaluator_; }
    [[nodiscard]] Timestamp packet_time() const noexcept { return packet_time_; }

private:
    struct KeyHash {
        std::size_t operator()(const datapath::flow_key& key) const noexcept;
    };
    struct KeyEqual {
        bool operator()(const datapath::flow_key& a, const datapath::flow_key& b) const noexcept;
    };

    // What is known of one flow while it is evaluated. Names are looked for when something asks: the policy,
    // a finding, a record. Who sends is known from the start, where the engine knows such things.
    class Known {
    public:
        Known(const Evaluation& of, const FlowUpdate& update) : of_(of), update_(update) {}
        rules::FlowFacts facts;
        [[nodiscard]] const inspect::FlowNames* names();
        void add_names() {
            if (names() != nullptr) named_->add_to(facts);
        }
        void add_sender(const datapath::flow_sender& sender);  // where the engine knows senders
        void add_to(records::Json& record);

    private:
        const Evaluation& of_;
        const FlowUpdate& update_;
        std::optional<NamedFlow> named_;
        datapath::flow_sender sender_{};
        const capture::Process* process_ = nullptr;
        const capture::Origin* origin_ = nullptr;
    };
    void on_question(const PayloadSample& sample, std::string_view name) noexcept override;
    const ClassInfo& info_of(const FlowUpdate& update) override {
        return state_->table->class_info(update.key.class_id);
    }
    const rules::FlowFacts& facts_of(const FlowUpdate& update) override { return known(update).facts; }
    void evaluated(const FlowUpdate& update, std::uint64_t missing) override;
    Known& known(const FlowUpdate& update);  // of the update whose turn it is
    void write_findings(Known* known);
    void ask_for_threshold(const FlowUpdate& update, std::uint64_t missing);
    void record_flow(const FlowUpdate& update, const ClassInfo& info, Timestamp now, Known& known);
    void add_to_observation(const FlowUpdate& update, const ClassInfo& info, Timestamp now, Known& known);
    bool flow_record_due(const FlowUpdate& update, Timestamp now);
    bool within_rate(Timestamp now);
    rules::Evaluator::Host host(const std::string& site);

    std::shared_ptr<const PolicyState> state_;
    FlowRecordSettings settings_;
    records::NamePrivacy privacy_;
    inspect::Inspection inspection_;
    RecordWriter& writer_;
    capture::Engine* engine_ = nullptr;
    capture::SenderSource* senders_ = nullptr;  // the engine, where it knows who sends
    rules::Evaluator evaluator_;
    std::vector<rules::Finding> findings_;
    std::optional<Known> known_;  // of the update whose turn it is, when somebody has asked
    EvaluationCounters counters_;
    Timestamp packet_time_{};
    std::unordered_map<datapath::flow_key, Timestamp, KeyHash, KeyEqual> recorded_;  // last record of a flow
    std::int64_t rate_second_ = 0;
    std::uint32_t rate_used_ = 0;
    std::optional<Observation> observation_;
    std::chrono::steady_clock::time_point observe_until_{};
};

}  // namespace egresswatch::daemon
