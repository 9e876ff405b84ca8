// agent/daemon/evaluation.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/evaluation.h"

#include <net/if.h>

#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "agent/sender.h"
#include "capture/senders.h"

namespace egresswatch::daemon {

std::size_t Evaluation::KeyHash::operator()(const datapath::flow_key& key) const noexcept {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof key});
}

bool Evaluation::KeyEqual::operator()(const datapath::flow_key& a,
                                      const datapath::flow_key& b) const noexcept {
    return std::memcmp(&a, &b, sizeof a) == 0;  // no padding: layout.h asserts its 40 bytes
}

// Whether there are AS data is a matter of the configuration, which does not change while we run; which ones,
// of the state in force.
rules::Evaluator::Host Evaluation::host(const std::string& site) {
    rules::Evaluator::Host out;
    out.site = site;
    if (state_->asn) out.asn_of = [this](const Address& address) { return state_->asn->find(address); };
    out.interface_name = [](std::uint32_t ifindex) {
        char name[IF_NAMESIZE];
        return std::string(::if_indextoname(ifindex, name) == nullptr ? "" : name);
    };
    return out;
}

Evaluation::Evaluation(std::shared_ptr<const PolicyState> state, const std::string& site,
                       FlowRecordSettings settings, records::NamePrivacy privacy,
                       inspect::Resolvers resolvers, RecordWriter& writer)
    : state_(std::move(state)),
      settings_(settings),
      privacy_(std::move(privacy)),
      inspection_(std::move(resolvers)),
      writer_(writer),
      evaluator_(
          state_->policy,
          [this](const Address& address) {
              const RegionTable& table = *state_->table;
              return &table.class_info(table.lookup(address));
          },
          host(site)) {}

void Evaluation::replace_state(std::shared_ptr<const PolicyState> state) {
    if (state->policy != state_->policy) evaluator_.replace_policy(state->policy);
    state_ = std::move(state);
}

void Evaluation::on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept {
    packet_time_ = std::max(packet_time_, now);
    // Whoever asked for it has not come back: its memory goes.
    if (observation_ && std::chrono::steady_clock::now() > observe_until_) observation_.reset();
    findings_.clear();
    evaluator_.evaluate(updates, packet_time_, findings_, *this);
    evaluator_.advance(packet_time_, findings_);
    write_findings(nullptr);
}

const inspect::FlowNames* Evaluation::Known::names() {
    if (!named_ && !of_.inspection_.silent()) named_.emplace(of_.inspection_, update_);
    return named_ ? named_->names() : nullptr;
}

void Evaluation::Known::add_sender(const datapath::flow_sender& sender) {
    sender_ = sender;
    process_ = of_.senders_->process_of(sender_);
    origin_ = of_.senders_->origin_of(sender_);
    add_sender_facts(sender_, process_, origin_, facts);
}

void Evaluation::Known::add_to(records::Json& record) {
    records::name_record(record, names(), of_.privacy_);
    if (of_.senders_ != nullptr) add_sender_members(record, sender_, process_, origin_);
}

void Evaluation::add_names(const FlowUpdate& update, rules::OwnedFacts& facts) const {
    const inspect::FlowNames names = inspection_.names_of(update);
    facts.take_names(owned_facts_of(&names));
}

bool Evaluation::on_payload(const PayloadSample& sample) noexcept {
    return inspection_.on_payload(sample, *this);
}

void Evaluation::on_question(const PayloadSample& sample, std::string_view name) noexcept {
    packet_time_ = std::max(packet_time_, sample.at);
    const FlowUpdate update = update_of(sample);
    Known known(*this, update);
    if (senders_ != nullptr && sample.tracked) known.add_sender(senders_->sender_of(update.key));
    findings_.clear();
    evaluator_.observe({update, name, sample.at}, state_->table->class_info(sample.key.class_id),
                       packet_time_, findings_, known.facts);
    write_findings(&known);
}

void Evaluation::write_findings(Known* known) {
    for (const auto& finding : findings_) {
        counters_.findings++;
        records::Json record = records::finding_record(writer_.origin(), finding);
        if (known != nullptr && finding.has_flow)
            known->add_to(record);
        else
            records::name_record(record, nullptr, privacy_);
        writer_.write(std::move(record));
    }
}

Evaluation::Known& Evaluation::known(const FlowUpdate& update) {
    if (known_) return *known_;
    known_.emplace(*this, update);
    if (senders_ != nullptr) known_->add_sender(senders_->sender_of(update));
    if (evaluator_.wants_names()) known_->add_names();
    return *known_;
}

void Evaluation::evaluated(const FlowUpdate& update, std::uint64_t missing) {
    counters_.updates++;
    Known& about = known(update);
    // Before anything else is done with this update: the alert is what somebody waits for.
    if (!findings_.empty()) {
        write_findings(&about);
        findings_.clear();
    }
    const ClassInfo& info = info_of(update);
    if (info.kind == datapath::KIND_OUTSIDE || info.kind == datapath::KIND_UNKNOWN) {
        if (update.reason != UpdateReason::ended) ask_for_threshold(update, missing);
        if (observation_) add_to_observation(update, info, packet_time_, about);
        record_flow(update, info, packet_time_, about);
    }
    known_.reset();
    if (update.reason == UpdateReason::ended)
        inspection_.forget(update.key);
    else
        inspection_.touch(update.key, packet_time_);
}

void Evaluation::observe(std::chrono::seconds at_most) {
    observation_.emplace();
    observe_until_ = std::chrono::steady_clock::now() + at_most;
}

std::optional<Observation> Evaluation::take_observation() {
    if (std::chrono::steady_clock::now() > observe_until_) observation_.reset();
    return std::exchange(observation_, {});
}

void Evaluation::add_to_observation(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                    Known& known) {
    if (update.delta.bytes_out == 0 || evaluator_.allowed_by(update, info, now, known.facts) >= 0) return;
    Observation::Flow flow = Observation::flow_of(update, info, update.delta);
    flow.process = known.facts.executable;
    observation_->add(flow);
}

void Evaluation::ask_for_threshold(const FlowUpdate& update, std::uint64_t missing) {
    if (engine_ == nullptr) return;
    if (missing == 0 || missing == rules::Evaluator::never) return;
    const std::uint64_t step = missing <= exact_notify_bytes ? missing : missing / 2;
    if (step > std::numeric_limits<std::uint64_t>::max() - update.total.bytes_out) return;
    engine_->notify_at(update.key, update.total.bytes_out + step);
}

void Evaluation::record_flow(const FlowUpdate& update, const ClassInfo& info, Timestamp now, Known& known) {
    if (!flow_record_due(update, now)) return;
    if (!within_rate(now)) {
        counters_.flow_records_skipped++;
        return;
    }
    counters_.flow_records++;
    const rules::Decision decision = evaluator_.decide(update, info, now, known.facts);
    records::Json record = records::flow_record(writer_.origin(), update, info, &decision);
    known.add_to(record);
    writer_.write(std::move(record));
}

// An ended flow always; a living one each time that it is `long_lived` older than its beginning or its last
// record.
bool Evaluation::flow_record_due(const FlowUpdate& update, Timestamp now) {
    if (update.reason == UpdateReason::ended) {
        recorded_.erase(update.key);
        return true;
    }
    if (now - update.first_seen < settings_.long_lived) return false;
    const auto known = recorded_.find(update.key);
    if (known != recorded_.end()) {
        if (now - known->second < settings_.long_lived) return false;
        known->second = now;
        return true;
    }
    if (recorded_.size() >= long_lived_flows_max) {
        counters_.long_lived_untracked++;
        return false;
    }
    recorded_.emplace(update.key, now);
    return true;
}

bool Evaluation::within_rate(Timestamp now) {
    const std::int64_t second = std::chrono::floor<std::chrono::seconds>(now).time_since_epoch().count();
    if (second != rate_second_) {
        rate_second_ = second;
        rate_used_ = 0;
    }
    if (rate_used_ >= settings_.per_second_max) return false;
    rate_used_++;
    return true;
}

}  // namespace egresswatch::daemon
