// capture/dpdk/dpdk_module.cpp - what the module shows to the program that opens it.
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/dpdk_module.h"

using namespace egresswatch::capture;

extern "C" __attribute__((visibility("default"))) const DpdkModule egresswatch_dpdk_module = {
    EGRESSWATCH_VERSION, sizeof(DpdkConfig), egresswatch::datapath::LAYOUT_VERSION,
    [](DpdkConfig config) -> std::expected<std::unique_ptr<Engine>, OsError> {
        return DpdkEngine::make(std::move(config));
    }};
