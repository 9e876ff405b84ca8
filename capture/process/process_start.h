// capture/process/process_start.h - is the process that was told of still the one behind its pid?
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "capture/process/process.h"

namespace egresswatch::capture {

// By the time of its start. False also where /proc does not show it.
[[nodiscard]] bool runs_still(const ProcessId& process);

}  // namespace egresswatch::capture
