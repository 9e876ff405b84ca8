// agent/daemon/dpdk_module.h - opens the module of the engine dpdk, the only part that needs DPDK's
// libraries. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <memory>

#include "capture/dpdk/dpdk_engine.h"

namespace egresswatch::daemon {

// From ../lib/egresswatch beside this program, wherever it was installed or built. Never closed again: DPDK
// keeps threads for the life of the process.
[[nodiscard]] std::expected<std::unique_ptr<capture::Engine>, capture::OsError> make_dpdk_engine(
    capture::DpdkConfig config);

}  // namespace egresswatch::daemon
