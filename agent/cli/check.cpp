// agent/cli/check.cpp - `egresswatch check`: every problem of a policy at once, with place and cure.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "rules/policy.h"
#include "rules/policy_text.h"
#include "rules/values.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    std::string policy = "/etc/egresswatch/policy.d";
    std::string now;
    bool json = false;
    bool strict = false;
    bool dump = false;
    bool explain_compiled = false;
    std::string site;
};

bool use_colour() {
    return isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
}

Json diagnostic_json(const rules::Diagnostic& diagnostic) {
    return {{"severity", diagnostic.severity == rules::Severity::error ? "error" : "warning"},
            {"code", diagnostic.code},
            {"file", diagnostic.span.file},
            {"line", diagnostic.span.line},
            {"column", diagnostic.span.column},
            {"length", diagnostic.span.length},
            {"message", diagnostic.message},
            {"context", diagnostic.context},
            {"help", diagnostic.help}};
}

std::string json_text(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

void print(const Options& options, const rules::Policy* policy,
           const std::vector<rules::Diagnostic>& diagnostics) {
    if (options.json) {
        Json out{{"policy", options.policy}, {"valid", policy != nullptr}};
        if (policy != nullptr) {
            out["name"] = policy->name;
            out["revision"] = policy->revision;
            out["content_hash"] = policy->content_hash();
            out["rules"] = policy->rules.size();
            out["allow"] = policy->allows.size();
            out["files"] = policy->files;
        }
        out["diagnostics"] = Json::array();
        for (const rules::Diagnostic& diagnostic : diagnostics)
            out["diagnostics"].push_back(diagnostic_json(diagnostic));
        std::cout << json_text(out) << "\n";
        return;
    }
    for (const rules::Diagnostic& diagnostic : diagnostics)
        std::cout << rules::format_diagnostic(diagnostic, use_colour());
    std::cout << options.policy << ": " << rules::format_counts(diagnostics);
    if (policy == nullptr) {
        std::cout << "; the policy would not be loaded, the one in force would stay\n";
        return;
    }
    std::cout << "; policy " << policy->name << " revision " << policy->revision << ": "
              << policy->rules.size() << " rules";
    std::cout << ", " << policy->allows.size() << " allow entries, sha256 "
              << policy->content_hash().substr(0, 16) << "\n";
}

void run(const Options& options, int& exit_code) {
    Timestamp now = std::chrono::system_clock::now();
    if (!options.now.empty()) {
        const auto date = rules::parse_date(options.now);
        if (!date) {
            std::cerr << "egresswatch check: --now: " << date.error().message << "; " << date.error().help
                      << "\n";
            exit_code = 2;
            return;
        }
        now = Timestamp(std::chrono::sys_days(*date));
    }
    std::error_code error;
    if (!std::filesystem::exists(options.policy, error)) {
        std::cerr << "egresswatch check: " << options.policy << ": there is no such file or directory\n";
        exit_code = 2;
        return;
    }
    auto loaded = rules::load_policy(options.policy);
    if (!loaded) {
        print(options, nullptr, loaded.error());
        // What cannot be read at all is another matter for a pipeline than a policy with errors.
        const bool unreadable = std::ranges::any_of(
            loaded.error(), [](const rules::Diagnostic& d) { return d.code == "rules/cannot-read"; });
        exit_code = unreadable ? 2 : 1;
        return;
    }
    std::vector<rules::Diagnostic> diagnostics = std::move(loaded->warnings);
    for (rules::Diagnostic& warning : rules::expiry_warnings(*loaded->policy, now))
        diagnostics.push_back(std::move(warning));
    if (options.dump || options.explain_compiled) {
        // Standard output holds what was asked for; what is wrong goes beside it.
        for (const rules::Diagnostic& diagnostic : diagnostics)
            std::cerr << rules::format_diagnostic(diagnostic);
        if (options.dump) std::cout << rules::effective_policy(*loaded->policy);
        if (options.explain_compiled && !options.site.empty() &&
            !rules::has_site(*loaded->policy, options.site))
            std::cerr << "egresswatch check: the policy has no site \"" << options.site << "\"\n";
        if (options.explain_compiled) std::cout << rules::explain_compiled(*loaded->policy, options.site);
    } else {
        print(options, loaded->policy.get(), diagnostics);
    }
    exit_code = options.strict && !diagnostics.empty() ? 1 : 0;
}

}  // namespace

void add_check(CLI::App& app, int& exit_code) {
    auto options = std::make_shared<Options>();
    CLI::App* check =
        app.add_subcommand("check", "Check a policy: every problem at once, with place and cure");
    check->add_option("--policy,POLICY", options->policy, "Policy directory, or one file")
        ->capture_default_str();
    check->add_flag("--json", options->json, "One JSON object instead of text");
    check->add_flag("--strict", options->strict, "Warnings count as errors for the exit code");
    check->add_option("--now", options->now, "Judge expiry as of this day instead of today (2026-12-31)");
    check->add_flag("--dump", options->dump,
                    "Print the policy in effect: all files, groups resolved, defaults filled in");
    check->add_flag(
        "--explain-compiled", options->explain_compiled,
        "Print what it compiled to: for each class what can match, and the windows with their memory");
    check->add_option("--site", options->site, "With --explain-compiled: on a host of this site");
    check->callback([options, &exit_code] { run(*options, exit_code); });
}

}  // namespace egresswatch::cli
