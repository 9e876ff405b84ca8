// agent/cli/commands.h - one function a subcommand: it adds its options and a callback that sets `exit_code`.
// SPDX-License-Identifier: Apache-2.0
//
// Exit codes: 0 done and nothing to complain of; 1 done, and what was asked about is bad (a policy with
// errors, findings with --fail-on-findings); 2 wrong usage or an input that cannot be read; 3 the environment
// refused.
#pragma once

namespace CLI {
class App;
}

namespace egresswatch::cli {

constexpr int exit_bad = 1;
constexpr int exit_input = 2;
constexpr int exit_environment = 3;

void add_geo(CLI::App& app, int& exit_code);
void add_check(CLI::App& app, int& exit_code);
void add_replay(CLI::App& app, int& exit_code);
void add_status(CLI::App& app, int& exit_code);
void add_detach(CLI::App& app, int& exit_code);
void add_verify(CLI::App& app, int& exit_code);
void add_prove(CLI::App& app, int& exit_code);
void add_key(CLI::App& app, int& exit_code);
void add_schema(CLI::App& app, int& exit_code);
void add_test(CLI::App& app, int& exit_code);
void add_learn(CLI::App& app, int& exit_code);
void add_explain(CLI::App& app, int& exit_code);
void add_fields(CLI::App& app, int& exit_code);

}  // namespace egresswatch::cli
