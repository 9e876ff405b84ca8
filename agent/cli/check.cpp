// agent/cli/check.cpp
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "agent/cli/commands.h"

namespace egresswatch::cli {

void add_check(CLI::App&, int&) {}

}  // namespace egresswatch::cli
