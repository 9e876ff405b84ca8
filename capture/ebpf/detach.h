// capture/ebpf/detach.h - removes everything of egresswatch from the kernel, daemon or no daemon.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "capture/engine.h"

namespace egresswatch::capture {

struct DetachReport {
    std::vector<std::string> removed;   // one line each: "tcx hook on eth0 egress", "map flows", ...
    std::vector<std::string> problems;  // what could not be removed, and why
};

// Every hook in the network namespace of the caller and every pin under `pin_dir`. Refuses while a daemon
// holds the directory. Nothing there is not an error: the report is empty.
[[nodiscard]] std::expected<DetachReport, OsError> detach(const std::string& pin_dir);

}  // namespace egresswatch::capture
