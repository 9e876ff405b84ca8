// agent/cli/status.cpp
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "agent/cli/commands.h"

namespace egresswatch::cli {

void add_status(CLI::App&, int&) {}

}  // namespace egresswatch::cli
