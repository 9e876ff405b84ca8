// agent/cli/detach.cpp - `egresswatch detach`: removes every hook and pin, and says what it removed.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "agent/cli/commands.h"
#include "capture/ebpf/detach.h"
#include "capture/ebpf/ebpf_engine.h"

namespace egresswatch::cli {
namespace {

// 0: nothing of ours is left; 1: something could not be removed; 3: the kernel or a running daemon refused.
int run_detach(const std::string& pin_dir) {
    const auto report = capture::detach(pin_dir);
    if (!report) {
        std::fprintf(stderr, "egresswatch detach: %s\n", report.error().to_string().c_str());
        return 3;
    }
    for (const std::string& line : report->removed) std::printf("removed %s\n", line.c_str());
    for (const std::string& line : report->problems)
        std::fprintf(stderr, "egresswatch detach: %s\n", line.c_str());
    if (report->removed.empty() && report->problems.empty())
        std::printf("nothing to remove: no pins under %s, no filters in this network namespace\n",
                    pin_dir.c_str());
    return report->problems.empty() ? 0 : 1;
}

}  // namespace

void add_detach(CLI::App& app, int& exit_code) {
    auto* command = app.add_subcommand(
        "detach", "Remove the eBPF hooks, filters and pins that egresswatchd left in the kernel");
    auto pin_dir = std::make_shared<std::string>(capture::PIN_DIR_DEFAULT);
    command->add_option("--pin-dir", *pin_dir, "The daemon's pin directory on the bpffs")
        ->capture_default_str();
    command->callback([pin_dir, &exit_code] { exit_code = run_detach(*pin_dir); });
}

}  // namespace egresswatch::cli
