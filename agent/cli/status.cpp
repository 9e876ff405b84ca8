// agent/cli/status.cpp - `egresswatch status`: asks the daemon over its control socket, prints a table or
// JSON. SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/cli/commands.h"
#include "agent/cli/status_table.h"
#include "agent/daemon/control_protocol.h"

namespace egresswatch::cli {

void add_status(CLI::App& app, int& exit_code) {
    struct Options {
        std::string socket = daemon::control_socket_default;
        bool json = false;
    };
    auto options = std::make_shared<Options>();
    auto* command =
        app.add_subcommand("status", "hooks, counters, losses, policy, journal and outputs of the daemon");
    command->add_option("--socket", options->socket, "the daemon's control socket")->capture_default_str();
    command->add_flag("--json", options->json, "the whole answer as one JSON object");
    command->callback([options, &exit_code] {
        const auto answer = daemon::ask_daemon(options->socket, "status", std::chrono::seconds(5));
        if (!answer) {
            std::fprintf(stderr, "egresswatch status: %s\n", answer.error().c_str());
            exit_code = 3;
            return;
        }
        const nlohmann::json status = answer->value("status", nlohmann::json::object());
        const std::string text = options->json ? status.dump() + "\n" : status_table(status);
        std::fwrite(text.data(), 1, text.size(), stdout);
    });
}

}  // namespace egresswatch::cli
