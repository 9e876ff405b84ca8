// agent/daemon/engine_factory.h - the engine that the configuration names, and what it needs of the daemon.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <memory>
#include <vector>

#include "agent/daemon/config.h"
#include "agent/daemon/daemon.h"
#include "capture/engine.h"
#include "classifier/flow_table.h"

namespace egresswatch::daemon {

struct MadeEngine {
    std::unique_ptr<capture::Engine> engine;
    Daemon::Predecessors predecessor{};  // empty: the engine keeps nothing over a restart
    std::vector<int> capabilities{};     // kept for its whole life
};

[[nodiscard]] std::expected<MadeEngine, capture::OsError> make_engine(const Config& config);

// What the engines in user space have in common. `tables`: how many share the memory, one for each core.
[[nodiscard]] FlowTableConfig flow_table_config(const Config& config, std::size_t tables);

}  // namespace egresswatch::daemon
