// capture/dpdk/eal.h - DPDK's environment of this process: arguments, log, start, end.
//
// Threads:  the engine's owner.     Limits: once a process (rte_eal_init(3) refuses a second time).
// Fails:    OsError with the last words that DPDK logged, and the cure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "capture/dpdk/dpdk_engine.h"

namespace egresswatch::capture {

class Eal {
public:
    [[nodiscard]] static std::expected<std::unique_ptr<Eal>, OsError> start(const DpdkConfig& config,
                                                                            std::uint32_t memory_mb);
    ~Eal();  // every port must be closed
    Eal(const Eal&) = delete;
    Eal& operator=(const Eal&) = delete;

    // What DPDK logged as an error since the last call, on one line.
    [[nodiscard]] std::string take_words();

    struct Log;

private:
    explicit Eal(std::unique_ptr<Log> log);
    std::unique_ptr<Log> log_;
};

// An option of eal_args that the engine sets itself, or that would end the process; empty: none.
[[nodiscard]] std::string reserved_eal_option(const std::vector<std::string>& eal_args);

}  // namespace egresswatch::capture
