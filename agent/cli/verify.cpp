// agent/cli/verify.cpp - `egresswatch verify`, `prove` and `key`: the auditor's commands.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/cli/commands.h"
#include "agent/evidence/prover.h"
#include "agent/evidence/verifier.h"

namespace egresswatch::cli {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using namespace evidence;

constexpr const char* journal_default = "/var/lib/egresswatch/journal";

std::optional<std::string> read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(in), {});
}

int refuse(const char* command, const std::string& why) {
    std::fprintf(stderr, "egresswatch %s: %s\n", command, why.c_str());
    return exit_input;
}

// A verifier key, or a file whose first word with a plus is one.
std::expected<PublicKey, std::string> read_genesis(const std::string& argument) {
    const auto text = fs::exists(argument) ? read_file(argument) : std::optional(argument);
    if (!text) return std::unexpected(argument + ": cannot be read");
    std::istringstream words(*text);
    for (std::string word; words >> word;)
        if (word.find('+') != std::string::npos) return PublicKey::parse_vkey(word);
    return std::unexpected(argument + ": holds no verifier key of the form NAME+ID+KEY");
}

struct VerifyArguments {
    std::string journal = journal_default;
    std::string key, anchors, proof, keys;
    bool json = false, quiet = false;
};

// Nothing the journal says reaches a terminal as a control character.
std::string printable(const std::string& text) {
    std::string out;
    for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return out;
}

Json report_json(const VerifyReport& report, double seconds) {
    Json out;
    out["good"] = report.good();
    out["problems"] = Json::array();
    for (const auto& problem : report.problems)
        out["problems"].push_back({{"code", problem.code},
                                   {"message", problem.message},
                                   {"file", problem.file.empty() ? Json(nullptr) : Json(problem.file)},
                                   {"seq", problem.seq ? Json(*problem.seq) : Json(nullptr)}});
    out["problems_not_shown"] = report.problems_not_shown;
    out["notes"] = report.notes;
    out["logs"] = Json::array();
    for (const auto& log : report.logs)
        out["logs"].push_back({{"origin", log.origin},
                               {"first_index", log.first_index},
                               {"size", log.size},
                               {"root", log.root},
                               {"signed_size", log.signed_size},
                               {"checkpoints", log.checkpoints},
                               {"keys", log.keys},
                               {"anchors", log.anchors},
                               {"anchored_size", log.anchored_size}});
    out["records"] = report.records;
    out["erased"] = report.erased;
    out["bytes"] = report.bytes;
    out["first_seq"] = report.first_seq;
    out["last_seq"] = report.last_seq;
    out["not_signed"] = report.not_signed;
    out["covered_from"] = report.covered_from;
    out["covered_to"] = report.covered_to;
    out["seconds"] = seconds;
    return out;
}

void print_report(const VerifyReport& report, double seconds) {
    for (const auto& problem : report.problems)
        std::printf("%s%s%s: %s\n", problem.file.c_str(), problem.file.empty() ? "" : ": ",
                    problem.code.c_str(), printable(problem.message).c_str());
    if (report.problems_not_shown != 0)
        std::printf("and %llu more problems\n", static_cast<unsigned long long>(report.problems_not_shown));
    for (const auto& log : report.logs) {
        std::printf("log %s\n  %llu records, signed up to %llu by %llu checkpoints and %llu changes of key\n",
                    printable(log.origin).c_str(), static_cast<unsigned long long>(log.size),
                    static_cast<unsigned long long>(log.signed_size),
                    static_cast<unsigned long long>(log.checkpoints),
                    static_cast<unsigned long long>(log.keys));
        if (log.anchors != 0)
            std::printf("  %llu anchors agree; nobody can have changed the first %llu records since\n",
                        static_cast<unsigned long long>(log.anchors),
                        static_cast<unsigned long long>(log.anchored_size));
    }
    for (const auto& note : report.notes) std::printf("note: %s\n", printable(note).c_str());
    std::printf(
        "%llu records read (numbers %llu to %llu), %llu known by their hash only, %.1f MB in %.1f s\n",
        static_cast<unsigned long long>(report.records), static_cast<unsigned long long>(report.first_seq),
        static_cast<unsigned long long>(report.last_seq), static_cast<unsigned long long>(report.erased),
        static_cast<double>(report.bytes) / 1e6, seconds);
    if (!report.covered_from.empty())
        std::printf("coverage without a hole from %s to %s, but for what gap records tell\n",
                    printable(report.covered_from).c_str(), printable(report.covered_to).c_str());
    std::printf("the last %llu records are not signed yet\n",
                static_cast<unsigned long long>(report.not_signed));
    std::printf(report.good() ? "GOOD: the journal is what was signed\n" : "BAD: %zu problems\n",
                report.problems.size() + report.problems_not_shown);
}

int check_one_proof(const VerifyArguments& arguments, const PublicKey& genesis) {
    const std::string keys_path =
        arguments.keys.empty() ? (fs::path(arguments.journal) / keys_file_name).string() : arguments.keys;
    const auto keys = read_file(keys_path);
    const auto text = read_file(arguments.proof);
    if (!keys) return refuse("verify", keys_path + ": cannot be read; name the public keys with --keys");
    if (!text) return refuse("verify", arguments.proof + ": cannot be read");
    const auto proof = Proof::parse(*text);
    if (!proof) return refuse("verify", arguments.proof + ": " + proof.error());
    const KeyChain chain = KeyChain::read(*keys, genesis);
    std::expected<ProofResult, std::string> result = std::unexpected("the keys: " + chain.problem);
    if (!chain.links.empty()) result = check_proof(*proof, chain);
    if (arguments.json) {
        Json out{{"good", result.has_value()}, {"index", proof->index}};
        if (result) {
            out["origin"] = result->checkpoint.origin;
            out["size"] = result->checkpoint.size;
            out["generation"] = result->generation;
            out["record"] = Json::parse(proof->record, nullptr, false);
        } else {
            out["problem"] = result.error();
        }
        std::printf("%s\n", out.dump(-1, ' ', true, Json::error_handler_t::replace).c_str());
    } else if (result) {
        std::printf("%s\nGOOD: leaf %llu of %llu in %s, signed by key %llu\n",
                    printable(proof->record).c_str(), static_cast<unsigned long long>(proof->index),
                    static_cast<unsigned long long>(result->checkpoint.size),
                    printable(result->checkpoint.origin).c_str(),
                    static_cast<unsigned long long>(result->generation));
    } else {
        std::printf("BAD: %s\n", printable(result.error()).c_str());
    }
    return result ? 0 : exit_bad;
}

int run_verify(const VerifyArguments& arguments) {
    const auto genesis = read_genesis(arguments.key);
    if (!genesis) return refuse("verify", genesis.error());
    if (!arguments.proof.empty()) return check_one_proof(arguments, *genesis);
    VerifyOptions options;
    options.journal = arguments.journal;
    options.genesis = *genesis;
    if (!arguments.anchors.empty()) {
        const auto text = read_file(arguments.anchors);
        if (!text) return refuse("verify", arguments.anchors + ": cannot be read");
        options.anchors = find_anchors(*text);
        options.anchors_given = true;
    }
    const bool progress = !arguments.quiet && !arguments.json && ::isatty(STDERR_FILENO) != 0;
    if (progress)
        options.progress = [](std::uint64_t done, std::uint64_t total) {
            std::fprintf(
                stderr, "\r%3.0f %%",
                100.0 * static_cast<double>(done) / static_cast<double>(std::max<std::uint64_t>(total, 1)));
        };
    const auto start = std::chrono::steady_clock::now();
    const auto report = verify_journal(options);
    if (progress) std::fputs("\r     \r", stderr);
    if (!report) return refuse("verify", report.error());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (arguments.json)
        std::printf(
            "%s\n",
            report_json(*report, seconds).dump(-1, ' ', true, Json::error_handler_t::replace).c_str());
    else
        print_report(*report, seconds);
    return report->good() ? 0 : exit_bad;
}

}  // namespace

void add_verify(CLI::App& app, int& exit_code) {
    auto arguments = std::make_shared<VerifyArguments>();
    auto* command = app.add_subcommand("verify", "whether a journal is complete and unaltered");
    command->add_option("journal", arguments->journal, "the journal's directory, or a copy of it")
        ->capture_default_str();
    command->add_option("--key", arguments->key, "the genesis key of the host, or a file with it")
        ->required();
    command->add_option("--anchors", arguments->anchors,
                        "checkpoints that the SIEM kept: notes, syslog lines or JSON lines");
    command->add_option("--proof", arguments->proof, "check this proof of one record instead of the journal");
    command->add_option("--keys", arguments->keys, "the journal's public keys, for --proof");
    command->add_flag("--json", arguments->json, "the result as one JSON object");
    command->add_flag("--quiet", arguments->quiet, "no progress on standard error");
    command->callback([arguments, &exit_code] { exit_code = run_verify(*arguments); });
}

void add_prove(CLI::App& app, int& exit_code) {
    struct Arguments {
        std::uint64_t seq = 0;
        std::string journal = journal_default, checkpoint;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* command = app.add_subcommand("prove", "a proof that one record is in the signed journal");
    command->add_option("seq", arguments->seq, "the record's number")->required();
    command->add_option("--journal", arguments->journal, "the journal's directory, or a copy of it")
        ->capture_default_str();
    command->add_option("--checkpoint", arguments->checkpoint,
                        "prove it towards the checkpoint in this file, not the first that signs it");
    command->callback([arguments, &exit_code] {
        std::optional<std::string> checkpoint;
        if (!arguments->checkpoint.empty()) {
            const auto text = read_file(arguments->checkpoint);
            const auto found = text ? find_anchors(*text) : std::vector<Anchor>{};
            if (found.empty()) {
                exit_code = refuse("prove", arguments->checkpoint + ": holds no checkpoint");
                return;
            }
            checkpoint = found.front().note.to_string();
        }
        const auto proof = prove(arguments->journal, arguments->seq, checkpoint);
        if (!proof) {
            std::fprintf(stderr, "egresswatch prove: %s\n", proof.error().c_str());
            exit_code = exit_bad;
            return;
        }
        const std::string text = proof->text();
        std::fwrite(text.data(), 1, text.size(), stdout);
    });
}

void add_key(CLI::App& app, int& exit_code) {
    auto journal = std::make_shared<std::string>(journal_default);
    auto* command =
        app.add_subcommand("key", "the genesis key of this host: what an auditor has to be given");
    command->add_option("--journal", *journal, "the journal's directory")->capture_default_str();
    command->callback([journal, &exit_code] {
        const auto path = (fs::path(*journal) / keys_file_name).string();
        const auto text = read_file(path);
        if (!text) {
            exit_code = refuse("key", path + ": cannot be read; the daemon makes it at its first start");
            return;
        }
        const KeyChain chain = KeyChain::read(*text, std::nullopt);
        if (chain.links.empty()) {
            exit_code = refuse("key", path + ": " + chain.problem);
            return;
        }
        std::printf("%s\n", chain.links.front().public_key().vkey().c_str());
    });
}

}  // namespace egresswatch::cli
