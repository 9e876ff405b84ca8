// tests/support/journal_lab.h - a real signed journal in a folder, and what somebody with root could do to
// it. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "agent/evidence/notary.h"
#include "agent/evidence/verifier.h"
#include "agent/journal/hash_file.h"
#include "agent/journal/segment.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

namespace egresswatch::testing {

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const std::filesystem::path& path, std::string_view text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline std::vector<std::string> lines_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

inline void write_lines(const std::filesystem::path& path, const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    write_text(path, text);
}

// Journal and notary as the daemon wires them, without its threads' timers getting in the way.
struct SignedJournal {
    explicit SignedJournal(const std::filesystem::path& state, std::uint64_t segment_bytes = 16 * 1024,
                           const std::string& boot = "boot-1",
                           const std::function<void(journal::Config&)>& adjust = {}) {
        evidence::NotaryConfig evidence;
        evidence.directory = state / "evidence";
        evidence.journal = state / "journal";
        evidence.origin = sample_origin();
        evidence.checkpoint_interval = std::chrono::hours{1};
        evidence.key_interval = std::chrono::hours{24};
        auto opened_notary = evidence::Notary::open(evidence);
        if (!opened_notary) FAIL(opened_notary.error());
        notary = std::move(*opened_notary);
        journal::Config config;
        config.directory = state / "journal";
        config.origin = sample_origin();
        config.boot_id = boot;
        config.segment_bytes_max = segment_bytes;
        config.judge = [this](const journal::RecoveredTree& tree) { return notary->judge(tree); };
        if (adjust) adjust(config);
        auto opened = journal::Journal::open(std::move(config));
        if (!opened) FAIL(opened.error().to_string());
        journal = std::move(*opened);
        notary->start(*journal);
    }
    ~SignedJournal() { stop(); }
    void stop() {
        notary->stop();
        journal->stop();
    }
    std::unique_ptr<journal::Journal> journal;
    std::unique_ptr<evidence::Notary> notary;
};

// Coverage of ten seconds, a finding and some flows, `rounds` times; a checkpoint each, a new key every
// third.
inline void fill(SignedJournal& signed_journal, int rounds, int start = 0) {
    for (int round = start; round < start + rounds; round++) {
        auto& journal = *signed_journal.journal;
        journal.append(records::finding_record(sample_origin(), sample_finding())).value();
        for (int flow = 0; flow < 6; flow++) {
            const auto finding = sample_finding("203.0.113." + std::to_string(flow + 1));
            journal
                .append(records::flow_record(sample_origin(), finding.flow, finding.info, &finding.decision))
                .value();
        }
        records::Coverage coverage;
        coverage.from = sample_time(round * 10);
        coverage.to = sample_time(round * 10 + 10);
        coverage.engine = "ebpf";
        journal.append(records::coverage_record(sample_origin(), coverage)).value();
        REQUIRE(signed_journal.notary->checkpoint());
        if (round % 3 == 2) REQUIRE(signed_journal.notary->evolve());
    }
}

inline evidence::VerifyReport verify_with(const std::filesystem::path& journal, const std::string& vkey,
                                          const std::string* anchors = nullptr) {
    evidence::VerifyOptions options;
    options.journal = journal;
    options.genesis = *evidence::PublicKey::parse_vkey(vkey);
    if (anchors != nullptr) {
        options.anchors = evidence::find_anchors(*anchors);
        options.anchors_given = true;
    }
    auto report = evidence::verify_journal(options);
    if (!report) FAIL(report.error());
    return std::move(*report);
}

inline std::string problems_of(const evidence::VerifyReport& report) {
    std::string out;
    for (const auto& problem : report.problems)
        out += problem.file + " " + problem.code + ": " + problem.message + "\n";
    return out;
}

inline bool has_problem(const evidence::VerifyReport& report, const std::string& code) {
    for (const auto& problem : report.problems)
        if (problem.code == code) return true;
    return false;
}

// Leaf hashes of the lines as they stand now; the header stays.
inline void hash_again(const std::filesystem::path& segment) {
    auto path = segment;
    path.replace_extension(".hashes");
    const auto file = journal::read_hash_file(path);
    REQUIRE(file);
    const auto leaves = journal::hash_lines(segment, std::filesystem::file_size(segment));
    REQUIRE(leaves);
    REQUIRE(journal::write_hash_file(path, file->header, *leaves) == 0);
}

// What an attacker does who holds `key`: changes records by `edit`, then makes hashes, checkpoints and their
// signatures anew wherever a root changed.
inline void rebuild(const std::filesystem::path& directory, const evidence::SigningKey& key,
                    const std::function<void(std::string& line)>& edit) {
    std::vector<evidence::Hash> leaves;
    evidence::Frontier start;
    for (const auto& segment : journal::list_segments(directory)) {
        auto path = segment.path;
        path.replace_extension(".hashes");
        auto header = journal::read_hash_file(path)->header;
        header.frontier = start;
        auto lines = lines_of(segment.path);
        std::vector<evidence::Hash> own;
        for (auto& line : lines) {
            edit(line);
            if (journal::text_member(line, "kind") == "checkpoint") {
                auto record = records::Json::parse(line);
                auto checkpoint = *evidence::Checkpoint::parse(
                    evidence::parse_note(record["note"].get<std::string>())->text);
                evidence::Frontier tree;
                for (std::uint64_t i = 0; i < checkpoint.size; i++) tree.append(leaves[i]);
                if (tree.root() != checkpoint.root) {
                    checkpoint.root = tree.root();
                    record["root"] = evidence::to_base64(checkpoint.root);
                    record["note"] =
                        evidence::sign_note(checkpoint.text(), checkpoint.origin, key)->to_string();
                    line = record.dump(-1, ' ', true);
                }
            }
            own.push_back(evidence::leaf_hash(line));
            leaves.push_back(own.back());
            start.append(own.back());
        }
        write_lines(segment.path, lines);
        REQUIRE(journal::write_hash_file(path, header, own) == 0);
    }
}

}  // namespace egresswatch::testing
