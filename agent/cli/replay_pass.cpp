// agent/cli/replay_pass.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/replay_pass.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "agent/cli/commands.h"
#include "agent/geo_path.h"
#include "classifier/region/geo_data.h"
#include "rules/region_groups.h"

namespace egresswatch::cli {
namespace {

constexpr std::chrono::milliseconds poll_max{100};  // so long a slow replay may not show its progress

// Without a policy the EEA is home, as of the day the table of regions was last reviewed: not today's date,
// which would let the same command give other answers tomorrow.
RegionSpec default_region() {
    RegionSpec spec;
    if (const auto* group = rules::find_region_group("EEA"))
        spec.home_countries = rules::members(*group, rules::region_groups_reviewed());
    return spec;
}

std::expected<std::shared_ptr<const rules::Policy>, ReplayFailure> load(const std::string& path) {
    if (path.empty()) return nullptr;
    auto loaded = rules::load_policy(path);
    const auto print = [](const std::vector<rules::Diagnostic>& diagnostics) {
        for (const auto& diagnostic : diagnostics)
            std::fputs(rules::format_diagnostic(diagnostic, isatty(STDERR_FILENO) != 0).c_str(), stderr);
    };
    if (!loaded) {
        print(loaded.error());
        return std::unexpected(ReplayFailure{
            exit_input, path + ": " + rules::format_counts(loaded.error()) + "; nothing was replayed"});
    }
    print(loaded->warnings);
    return loaded->policy;
}

}  // namespace

std::expected<GeoData, ReplayFailure> open_replay_geo(const std::string& option) {
    if (option == "none") {  // one segment over each family, without a country
        auto empty = GeoData::from_parts({}, {GeoSegment4{}}, {GeoSegment6{}});
        if (!empty) return std::unexpected(ReplayFailure{exit_input, empty.error().message});
        return std::move(*empty);
    }
    const auto path = find_geo_file(option);
    if (!path)
        return std::unexpected(
            ReplayFailure{exit_input, path.error() + "; --geo none replays without countries"});
    auto data = GeoData::open(*path);
    if (!data) return std::unexpected(ReplayFailure{exit_input, data.error().message});
    return std::move(*data);
}

std::expected<ReplayPolicy, ReplayFailure> open_replay_policy(const std::string& path, const GeoData& geo,
                                                              const ReplayHost& host) {
    ReplayPolicy out;
    auto policy = load(path);
    if (!policy) return std::unexpected(policy.error());
    out.policy = std::move(*policy);
    auto region =
        compile_region_table(geo, out.policy != nullptr ? out.policy->region_spec() : default_region());
    if (!region) return std::unexpected(ReplayFailure{exit_input, region.error().message});
    out.region = std::move(*region);
    out.site = host.site;
    out.resolvers = host.resolvers;
    if (out.policy != nullptr && !host.site.empty() && !rules::has_site(*out.policy, host.site))
        return std::unexpected(ReplayFailure{exit_input, "--site: the policy has no site \"" + host.site +
                                                             "\": every rule and entry of a site leaves "
                                                             "its hosts out; write one of its `sites`"});
    if (host.asn_file.empty()) return out;
    auto asn = AsnData::open(host.asn_file);
    if (!asn) return std::unexpected(ReplayFailure{exit_input, asn.error().message});
    out.asn = std::move(*asn);
    return out;
}

rules::Evaluator ReplayPolicy::make_evaluator() const {
    rules::Evaluator::Host host;
    host.site = site;
    if (asn != nullptr) host.asn_of = [data = asn](const Address& address) { return data->find(address); };
    return rules::Evaluator(
        policy,
        [table = region](const Address& address) { return &table->class_info(table->lookup(address)); },
        std::move(host));
}

void ReplayPolicy::evaluate(rules::Evaluator& evaluator, const FlowUpdate& update,
                            const rules::OwnedFacts& facts, Timestamp now,
                            std::vector<rules::Finding>& findings) const {
    const rules::FactsView known(facts, update.initiator == datapath::INITIATOR_REMOTE);
    evaluator.evaluate(update, region->class_info(update.key.class_id), now, findings, known.facts);
}

std::expected<std::unique_ptr<ReplayPass>, ReplayFailure> ReplayPass::open(
    const std::string& file, FlowTableConfig config, ReplayPolicy policy,
    capture::FileEngineOptions options) {
    auto resolvers = resolvers_of(policy.resolvers, config.local_networks);
    auto engine = capture::FileEngine::open(file, std::move(config), options);
    if (!engine) return std::unexpected(ReplayFailure{exit_input, engine.error().to_string()});
    return std::unique_ptr<ReplayPass>(
        new ReplayPass(std::move(*engine), std::move(policy), std::move(resolvers)));
}

ReplayPass::ReplayPass(std::unique_ptr<capture::FileEngine> engine, ReplayPolicy policy,
                       inspect::Resolvers resolvers)
    : engine_(std::move(engine)), policy_(std::move(policy)), inspection_(std::move(resolvers)) {
    if (policy_.policy != nullptr) evaluator_.emplace(policy_.make_evaluator());
}

void ReplayPass::run(ReplayListener& listener,
                     const std::function<bool(const capture::FileProgress&)>& go_on) {
    listener_ = &listener;
    (void)engine_->install_region(*policy_.region);
    (void)engine_->start(*this);
    while (!engine_->finished()) {
        (void)engine_->poll(poll_max);  // an error is in damage()
        if (!go_on(engine_->progress())) break;
    }
    engine_->stop();
}

// Names take half a kilobyte, which is cleared, and most flows of most passes have none.
const inspect::FlowNames* ReplayPass::names_of(const FlowUpdate& update) {
    if (inspection_.silent()) return nullptr;
    if (!named_) named_.emplace(inspection_, update);
    return named_->names();
}

const rules::FlowFacts& ReplayPass::facts_of(const FlowUpdate& update) {
    static const rules::FlowFacts nothing;
    if (!rules_want_names_ || inspection_.silent()) return nothing;
    (void)names_of(update);
    facts_ = {};
    named_->add_to(facts_);
    return facts_;
}

// In line: for every flow at its end, and for every update where there is no policy.
[[gnu::always_inline]] inline void ReplayPass::tell(const FlowUpdate& update) {
    if (update.reason == UpdateReason::ended) {
        ++flows_;
        listener_->on_flow_ended(update, info_of(update), listener_wants_names_ ? names_of(update) : nullptr);
        if (!inspection_.silent()) inspection_.forget(update.key);
    } else if (update.reason == UpdateReason::active && update.delta == FlowCounters{}) {
        listener_->on_flow_lasting(update, info_of(update),
                                   listener_wants_names_ ? names_of(update) : nullptr);
    }
    if (named_) named_.reset();
}

void ReplayPass::on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept {
    listener_wants_names_ = listener_->wants_flow_names();
    if (!inspection_.silent())
        for (const FlowUpdate& update : updates)
            if (update.reason == UpdateReason::ended) inspection_.prefetch(update.key);
    if (!evaluator_) {
        for (const FlowUpdate& update : updates) tell(update);
        return;
    }
    rules_want_names_ = evaluator_->wants_names();
    evaluator_->evaluate(updates, now, findings_, *this);
    evaluator_->advance(now, findings_);
    tell_findings(nullptr);
}

// Of most updates that rules have looked at there is nothing to tell; the table is asked to tell at once when
// the flow gets so far that a rule may cross.
void ReplayPass::evaluated(const FlowUpdate& update, std::uint64_t missing) {
    if ((told_reasons & reason_bit(update.reason)) == 0 && findings_.empty() && !named_) [[likely]] {
        if (missing != rules::Evaluator::never)
            engine_->notify_at(update.key, update.total.bytes_out + missing);
        return;
    }
    tell_evaluated(update, missing);
}

[[gnu::noinline]] void ReplayPass::tell_evaluated(const FlowUpdate& update, std::uint64_t missing) {
    if (!findings_.empty()) [[unlikely]]
        tell_findings(names_of(update));
    if (missing != rules::Evaluator::never && update.reason != UpdateReason::ended)
        engine_->notify_at(update.key, update.total.bytes_out + missing);
    tell(update);
}

bool ReplayPass::on_payload(const PayloadSample& sample) noexcept {
    return inspection_.on_payload(sample, *this);
}

void ReplayPass::on_question(const PayloadSample& sample, std::string_view name) noexcept {
    if (!evaluator_) return;
    evaluator_->observe({update_of(sample), name, sample.at}, class_info(sample.key.class_id), sample.at,
                        findings_);
    tell_findings(nullptr);
}

void ReplayPass::tell_findings(const inspect::FlowNames* names) {
    for (const rules::Finding& finding : findings_) {
        ++findings_count_;
        listener_->on_finding(finding, names);
    }
    findings_.clear();
}

}  // namespace egresswatch::cli
