// tests/unit/agent/check_test.cpp - exit codes and output of `egresswatch check`.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "agent/cli/commands.h"
#include "tests/support/catch.h"

namespace {

const std::filesystem::path source(EGRESSWATCH_SOURCE_DIR);

struct Ran {
    int exit_code = 0;
    std::string out;
};

Ran check(const std::string& arguments) {
    CLI::App app;
    Ran ran;
    egresswatch::cli::add_check(app, ran.exit_code);
    std::ostringstream out;
    std::streambuf* const before = std::cout.rdbuf(out.rdbuf());
    std::streambuf* const before_err = std::cerr.rdbuf(out.rdbuf());
    try {
        app.parse("check " + arguments);
    } catch (const CLI::Error& error) {
        ran.exit_code = -1;
    }
    std::cout.rdbuf(before);
    std::cerr.rdbuf(before_err);
    ran.out = out.str();
    return ran;
}

std::string golden(const std::string& name) {
    return (source / "tests/unit/rules/golden" / name).string();
}

}  // namespace

TEST_CASE("a policy that can be loaded exits with 0, one with errors with 1", "[agent][check]") {
    const Ran example =
        check("--strict --now 2026-03-02 --policy " + (source / "docs/examples/policy.d").string());
    INFO(example.out);
    CHECK(example.exit_code == 0);
    CHECK(example.out.find("no errors; policy clover-eu revision 1") != std::string::npos);
    const Ran broken = check("--policy " + golden("host-bits-set.yaml"));
    CHECK(broken.exit_code == 1);
    CHECK(broken.out.find("host-bits-set.yaml:10:16: error: prefix 203.0.113.77/24 has host bits set") !=
          std::string::npos);
    CHECK(broken.out.find("the one in force would stay") != std::string::npos);
    CHECK(broken.out.find('\033') == std::string::npos);
}

TEST_CASE("warnings exit with 0, and with 1 where they are to be strict", "[agent][check]") {
    CHECK(check("--policy " + golden("unused-list.yaml")).exit_code == 0);
    CHECK(check("--strict --policy " + golden("unused-list.yaml")).exit_code == 1);
}

TEST_CASE("what has expired is judged as of the day that is named", "[agent][check]") {
    const std::string example = "--policy " + (source / "docs/examples/policy.d").string();
    CHECK(check(example + " --now 2028-06-20").out.find("expires 2028-06-30, in less than 14 days") !=
          std::string::npos);
    CHECK(check(example + " --now 2028-07-01").out.find("the entry expired 2028-06-30: it allows nothing") !=
          std::string::npos);
    CHECK(check(example + " --now yesterday").exit_code == 2);
}

TEST_CASE("what cannot be read exits with 2", "[agent][check]") {
    CHECK(check("--policy " + golden("absent.yaml")).exit_code == 2);
}

TEST_CASE("--json is one object with every diagnostic", "[agent][check]") {
    const Ran ran = check("--json --policy " + golden("several-at-once.yaml"));
    CHECK(ran.exit_code == 1);
    const auto json = nlohmann::json::parse(ran.out);
    CHECK(json["valid"] == false);
    REQUIRE(json["diagnostics"].size() >= 4);
    CHECK(json["diagnostics"][0]["severity"] == "error");
    CHECK(json["diagnostics"][0]["line"].is_number_unsigned());
    const auto valid = nlohmann::json::parse(check("--json --policy " + golden("valid.yaml")).out);
    CHECK(valid["valid"] == true);
    CHECK(valid["rules"] == 1);
    CHECK(valid["content_hash"].get<std::string>().size() == 64);
    // A file that is not UTF-8 still gives JSON that is.
    CHECK(nlohmann::json::parse(check("--json --policy " + golden("yaml-not-utf8.yaml")).out)["valid"] ==
          false);
}

TEST_CASE("--dump prints what is in effect, with every default", "[agent][check]") {
    const Ran ran = check("--dump --now 2026-03-02 --policy " + (source / "docs/examples/policy.d").string());
    INFO(ran.out);
    CHECK(ran.exit_code == 0);
    CHECK(ran.out.find("  europe: {countries: [AT, AX, BE, BG, CH,") != std::string::npos);
    CHECK(ran.out.find("\"NO\"") != std::string::npos);
    CHECK(ran.out.find("  - id: foreign-pull\n") != std::string::npos);
    CHECK(ran.out.find("when: {region: outside, initiator: remote, allowed: false}") != std::string::npos);
    CHECK(ran.out.find("suppress: {for: 1h, by: [remote_prefix]}") != std::string::npos);
}

TEST_CASE("--explain-compiled prints what each class can still match, and the windows", "[agent][check]") {
    const Ran ran =
        check("--explain-compiled --now 2026-03-02 --policy " + (source / "docs/examples/policy.d").string());
    INFO(ran.out);
    CHECK(ran.exit_code == 0);
    CHECK(ran.out.find("  unknown\n    allow: none\n    rules: unknown-destination\n") != std::string::npos);
    CHECK(ran.out.find(
              "  outside [CA, US]\n    allow: time-servers\n    rules: bulk-to-outside, foreign-pull") !=
          std::string::npos);
    CHECK(ran.out.find("  home (") != std::string::npos);
    CHECK(ran.out.find("outside, in payment_networks") != std::string::npos);
    CHECK(
        ran.out.find(
            "  bulk-to-outside: bytes_out over 10m in 60 buckets of 10s, by [remote], at least 52428800 B") !=
        std::string::npos);
}
