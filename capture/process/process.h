// capture/process/process.h - what is known of a process that sends.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

#include "capture/process/cgroup_path.h"

namespace egresswatch::capture {

// A program in a process: another one after an execve(), another one when the pid is used again.
struct ProcessId {
    std::uint64_t start_ns = 0;  // CLOCK_BOOTTIME
    std::uint32_t pid = 0;       // as the first PID namespace has it
    std::uint32_t exec_id = 0;
    auto operator<=>(const ProcessId&) const = default;
};

enum class HashState : std::uint8_t {
    none,     // hashes are switched off, or there is no executable
    pending,  // being read
    known,
    failed  // see hash_problem
};

struct Process {
    ProcessId id;
    std::string command;     // at most 15 letters, what the process calls itself
    std::string executable;  // path in its mount namespace; begins with ".../" where it was cut
    bool executable_deleted = false;
    std::string sha256;  // hex, small letters
    HashState hash = HashState::none;
    std::string hash_problem;  // "the process has ended and its file is gone", ...
    std::string command_line;  // as the configuration lets it be shown; empty: not known, or not to be shown
    bool command_line_cut = false;
    std::uint32_t uid = 0, gid = 0;
    std::string user;                        // of the host's /etc/passwd; empty: none there
    std::optional<std::uint32_t> login_uid;  // who logged in, whoever it is that runs now
    std::optional<std::uint32_t> session_id;
    std::string cgroup;  // path below the root of cgroup v2
    CgroupNames names;   // what that path says
    std::uint32_t parent_pid = 0;
    std::string parent_command;
    std::uint32_t mount_namespace = 0;
    bool details_lost = false;  // the kernel had no room to tell: the id is all that is known
};

}  // namespace egresswatch::capture
