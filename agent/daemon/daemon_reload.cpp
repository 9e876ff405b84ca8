// agent/daemon/daemon_reload.cpp - another policy, other geo data, other addresses: built aside, swapped
// whole. SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include "agent/daemon/daemon.h"

namespace egresswatch::daemon {

namespace {

using Clock = std::chrono::steady_clock;

// An interface that comes up gets its addresses one after the other: one build for all of them.
constexpr std::chrono::milliseconds addresses_settle{200};

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

// On a thread of its own: 50 ms of compiling must not hold up an alert.
void Daemon::begin_build() {
    if (build_) return;
    const bool addresses_due = addresses_changed_ && Clock::now() >= addresses_settle_at_;
    if (reload_wanted_.empty() && !addresses_due) return;
    addresses_changed_ = false;
    auto addresses = netlink_->addresses();
    if (!addresses) {
        spdlog::error("{}; the host's addresses stay as they were", addresses.error().to_string());
        addresses = state_->host_addresses;
    }
    Build build;
    if (!reload_wanted_.empty()) {
        build.trigger = std::exchange(reload_wanted_, {});
        service_.reloading();
        spdlog::info("reload ({}): reading {}", build.trigger, config_.policy_dir.string());
        build.result =
            std::async(std::launch::async, [sources = PolicySources{config_.policy_dir, config_.geo_file},
                                            now_in_force = state_, hosts = std::move(*addresses)]() mutable {
                return build_policy_state(sources, std::move(hosts), now_in_force->table.get(), wall_clock());
            });
    } else {
        if (*addresses == state_->host_addresses) return;
        build.trigger = "addresses of this host";
        build.addresses_only = true;
        build.result =
            std::async(std::launch::async, [now_in_force = state_, hosts = std::move(*addresses)]() mutable {
                return with_host_addresses(*now_in_force, std::move(hosts));
            });
    }
    build_ = std::move(build);
}

void Daemon::finish_build() {
    if (!build_ || build_->result.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
    auto result = build_->result.get();
    if (!result) {
        reject(std::move(result.error()));
    } else if (auto installed = engine_->install_region(*result->table); !installed) {
        const std::string line = installed.error().to_string();
        reject({{line}, line + "\n"});
    } else {
        take_into_force(std::move(*result));
    }
    const bool addresses_only = build_->addresses_only;
    build_.reset();
    if (addresses_only) return;
    answer_reloads();
    service_.ready(status_line());
}

void Daemon::take_into_force(PolicyState next) {
    state_ = std::make_shared<const PolicyState>(std::move(next));
    evaluation_->replace_state(state_);
    save_region_table();
    if (build_->addresses_only) {
        spdlog::info("this host has {} addresses now", state_->host_addresses.size());
        return;
    }
    last_reload_ = ReloadOutcome{wall_clock(), true, build_->trigger, {}};
    for (const auto& warning : state_->warnings) spdlog::warn("{}", warning);
    spdlog::info("reload: policy {} revision {} ({:.12}) is in force", state_->policy->name,
                 state_->policy->revision, state_->policy->content_hash());
    write_policy_record("reloaded", state_->warnings);
}

void Daemon::reject(PolicyProblems problems) {
    spdlog::error("{} rejected, policy {} revision {} ({:.12}) stays in force:\n{}", build_->trigger,
                  state_->policy->name, state_->policy->revision, state_->policy->content_hash(),
                  problems.report);
    last_reload_ = ReloadOutcome{wall_clock(), false, build_->trigger, problems.lines};
    write_policy_record("rejected", problems.lines);
}

void Daemon::answer_reloads() {
    records::Json answer;
    answer["ok"] = last_reload_->ok;
    if (!last_reload_->ok) {
        std::string error = "reload rejected, the policy in force stays:";
        for (const auto& problem : last_reload_->problems) error += "\n" + problem;
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
