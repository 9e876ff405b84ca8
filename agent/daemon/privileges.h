// agent/daemon/privileges.h - gives up what the daemon no longer needs once its hooks are up.
// SPDX-License-Identifier: Apache-2.0
//
// Kept: CAP_BPF (maps of a reload), CAP_NET_ADMIN (hooks on interfaces that come later, driver counters) and
// CAP_PERFMON (loading a tc program that reads kernel pointers). Everything else goes, from the bounding set
// too where we may, and no_new_privs makes it final. As uid 0 without CAP_DAC_OVERRIDE the daemon still owns
// root's files: run it as the user egresswatch, as the unit does.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "capture/engine.h"

namespace egresswatch::daemon {

[[nodiscard]] std::expected<void, capture::OsError> drop_privileges();

// For a thread that needs no capability at all. The threads that it makes have none either.
[[nodiscard]] std::expected<void, capture::OsError> drop_all_of_this_thread();

struct PrivilegeStatus {
    unsigned uid = 0;
    std::vector<std::string> effective;  // "cap_bpf", ...
    std::vector<std::string> bounding;
    bool no_new_privs = false;
};
[[nodiscard]] PrivilegeStatus privilege_status();

}  // namespace egresswatch::daemon
