// agent/cli/test.cpp - `egresswatch test`: unit tests of rules, beside the rules.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "agent/cli/commands.h"
#include "agent/records/ecs.h"
#include "rules/policy_files.h"
#include "rules/rule_test.h"

namespace egresswatch::cli {

namespace {

namespace fs = std::filesystem;
constexpr std::string_view suffix = ".test.yaml";

struct Options {
    std::vector<std::string> paths;
    std::string junit;
    bool every_rule = false;
};

struct CaseReport {
    std::string name;
    std::string place;  // file:line
    std::vector<std::string> differences;
    double seconds = 0;
};

struct FileReport {
    std::string name;
    std::string error;  // why nothing of it ran; with source lines and carets
    std::vector<CaseReport> cases;
};

struct Totals {
    std::size_t cases = 0;
    std::size_t failed = 0;
    std::size_t unreadable = 0;
};

// Text of XML 1.0 (section 2.2): what it cannot hold, and what is not UTF-8, becomes U+FFFD.
std::string xml(const std::string& text) {
    static constexpr std::string_view replacement = "\xef\xbf\xbd";
    std::string out;
    for (const char c : records::valid_utf8(text)) {
        if (c == '&')
            out += "&amp;";
        else if (c == '<')
            out += "&lt;";
        else if (c == '>')
            out += "&gt;";
        else if (c == '"')
            out += "&quot;";
        else if (static_cast<unsigned char>(c) < 0x20 && c != '\n')
            out += replacement;
        else
            out += c;
        // U+FFFE and U+FFFF are no characters of XML.
        if (out.ends_with("\xef\xbf\xbe") || out.ends_with("\xef\xbf\xbf"))
            out.replace(out.size() - 3, 3, replacement);
    }
    return out;
}

std::string joined(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) out += line + "\n";
    return out;
}

// What Jenkins, GitLab and their like read: a suite a file, a case a case.
std::string junit_text(const std::vector<FileReport>& reports, const Totals& totals) {
    std::ostringstream out;
    // A file that cannot be run is a case that it counts, so that the totals are those of the suites.
    out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\""
        << totals.cases + totals.unreadable << "\" failures=\"" << totals.failed << "\" errors=\""
        << totals.unreadable << "\">\n";
    for (const FileReport& file : reports) {
        const auto failed =
            std::ranges::count_if(file.cases, [](const CaseReport& c) { return !c.differences.empty(); });
        const std::string name = xml(file.name);
        out << "  <testsuite name=\"" << name << "\" tests=\""
            << file.cases.size() + (file.error.empty() ? 0 : 1) << "\" failures=\"" << failed
            << "\" errors=\"" << (file.error.empty() ? 0 : 1) << "\">\n";
        if (!file.error.empty())
            out << "    <testcase classname=\"" << name
                << "\" name=\"(the file)\"><error message=\"cannot be run\">" << xml(file.error)
                << "</error></testcase>\n";
        for (const CaseReport& test : file.cases) {
            out << "    <testcase classname=\"" << name << "\" name=\"" << xml(test.name) << "\" time=\""
                << test.seconds << "\"";
            if (test.differences.empty())
                out << "/>\n";
            else
                out << "><failure message=\"" << xml(test.differences.front()) << "\">" << xml(test.place)
                    << "\n"
                    << xml(joined(test.differences)) << "</failure></testcase>\n";
        }
        out << "  </testsuite>\n";
    }
    out << "</testsuites>\n";
    return out.str();
}

std::expected<std::vector<fs::path>, std::string> find_files(const std::vector<std::string>& paths) {
    std::vector<fs::path> out;
    for (const std::string& text : paths) {
        std::error_code error;
        const fs::path path(text);
        if (!fs::is_directory(path, error)) {
            if (!fs::exists(path, error))
                return std::unexpected(text + ": there is no such file or directory");
            out.push_back(path);
            continue;
        }
        std::vector<fs::path> found;
        for (fs::recursive_directory_iterator at(path, error), end; !error && at != end; at.increment(error))
            if (at->path().filename().string().ends_with(suffix)) found.push_back(at->path());
        if (error) return std::unexpected(text + ": " + error.message());
        if (found.empty()) return std::unexpected(text + ": no file in it ends in " + std::string(suffix));
        std::ranges::sort(found);
        out.insert(out.end(), found.begin(), found.end());
    }
    return out;
}

std::string report_of(const std::vector<rules::Diagnostic>& diagnostics) {
    std::string out;
    for (const rules::Diagnostic& diagnostic : diagnostics)
        out += rules::format_diagnostic(diagnostic, isatty(STDOUT_FILENO) == 1);
    return out + rules::format_counts(diagnostics);
}

class Runner {
public:
    void run(const fs::path& path);
    // Rules of the policies under test that no case has seen to find something.
    [[nodiscard]] std::vector<std::string> rules_without_test() const;

    std::vector<FileReport> reports;
    Totals totals;

private:
    std::string run_file(const fs::path& path, FileReport& report);

    std::map<std::string, std::set<std::string>> rules_;  // of a policy, by its hash and then id
    std::map<std::string, std::set<std::string>> found_;
};

void Runner::run(const fs::path& path) {
    FileReport report;
    report.name = path.string();
    report.error = run_file(path, report);
    if (!report.error.empty()) {
        ++totals.unreadable;
        std::cout << report.error << "\nFAIL  " << report.name << ": cannot be run\n";
    } else if (std::ranges::all_of(report.cases, [](const CaseReport& c) { return c.differences.empty(); })) {
        std::cout << "ok    " << report.name << ": " << report.cases.size()
                  << (report.cases.size() == 1 ? " case\n" : " cases\n");
    }
    reports.push_back(std::move(report));
}

std::string Runner::run_file(const fs::path& path, FileReport& report) {
    std::ifstream stream(path, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    if (!stream) return path.string() + ": cannot be read";
    const auto tests = rules::read_rule_tests({path.string(), text.str()});
    if (!tests) return report_of(tests.error());
    std::vector<fs::path> policy_paths;
    for (const std::string& name : tests->policy) policy_paths.push_back(path.parent_path() / name);
    if (policy_paths.empty())
        policy_paths.push_back(path.has_parent_path() ? path.parent_path() : fs::path("."));
    const auto loaded = rules::load_policy_set(policy_paths);
    if (!loaded) return report_of(loaded.error());
    const auto& policy = loaded->policy;
    for (const rules::Rule& rule : policy->rules) rules_[policy->content_hash()].insert(rule.id);
    for (const rules::RuleCase& test : tests->cases) {
        const auto begun = std::chrono::steady_clock::now();
        const rules::CaseResult result = rules::run_rule_case(test, policy);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
        const std::string place = path.string() + ":" + std::to_string(test.place.line);
        report.cases.push_back({test.name, place, result.differences, took.count()});
        for (const rules::ExpectedFinding& expected : test.expected)
            found_[policy->content_hash()].insert(expected.rule);
        ++totals.cases;
        if (result.passed()) continue;
        ++totals.failed;
        std::cout << "FAIL  " << place << ": " << test.name << "\n";
        for (const std::string& line : result.differences) std::cout << "    " << line << "\n";
    }
    return {};
}

std::vector<std::string> Runner::rules_without_test() const {
    std::set<std::string> out;
    for (const auto& [policy, ids] : rules_) {
        const auto found = found_.find(policy);
        for (const std::string& id : ids)
            if (found == found_.end() || !found->second.contains(id)) out.insert(id);
    }
    return {out.begin(), out.end()};
}

bool write_junit(const std::string& path, const std::vector<FileReport>& reports, const Totals& totals) {
    std::ofstream out(path, std::ios::binary);
    out << junit_text(reports, totals);
    if (out.flush()) return true;
    std::cerr << "egresswatch test: cannot write " << path << "\n";
    return false;
}

int run(const Options& options) {
    const auto files = find_files(options.paths);
    if (!files) {
        std::cerr << "egresswatch test: " << files.error() << "\n";
        // A pipeline that reads the report must not find the one of the run before.
        if (!options.junit.empty() &&
            !write_junit(options.junit, {{"egresswatch test", files.error(), {}}}, {0, 0, 1}))
            return 3;
        return 2;
    }
    Runner runner;
    for (const fs::path& file : *files) runner.run(file);
    const Totals& totals = runner.totals;
    std::cout << totals.cases << (totals.cases == 1 ? " case, " : " cases, ") << totals.failed << " failed";
    if (totals.unreadable > 0)
        std::cout << ", " << totals.unreadable << (totals.unreadable == 1 ? " file" : " files")
                  << " cannot be run";
    std::cout << "\n";
    const std::vector<std::string> untested = runner.rules_without_test();
    if (!untested.empty()) {
        std::cout << "no case expects a finding of: ";
        for (std::size_t i = 0; i < untested.size(); ++i) std::cout << (i == 0 ? "" : ", ") << untested[i];
        std::cout << "\n";
    }
    if (!options.junit.empty() && !write_junit(options.junit, runner.reports, totals)) return 3;
    if (totals.unreadable > 0) return 2;
    return totals.failed > 0 || (options.every_rule && !untested.empty()) ? 1 : 0;
}

}  // namespace

void add_test(CLI::App& app, int& exit_code) {
    auto options = std::make_shared<Options>();
    CLI::App* test = app.add_subcommand("test", "Run unit tests of rules: flows in, findings out");
    test->add_option("PATH", options->paths, "Files of tests, or directories with files named *.test.yaml")
        ->required();
    test->add_option("--junit", options->junit, "Write the results as JUnit XML to this file");
    test->add_flag("--every-rule", options->every_rule,
                   "Fail where a rule has no case that expects a finding of it");
    test->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace egresswatch::cli
