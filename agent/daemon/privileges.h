// agent/daemon/privileges.h - gives up what the daemon no longer needs once its hooks are up.
// SPDX-License-Identifier: Apache-2.0
//
// What is kept, the engine says (engine_factory.cpp). Everything else goes, from the bounding set too where
// we may, and no_new_privs makes it final. As uid 0 without CAP_DAC_OVERRIDE the daemon still owns root's
// files: run it as the user egresswatch, as the unit does.
#pragma once

#include <expected>
#include <span>
#include <string>
#include <vector>

#include "capture/engine.h"

namespace egresswatch::daemon {

// `kept`: numbers of capabilities (CAP_NET_RAW).
[[nodiscard]] std::expected<void, capture::OsError> drop_privileges(std::span<const int> kept);

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
