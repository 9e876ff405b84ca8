// agent/sender.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/sender.h"

#include <nlohmann/json.hpp>

#include "classifier/sender.h"

namespace egresswatch {

using Json = nlohmann::ordered_json;

namespace {

Json text_or_null(const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
}

Json number_or_null(const std::optional<std::uint32_t>& number) {
    return number ? Json(*number) : Json(nullptr);
}

}  // namespace

void add_sender_facts(const datapath::flow_sender& sender, const capture::Process* process,
                      const capture::Origin* origin, rules::FlowFacts& facts) noexcept {
    facts.sender = sender.outcome;
    if (origin != nullptr) {
        facts.cgroup = origin->cgroup;
        facts.unit = origin->names.unit;
        if (!origin->names.of_user) facts.container = origin->names.container;
    }
    if (process == nullptr || process->details_lost) return;
    facts.executable = process->executable;
    facts.sha256 = process->sha256;
    facts.user = process->user;
    facts.uid = process->uid;
    facts.cgroup = process->cgroup;
    facts.unit = process->names.unit;
    if (!process->names.of_user) facts.container = process->names.container;
}

namespace {

Json process_field(const capture::Process* process) {
    if (process == nullptr) return nullptr;
    const capture::CgroupNames& names = process->names;
    Json out;
    out["pid"] = process->id.pid;
    if (process->details_lost) {
        out["details_lost"] = true;
        return out;
    }
    out["command"] = process->command;
    out["executable"] = text_or_null(process->executable);
    out["executable_deleted"] = process->executable_deleted;
    out["sha256"] = text_or_null(process->sha256);
    if (process->hash == capture::HashState::failed) out["hash_problem"] = process->hash_problem;
    if (process->hash == capture::HashState::pending) out["hash_problem"] = "the file was still being read";
    out["command_line"] = text_or_null(process->command_line);
    if (process->command_line_cut) out["command_line_cut"] = true;
    out["uid"] = process->uid;
    out["gid"] = process->gid;
    out["user"] = text_or_null(process->user);
    out["login_uid"] = number_or_null(process->login_uid);
    out["session_id"] = number_or_null(process->session_id);
    out["cgroup"] = text_or_null(process->cgroup);
    out["unit"] = text_or_null(names.unit);
    out["inner_unit"] = text_or_null(names.inner_unit);
    out["container"] = text_or_null(names.container);
    out["runtime"] = text_or_null(names.runtime);
    out["pod"] = text_or_null(names.pod);
    out["mount_namespace"] = process->mount_namespace;
    out["parent"] = {{"pid", process->parent_pid}, {"command", process->parent_command}};
    return out;
}

}  // namespace

void add_sender_members(Json& record, const datapath::flow_sender& sender, const capture::Process* process,
                        const capture::Origin* origin) {
    const bool known = sender.outcome == datapath::SENDER_PROCESS;
    const bool routed = sender.outcome == datapath::SENDER_ROUTED;
    Json out;
    out["known"] = sender_outcome_name(sender.outcome);
    out["how"] = known ? Json(sender_how_name(sender.how)) : Json(nullptr);
    out["changes"] = sender.changes;
    out["came_by_ifindex"] = routed ? Json(sender.ingress_ifindex) : Json(nullptr);
    if (origin != nullptr)
        out["came_by"] = {{"interface", text_or_null(origin->interface)},
                          {"cgroup", text_or_null(origin->cgroup)},
                          {"unit", text_or_null(origin->names.unit)},
                          {"container", text_or_null(origin->names.container)},
                          {"runtime", text_or_null(origin->names.runtime)},
                          {"pod", text_or_null(origin->names.pod)}};
    record["sender"] = std::move(out);
    record["process"] = process_field(process);
}

}  // namespace egresswatch
