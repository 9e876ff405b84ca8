// agent/daemon/egresswatchd_main.cpp - the daemon's program: command line, configuration, engine, loop.
// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "agent/daemon/config.h"
#include "agent/daemon/daemon.h"
#include "agent/daemon/engine_factory.h"
#include "agent/daemon/log.h"

namespace {

using namespace egresswatch;

// Exit codes as in agent/cli/commands.h: 2 wrong input, 3 the environment refused.
constexpr int exit_bad_input = 2;
constexpr int exit_refused = 3;

/** Blocks from here on are mapped by themselves, and are the kernel's again as soon as they are freed. */
constexpr int mapped_block_min = 1 << 20;
/** So much may lie free at the end of a heap. */
constexpr int heap_free_max = 2 << 20;

/**
 * Keeps what a reload needs for a moment from staying with the process. The C library raises both limits by
 * itself to the largest block ever freed; then a table of 8 MiB comes from the heap of whichever thread asked
 * first, and each of these heaps keeps that much for good.
 */
void give_memory_back() {
    mallopt(M_MMAP_THRESHOLD, mapped_block_min);
    mallopt(M_TRIM_THRESHOLD, heap_free_max);
}

int run(const daemon::Config& config) {
    daemon::block_signals();
    auto made = daemon::make_engine(config);
    if (!made) {
        spdlog::critical("{}", made.error().to_string());
        return exit_refused;
    }
    daemon::DaemonOptions options;
    options.capabilities = std::move(made->capabilities);
    daemon::Daemon daemon(config, std::move(made->engine), std::move(made->predecessor), std::move(options));
    if (auto started = daemon.start(); !started) {
        spdlog::critical("{}", started.error());
        return exit_refused;
    }
    return daemon.run();
}

}  // namespace

int main(int argc, char** argv) {
    give_memory_back();
    CLI::App app{"egresswatchd: watches which traffic leaves this host and its region, and tells"};
    std::string config_file = daemon::config_file_default;
    std::string pin_dir;
    bool check_only = false;
    app.set_version_flag("--version", "egresswatchd " EGRESSWATCH_VERSION);
    app.add_option("--config", config_file, "configuration file")->capture_default_str();
    app.add_option("--pin-dir", pin_dir,
                   "folder on a bpffs for maps and hooks, instead of the file's pin_dir");
    app.add_flag("--check-config", check_only,
                 "check the configuration file, print every problem, and leave");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : exit_bad_input;
    }
    auto config = daemon::load_config(config_file);
    if (!config) {
        for (const auto& diagnostic : config.error())
            std::fputs(rules::format_diagnostic(diagnostic).c_str(), stderr);
        std::fprintf(stderr, "%s: %s\n", config_file.c_str(), rules::format_counts(config.error()).c_str());
        return exit_bad_input;
    }
    if (check_only) {
        std::printf("%s: no errors\n", config_file.c_str());
        return 0;
    }
    if (!pin_dir.empty()) config->pin_dir = pin_dir;
    daemon::set_up_log(config->log_level);
    return run(*config);
}
