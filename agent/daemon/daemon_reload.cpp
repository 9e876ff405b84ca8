// agent/daemon/daemon_reload.cpp - another policy, other geo data, other addresses: built aside, swapped
// whole. SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include "agent/daemon/daemon.h"
#include "agent/daemon/internal_finding.h"
#include "rules/policy_files.h"

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

// An interface that comes up gets its addresses one after the other: one build for all of them.
constexpr std::chrono::milliseconds addresses_settle{200};
constexpr std::string_view change_on_disk = "change on disk";

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

}  // namespace

void Daemon::request_reload(std::string trigger) {
    reload_wanted_ = std::move(trigger);
}

void Daemon::handle_addresses() {
    if (address_watch_->changed()) {
        addresses_changed_ = true;
        addresses_settle_at_ = Clock::now() + addresses_settle;
    }
}

void Daemon::watch_policy() {
    if (!config_.watch_policy) {
        policy_watch_problem_ = "off";
        return;
    }
    auto watch = PolicyWatch::open(config_.policy_dir);
    if (!watch) {
        policy_watch_problem_ = watch.error().to_string();
        spdlog::warn("{}", policy_watch_problem_);
        return;
    }
    policy_watch_ = std::move(*watch);
    if (!policy_watch_->problem().empty()) spdlog::warn("{}", policy_watch_->problem());
}

void Daemon::handle_policy_changes() {
    if (policy_watch_ && policy_watch_->due(Clock::now()) && reload_wanted_.empty())
        request_reload(std::string(change_on_disk));
}

// On a thread of its own: 50 ms of compiling must not hold up an alert.
void Daemon::begin_build() {
    if (build_) return;
    if (!reload_wanted_.empty()) return begin_reload();
    if (!addresses_changed_ || Clock::now() < addresses_settle_at_) return;
    addresses_changed_ = false;
    auto addresses = netlink_->addresses();
    if (!addresses) {
        spdlog::error("{}; the host's addresses stay as they were", addresses.error().to_string());
        return;
    }
    if (*addresses == state_->host_addresses) return;
    build_.emplace();
    build_->trigger = "addresses of this host";
    build_->addresses_only = true;
    build_->result = std::async(std::launch::async,
                                [now_in_force = state_, hosts = std::move(*addresses)]() mutable
                                -> std::expected<std::optional<PolicyState>, PolicyProblems> {
                                    return with_host_addresses(*now_in_force, std::move(hosts));
                                });
}

void Daemon::begin_reload() {
    addresses_changed_ = false;
    auto addresses = netlink_->addresses();
    if (!addresses) {
        spdlog::error("{}; the host's addresses stay as they were", addresses.error().to_string());
        addresses = state_->host_addresses;
    }
    build_.emplace();
    build_->trigger = std::exchange(reload_wanted_, {});
    // Only what nobody has asked for may be left unread: a person who asks for a reload gets one.
    std::optional<std::string> known;
    if (build_->trigger == change_on_disk)
        known = broken_policy_ ? broken_policy_->content_hash : state_->policy->content_hash();
    else
        service_.reloading();
    if (policy_watch_) policy_watch_->restart();
    spdlog::info("reload ({}): reading {}", build_->trigger, config_.policy_dir.string());
    build_->result = std::async(
        std::launch::async,
        [sources = PolicySources{config_.policy_dir, config_.geo_file, config_.asn_file, config_.site},
         now_in_force = state_, hosts = std::move(*addresses),
         known]() mutable -> std::expected<std::optional<PolicyState>, PolicyProblems> {
            if (known && !known->empty() && rules::content_hash(sources.policy_dir) == known)
                return std::optional<PolicyState>();
            return build_policy_state(sources, std::move(hosts), now_in_force->table.get(),
                                      now_in_force.get(), wall_clock());
        });
}

void Daemon::finish_build() {
    if (!build_ || build_->result.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
    auto result = build_->result.get();
    const bool addresses_only = build_->addresses_only;
    const auto begun = Clock::now();
    if (!result) {
        reject(std::move(result.error()));
    } else if (!*result) {
        reloads_.unchanged++;
    } else if ((*result)->table == state_->table) {  // made of the same things: the kernel has it
        install_ms_ = 0;
        take_into_force(std::move(**result));
    } else if (auto installed = engine_->install_region(*(*result)->table); !installed) {
        const std::string line = installed.error().to_string();
        reject({{line}, line + "\n", {}});
    } else {
        install_ms_ = std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
        take_into_force(std::move(**result));
        save_region_table();
    }
    const bool quiet = build_->trigger == change_on_disk;
    build_.reset();
    if (addresses_only) return;
    answer_reloads();
    quiet ? service_.status(status_line()) : service_.ready(status_line());
}

void Daemon::take_into_force(PolicyState next) {
    state_ = std::make_shared<const PolicyState>(std::move(next));
    evaluation_->replace_state(state_);
    if (build_->addresses_only) {
        spdlog::info("this host has {} addresses now", state_->host_addresses.size());
        return;
    }
    reloads_.accepted++;
    last_reload_ = ReloadOutcome{wall_clock(), true, build_->trigger, {}, install_ms_};
    if (std::exchange(broken_policy_, {})) spdlog::info("the policy on disk is mended");
    for (const auto& warning : state_->warnings) spdlog::warn("{}", warning);
    spdlog::info("reload: policy {} revision {} ({:.12}) is in force", state_->policy->name,
                 state_->policy->revision, state_->policy->content_hash());
    write_policy_record("reloaded", state_->warnings);
}

void Daemon::reject(PolicyProblems problems) {
    spdlog::error("{} rejected, policy {} revision {} ({:.12}) stays in force:\n{}", build_->trigger,
                  state_->policy->name, state_->policy->revision, state_->policy->content_hash(),
                  problems.report);
    last_reload_ = ReloadOutcome{wall_clock(), false, build_->trigger, problems.lines, 0};
    write_policy_record("rejected", problems.lines);
    if (build_->addresses_only) return;  // the policy is whole
    reloads_.rejected++;
    // One finding for each broken set, however often it is read.
    const bool news = !broken_policy_ || broken_policy_->content_hash != problems.content_hash;
    if (!broken_policy_) broken_policy_ = BrokenPolicy{wall_clock(), {}, 0, {}};
    broken_policy_->refusals++;
    broken_policy_->content_hash = problems.content_hash;
    broken_policy_->problems = problems.lines;
    if (news) write_broken_policy_finding(problems);
}

void Daemon::write_broken_policy_finding(const PolicyProblems& problems) {
    InternalFinding finding;
    finding.rule = "egresswatch/policy-broken";
    finding.title = "The policy on disk cannot be loaded: another one stays in force";
    finding.level = rules::Level::high;
    finding.measure = "problems";
    finding.value = problems.lines.size();
    finding.threshold = 1;
    finding.message =
        (problems.lines.empty() ? std::string("unreadable") : problems.lines.front()) +
        (problems.lines.size() > 1 ? " (and " + std::to_string(problems.lines.size() - 1) + " more problems)"
                                   : "") +
        "; policy " + state_->policy->name + " revision " + std::to_string(state_->policy->revision) +
        " stays in force; `egresswatch check` shows all of them with their cure";
    finding.details = {{"directory", config_.policy_dir.string()},
                       {"refused_hash", problems.content_hash},
                       {"in_force_hash", state_->policy->content_hash()},
                       {"trigger", build_->trigger}};
    finding.time = wall_clock();
    writer_->write(internal_finding_record(origin_, finding));
    internal_findings_++;
}

void Daemon::answer_reloads() {
    if (reload_clients_.empty() && reload_clients_next_.empty()) return;
    records::Json answer;
    answer["ok"] = !broken_policy_;
    if (broken_policy_) {
        std::string error = "reload rejected, the policy in force stays:";
        for (const auto& problem : broken_policy_->problems) error += "\n" + problem;
        answer["error"] = error;
    }
    answer["reload"] = {{"policy", state_->policy->name},
                        {"revision", state_->policy->revision},
                        {"content_hash", state_->policy->content_hash()},
                        {"geo_hash", state_->geo->content_hash()}};
    const std::string line = answer.dump(-1, ' ', false, records::Json::error_handler_t::replace);
    for (const auto client : std::exchange(reload_clients_, std::exchange(reload_clients_next_, {})))
        control_->answer(client, line);
}

void Daemon::write_policy_record(const std::string& event, const std::vector<std::string>& problems) {
    records::PolicyEvent record;
    record.time = wall_clock();
    record.event = event;
    record.name = state_->policy->name;
    record.revision = state_->policy->revision;
    record.content_hash = state_->policy->content_hash();
    record.geo_hash = state_->geo->content_hash();
    record.directory = config_.policy_dir.string();
    record.rules = state_->policy->rules.size();
    record.allows = state_->policy->allows.size();
    record.problems = problems;
    writer_->write(records::policy_record(origin_, record));
}

}  // namespace egresswatch::daemon
