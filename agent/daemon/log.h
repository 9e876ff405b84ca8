// agent/daemon/log.h - the daemon's own log, on standard error. Findings go to the journal, never here.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace egresswatch::daemon {

// Under systemd (JOURNAL_STREAM) lines begin with their priority, "<4>", and have no time: journald adds it.
void set_up_log(const std::string& level);

}  // namespace egresswatch::daemon
