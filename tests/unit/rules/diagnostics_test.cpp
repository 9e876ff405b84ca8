// tests/unit/rules/diagnostics_test.cpp - the words of every mistake: golden/CASE.yaml (or a directory of
// files) and golden/CASE.txt. After a change that is meant: EGRESSWATCH_UPDATE_GOLDEN=1 unit_rules
// "[golden]", and read the difference. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "rules/limits.h"
#include "rules/policy.h"
#include "tests/support/catch.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;
namespace fs = std::filesystem;

namespace {

const fs::path golden = fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/unit/rules/golden";

std::string read(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    std::ostringstream out;
    out << stream.rdbuf();
    return out.str();
}

// Files are named without their directory, so that the text does not depend on where the repository lies.
std::string check(const fs::path& path) {
    std::vector<SourceFile> files;
    if (fs::is_directory(path)) {
        std::vector<fs::path> names;
        for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path());
        std::ranges::sort(names);
        for (const fs::path& name : names) files.push_back({name.filename().string(), read(name)});
    } else {
        files.push_back({path.filename().string(), read(path)});
    }
    const auto loaded = compile_policy(files);
    const std::vector<Diagnostic>& diagnostics = loaded ? loaded->warnings : loaded.error();
    std::string out;
    for (const Diagnostic& diagnostic : diagnostics) out += format_diagnostic(diagnostic);
    return out + format_counts(diagnostics) + "\n";
}

}  // namespace

TEST_CASE("every mistake is told with its place and its cure", "[rules][golden]") {
    const bool update = std::getenv("EGRESSWATCH_UPDATE_GOLDEN") != nullptr;
    std::size_t cases = 0;
    for (const auto& entry : fs::directory_iterator(golden)) {
        const fs::path& path = entry.path();
        if (path.extension() == ".txt") {
            CHECK((fs::exists(fs::path(path).replace_extension(".yaml")) ||
                   fs::is_directory(golden / path.stem())));
            continue;
        }
        const fs::path expected = golden / (path.stem().string() + ".txt");
        const std::string said = check(path);
        INFO(path.filename());
        if (update) std::ofstream(expected, std::ios::binary) << said;
        CHECK(said == read(expected));
        ++cases;
    }
    CHECK(cases >= 80);
}

TEST_CASE("an error is always told with a cure", "[rules][golden]") {
    for (const auto& entry : fs::directory_iterator(golden)) {
        if (entry.path().extension() != ".yaml") continue;
        const std::vector<SourceFile> files{{"case.yaml", read(entry.path())}};
        const auto loaded = compile_policy(files);
        INFO(entry.path().filename());
        for (const Diagnostic& diagnostic : loaded ? loaded->warnings : loaded.error()) {
            CHECK(!diagnostic.help.empty());
            CHECK(diagnostic.code.starts_with("rules/"));
            CHECK(diagnostic.message.find('\n') == std::string::npos);
        }
    }
}

TEST_CASE("colours are there when asked for and only then", "[rules][diagnostics]") {
    const auto loaded = compile_text("policy: egresswatch/v9\n");
    REQUIRE(!loaded);
    CHECK(format_diagnostic(loaded.error().front(), true).find("\033[") != std::string::npos);
    CHECK(format_diagnostic(loaded.error().front()).find('\033') == std::string::npos);
}

TEST_CASE("a hostile source line cannot steer the terminal", "[rules][diagnostics]") {
    const Diagnostic diagnostic{Severity::error, "rules/x", {"f", 1, 1, 1}, "m", "h", {}, "a\033[2Jb\x7f"};
    const std::string text = format_diagnostic(diagnostic);
    CHECK(text.find('\033') == std::string::npos);
    CHECK(text.find('\x7f') == std::string::npos);
}

TEST_CASE("a very long line is cut and the caret stays off the screen's end", "[rules][diagnostics]") {
    const std::string line(5000, 'x');
    const Diagnostic near{Severity::error, "rules/x", {"f", 1, 3, 4000}, "m", "h", {}, line};
    CHECK(format_diagnostic(near).size() < 600);
    const Diagnostic far{Severity::error, "rules/x", {"f", 1, 4000, 5}, "m", "h", {}, line};
    CHECK(format_diagnostic(far).find('^') == std::string::npos);
}

TEST_CASE("thousands of mistakes end in one line that says how many more there are", "[rules][diagnostics]") {
    std::string text = header();
    for (int i = 0; i < 5000; ++i) text += "mistake" + std::to_string(i) + ": 1\n";
    const auto loaded = compile_text(text);
    REQUIRE(!loaded);
    CHECK(loaded.error().size() == limits::diagnostics_max + 1);
    CHECK(loaded.error().back().message.find("more problems") != std::string::npos);
}
