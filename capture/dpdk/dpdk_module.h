// capture/dpdk/dpdk_module.h - the one way from the daemon into the module that needs DPDK.
//
// The module is opened with dlopen(3) by a program of the same build: what it was built with is compared
// first. SPDX-License-Identifier: Apache-2.0
#pragma once

#include "capture/dpdk/dpdk_engine.h"

namespace egresswatch::capture {

struct DpdkModule {
    const char* version;         // EGRESSWATCH_VERSION of both sides is the same, and
    std::uint32_t config_bytes;  // so are their structs
    std::uint32_t layout_version;
    std::expected<std::unique_ptr<Engine>, OsError> (*make)(DpdkConfig config);
};

inline constexpr const char* DPDK_MODULE_SYMBOL = "egresswatch_dpdk_module";

}  // namespace egresswatch::capture
