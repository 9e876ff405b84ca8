// agent/cli/egresswatch_main.cpp - the command line program. Subcommands register themselves below, one line
// each. SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "agent/cli/commands.h"

int main(int argc, char** argv) {
    CLI::App app{
        "egresswatch: which traffic leaves the region, whether policy allows it, and the proof of it"};
    app.set_version_flag("--version", EGRESSWATCH_VERSION);
    app.require_subcommand(1);
    app.failure_message(CLI::FailureMessage::help);
    int exit_code = 0;
    egresswatch::cli::add_geo(app, exit_code);
    egresswatch::cli::add_check(app, exit_code);
    egresswatch::cli::add_replay(app, exit_code);
    egresswatch::cli::add_status(app, exit_code);
    egresswatch::cli::add_detach(app, exit_code);
    egresswatch::cli::add_verify(app, exit_code);
    egresswatch::cli::add_prove(app, exit_code);
    egresswatch::cli::add_key(app, exit_code);
    egresswatch::cli::add_schema(app, exit_code);
    egresswatch::cli::add_fields(app, exit_code);
    egresswatch::cli::add_test(app, exit_code);
    egresswatch::cli::add_learn(app, exit_code);
    egresswatch::cli::add_explain(app, exit_code);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;  // CLI11 has a code above 100 for each kind of wrong usage
    }
    return exit_code;
}
