// tests/unit/agent/evidence_notary_test.cpp - the signed journal over restarts, crashes, loss and retention.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "agent/daemon/liveness.h"
#include "agent/evidence/prover.h"
#include "agent/journal/reader.h"
#include "tests/support/journal_lab.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using records::Json;
namespace fs = std::filesystem;

namespace {

std::vector<Json> read_all(const fs::path& state) {
    std::vector<Json> out;
    auto reader = journal::Reader::of_directory(state / "journal", 0);
    while (auto entry = reader->next()) out.push_back(Json::parse(entry->line));
    return out;
}

std::string genesis_of(const fs::path& state) {
    const auto chain = evidence::KeyChain::read(read_text(state / "journal/keys"), std::nullopt);
    REQUIRE_FALSE(chain.links.empty());
    return chain.links.front().public_key().vkey();
}

void check_good(const fs::path& state) {
    const auto report = verify_with(state / "journal", genesis_of(state));
    INFO(problems_of(report));
    CHECK(report.good());
}

// The last word of tools/verify-by-hand.py, which its exit status must repeat.
std::string by_hand(const fs::path& state, const std::string& anchors = {}) {
    const fs::path out = state / "by-hand";
    const std::string command = "python3 -B " EGRESSWATCH_SOURCE_DIR "/tools/verify-by-hand.py " +
                                (state / "journal").string() + " '" + genesis_of(state) + "' " + anchors +
                                " > " + out.string() + " 2>&1";
    const int status = std::system(command.c_str());
    const auto lines = lines_of(out);
    REQUIRE_FALSE(lines.empty());
    CHECK(WEXITSTATUS(status) == (lines.back() == "GOOD" ? 0 : 1));
    return lines.back();
}

std::size_t count_of(const std::vector<Json>& records, const std::string& kind) {
    return static_cast<std::size_t>(
        std::ranges::count_if(records, [&](const Json& record) { return record["kind"] == kind; }));
}

}  // namespace

TEST_CASE("one log goes on over clean restarts", "[evidence][notary]") {
    const TempDir dir;
    for (int run = 0; run < 3; run++) {
        SignedJournal written(dir.path());
        CHECK(written.notary->made_genesis() == (run == 0));
        CHECK(written.notary->take_events().empty());
        fill(written, 4, run * 4);
    }
    const auto records = read_all(dir.path());
    CHECK(count_of(records, "genesis") == 1);
    CHECK(count_of(records, "recovery") == 0);
    CHECK(records[0]["verifier_key"] == genesis_of(dir.path()));
    const auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    INFO(problems_of(report));
    CHECK(report.good());
    CHECK(report.logs.size() == 1);
    CHECK(report.logs[0].keys == 4);
}

TEST_CASE("a changed key is destroyed, and cannot sign any more", "[evidence][notary]") {
    const TempDir dir;
    SignedJournal written(dir.path());
    fill(written, 1);
    const auto old_text = read_text(dir.path() / "evidence/key");
    auto old_key = evidence::read_key(dir.path() / "evidence/key");
    REQUIRE(written.notary->evolve());
    CHECK(written.notary->status().generation == 1);
    for (const auto& entry : fs::directory_iterator(dir.path() / "evidence"))
        CHECK(read_text(entry.path()).find(old_text.substr(old_text.size() - 45)) == std::string::npos);
    CHECK_FALSE(fs::exists(dir.path() / "evidence/key.next"));
    CHECK((fs::status(dir.path() / "evidence/key").permissions() & fs::perms::mask) ==
          (fs::perms::owner_read | fs::perms::owner_write));
    fill(written, 1, 1);
    const auto head = written.journal->tree_head();
    const evidence::Checkpoint forged{head.origin, head.size, head.root, {}};
    const auto note = evidence::sign_note(forged.text(), forged.origin, old_key->key);
    written.journal
        ->append(records::checkpoint_record(sample_origin(),
                                            {forged.origin, forged.size, "", 0, note->to_string(), ""}))
        .value();
    written.stop();
    CHECK(has_problem(verify_with(dir.path() / "journal", genesis_of(dir.path())), "signature"));
}

TEST_CASE("a crash at any step of a change of key leaves a chain that goes on", "[evidence][notary][crash]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 3);  // the third round ends with a change of key
    }
    const auto keys = read_text(dir.path() / "evidence/keys");
    const auto chain = evidence::KeyChain::read(keys, std::nullopt);
    REQUIRE(chain.links.size() == 2);
    SECTION("the next key is written, the chain does not know it") {
        write_text(dir.path() / "evidence/key.next",
                   "egresswatch-key v1 2 0 " + std::string(43, 'A') + "=\n");
    }
    SECTION("the chain knows the next key, the old one is still there") {
        fs::rename(dir.path() / "evidence/key", dir.path() / "evidence/key.next");
        auto old = evidence::SigningKey::generate();
        REQUIRE(evidence::write_key(dir.path() / "evidence/key", {std::move(*old), 0, {}}) == 0);
    }
    SECTION("a note of the chain is torn") {
        write_text(dir.path() / "evidence/keys", keys + keys.substr(keys.size() - 80, 60));
    }
    SECTION("the auditors' copy is behind") {
        write_text(dir.path() / "journal/keys", chain.links[0].note);
    }
    {
        SignedJournal again(dir.path());
        CHECK(again.notary->take_events().empty());
        CHECK(again.notary->status().generation == 1);
        fill(again, 3, 3);
    }
    CHECK_FALSE(fs::exists(dir.path() / "evidence/key.next"));
    check_good(dir.path());
}

TEST_CASE("signed records that are gone are never signed over: a new log points at the old",
          "[evidence][notary]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 6);
        const auto sample = sample_finding();
        for (int i = 0; i < 3; i++)
            written.journal->append(records::flow_record(sample_origin(), sample.flow, sample.info, nullptr))
                .value();
    }
    const auto segments = journal::list_segments(dir.path() / "journal");
    const auto before = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    SECTION("the newest segments were deleted") {
        for (std::size_t i = segments.size() - 2; i < segments.size(); i++) {
            fs::remove(segments[i].path);
            fs::remove(dir.path() / "journal" / journal::hash_file_name(segments[i].first_seq));
        }
    }
    SECTION("the last records were cut off") {
        auto lines = lines_of(segments.back().path);
        lines.resize(lines.size() - 3);
        write_lines(segments.back().path, lines);
    }
    SECTION("a signed record was changed") {
        auto text = read_text(segments.back().path);
        REQUIRE(text.find("\"CN\"") != std::string::npos);
        text[text.find("\"CN\"") + 1] = 'X';
        write_text(segments.back().path, text);
    }
    SECTION("the whole journal was deleted") {
        fs::remove_all(dir.path() / "journal");
    }
    {
        SignedJournal again(dir.path());
        const auto events = again.notary->take_events();
        REQUIRE(events.size() == 1);
        CHECK(events[0].rule == "egresswatch/evidence-lost");
        fill(again, 3, 6);
    }
    const auto chain = evidence::KeyChain::read(read_text(dir.path() / "journal/keys"), std::nullopt);
    CHECK(chain.problem.empty());
    const auto link = std::ranges::find_if(chain.links, [](const auto& l) { return l.previous.has_value(); });
    REQUIRE(link != chain.links.end());
    CHECK(link->previous->origin == before.logs[0].origin);
    CHECK(link->previous->size >= before.logs[0].signed_size);
    const auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    INFO(problems_of(report));
    CHECK(has_problem(report, "signed-records-lost"));
    CHECK(report.logs.back().origin != before.logs[0].origin);
    CHECK(report.logs.back().checkpoints == 3);
    std::uint64_t last = 0;
    for (const auto& record : read_all(dir.path())) {
        CHECK(record["seq"] > last);
        last = record["seq"];
    }
}

TEST_CASE("a private key that is gone: a new genesis key, and somebody is told", "[evidence][notary]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 2);
    }
    const auto genesis = genesis_of(dir.path());
    fs::remove(dir.path() / "evidence/key");
    {
        SignedJournal again(dir.path());
        const auto events = again.notary->take_events();
        REQUIRE(events.size() == 2);  // the key, and the log that nobody can go on with
        CHECK(events[0].rule == "egresswatch/evidence-key-lost");
        CHECK(again.notary->made_genesis());
        fill(again, 2, 2);
    }
    CHECK(genesis_of(dir.path()) != genesis);
    CHECK(has_problem(verify_with(dir.path() / "journal", genesis), "key-chain"));
}

TEST_CASE("power loss at every byte behind the last checkpoint: one log, and verify finds nothing wrong",
          "[evidence][crash]") {
    const TempDir source;
    SignedJournal written(source.path(), 1 << 20);
    fill(written, 2);
    const auto original = journal::list_segments(source.path() / "journal").at(0).path;
    const std::size_t from =
        fs::file_size(original);  // all up to here is durable: the checkpoint waited for it
    records::Gap gap;
    gap.reason = "evaluation";
    written.journal->append(records::gap_record(sample_origin(), gap)).value();
    written.journal->append(records::gap_record(sample_origin(), gap)).value();
    const std::size_t to = fs::file_size(original);
    for (std::size_t size = from; size <= to; size += 7) {
        const TempDir crashed;
        fs::copy(source.path(), crashed.path(), fs::copy_options::recursive);
        fs::resize_file(crashed.path() / "journal" / original.filename(), size);
        CAPTURE(size, from, to);
        {
            SignedJournal again(crashed.path(), 1 << 20, "boot-2");
            REQUIRE(again.notary->take_events().empty());
            REQUIRE(again.notary->checkpoint());
        }
        const auto report = verify_with(crashed.path() / "journal", genesis_of(crashed.path()));
        INFO(problems_of(report));
        REQUIRE(report.good());
        REQUIRE(report.logs.size() == 1);
    }
}

TEST_CASE("kill -9 while it signs, fifteen times: one log, one chain", "[evidence][crash]") {
    const TempDir dir;
    for (int round = 0; round < 15; round++) {
        int progress[2];
        REQUIRE(::pipe2(progress, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                SignedJournal written(dir.path(), 8 * 1024);
                for (int i = 0;; i++) {
                    if (::write(progress[1], "x", 1) != 1) ::_exit(5);
                    if (!written.notary->take_events().empty()) ::_exit(3);
                    records::Gap gap;
                    gap.detail = std::string(static_cast<std::size_t>(i % 200), 'x');
                    (void)written.journal->append(records::gap_record(sample_origin(), gap));
                    if (i % 5 == 0) written.notary->checkpoint();
                    if (i % 17 == 0) written.notary->evolve();
                }
            } catch (...) {
                ::_exit(4);
            }
        }
        ::close(progress[1]);
        char byte = 0;
        for (int i = 0; i <= (round * 7) % 23; i++) REQUIRE(::read(progress[0], &byte, 1) == 1);
        ::kill(child, SIGKILL);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        ::close(progress[0]);
        REQUIRE(WIFSIGNALED(status));
    }
    SignedJournal(dir.path()).stop();
    const auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    INFO(problems_of(report));
    CHECK(report.good());
    CHECK(report.logs.size() == 1);
    CHECK(report.logs[0].keys > 3);
}

TEST_CASE("retention erases segments and keeps their hashes: the rest stays provable",
          "[evidence][retention]") {
    const TempDir dir;
    std::uint64_t erased_seq = 0;
    std::string line;
    {
        SignedJournal written(dir.path(), 8 * 1024, "boot-1",
                              [](journal::Config& config) { config.retention_bytes_max = 40 * 1024; });
        fill(written, 3);
        line = lines_of(journal::list_segments(dir.path() / "journal")[0].path).at(3);
        erased_seq = *journal::line_seq(line);
        fill(written, 12, 3);
    }
    CHECK(journal::list_segments(dir.path() / "journal")[0].first_seq > erased_seq);
    const auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    INFO(problems_of(report));
    CHECK(report.good());
    CHECK(report.erased > 20);
    CHECK(report.logs[0].first_index == 0);
    // Whoever has the erased record can still prove that it was there.
    auto proof = evidence::prove(dir.path() / "journal", erased_seq, std::nullopt);
    REQUIRE(proof);
    CHECK(proof->record.empty());
    proof->record = line;
    const auto chain = evidence::KeyChain::read(read_text(dir.path() / "journal/keys"), std::nullopt);
    CHECK(evidence::check_proof(*proof, chain));
    proof->record[20] ^= 1;
    CHECK_FALSE(evidence::check_proof(*proof, chain));
    // And a restart goes on.
    SignedJournal again(dir.path());
    CHECK(again.notary->take_events().empty());
}

TEST_CASE("an output that is behind: flows go before findings, all of it told, all of it provable",
          "[evidence][retention]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path(), 8 * 1024, "boot-1",
                              [](journal::Config& config) { config.retention_bytes_max = 60 * 1024; });
        const auto behind = written.journal->reader("siem", 0);
        fill(written, 14);
        CHECK(written.journal->status().records_thinned > 20);
        CHECK(written.journal->status().segments_deleted == 0);
    }
    const auto records = read_all(dir.path());
    CHECK(count_of(records, "finding") == 14);
    CHECK(count_of(records, "flow") < 6 * 14);
    const auto gap = std::ranges::find_if(records, [](const Json& record) {
        return record["kind"] == "gap" && record["reason"] == "retention";
    });
    REQUIRE(gap != records.end());
    CHECK((*gap)["outputs"] == Json::array({"siem"}));
    CHECK((*gap)["detail"].get<std::string>().find("flow records skipped") != std::string::npos);
    check_good(dir.path());
    { SignedJournal again(dir.path()); }
    check_good(dir.path());
    CHECK(by_hand(dir.path()) == "GOOD");
    // The gap record excuses as many records as it says, and not one more: say, the finding among them.
    const auto thinned = (*gap)["first_seq"].get<std::uint64_t>();
    const auto segment = dir.path() / "journal" / journal::segment_name(thinned);
    auto lines = lines_of(segment);
    REQUIRE(std::erase_if(lines, [](const std::string& line) {
                return journal::text_member(line, "kind") == "finding";
            }) != 0);
    write_lines(segment, lines);
    CHECK(has_problem(verify_with(dir.path() / "journal", genesis_of(dir.path())), "deleted"));
    CHECK(by_hand(dir.path()) == "BAD");
}

TEST_CASE("time that nobody accounts for is found, a gap record explains it", "[evidence][verify]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 2);
        fill(written, 2, 10);  // 80 seconds are missing
    }
    auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    REQUIRE(report.problems.size() == 1);
    CHECK(report.problems[0].code == "missing-time");
    {
        SignedJournal written(dir.path());
        records::Gap gap;
        gap.reason = "evaluation";
        gap.from = sample_time(20);
        gap.to = sample_time(100);
        written.journal->append(records::gap_record(sample_origin(), gap)).value();
    }
    check_good(dir.path());
}

TEST_CASE("a daemon that goes on living without coverage records is found, too", "[evidence][verify]") {
    const TempDir dir;
    const auto heartbeat_at = [](int second) {
        records::Json out = records::record_head(sample_origin(), "heartbeat", sample_time(second));
        out["uptime_s"] = second;
        return out;
    };
    SignedJournal written(dir.path());
    fill(written, 2);  // covers 20 seconds
    written.journal->append(heartbeat_at(130)).value();
    REQUIRE(written.notary->checkpoint());
    check_good(dir.path());
    written.journal->append(heartbeat_at(150)).value();
    REQUIRE(written.notary->checkpoint());
    const auto report = verify_with(dir.path() / "journal", genesis_of(dir.path()));
    REQUIRE(report.problems.size() == 1);
    CHECK(report.problems[0].code == "missing-time");
}

TEST_CASE("a record is proved towards every later checkpoint", "[evidence][prove]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 5);
    }
    const auto chain = evidence::KeyChain::read(read_text(dir.path() / "journal/keys"), std::nullopt);
    std::string last_note;
    for (const auto& record : read_all(dir.path()))
        if (record["kind"] == "checkpoint") last_note = record["note"].get<std::string>();
    for (std::uint64_t seq = 1; seq < 48; seq += 6) {
        for (const auto& towards : {std::optional<std::string>{}, std::optional(last_note)}) {
            const auto proof = evidence::prove(dir.path() / "journal", seq, towards);
            if (!proof) FAIL(proof.error());
            const auto again = evidence::Proof::parse(proof->text());
            REQUIRE(again);
            CHECK(journal::line_seq(again->record) == seq);
            CHECK(evidence::check_proof(*again, chain));
            auto moved = *again;
            moved.index ^= 1;
            CHECK_FALSE(evidence::check_proof(moved, chain));
        }
    }
    CHECK_FALSE(evidence::prove(dir.path() / "journal", 5'000, std::nullopt));
}

TEST_CASE("the script of docs/verify-by-hand.md agrees: a good journal, and a changed one",
          "[evidence][by-hand]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 7);
    }
    std::string anchors;
    for (const auto& record : read_all(dir.path()))
        if (record["kind"] == "checkpoint") anchors += record["note"].get<std::string>();
    write_text(dir.path() / "anchors", anchors);
    CHECK(by_hand(dir.path(), (dir.path() / "anchors").string()) == "GOOD");
    const auto segment = journal::list_segments(dir.path() / "journal")[1].path;
    auto text = read_text(segment);
    text[text.find("\"CN\"") + 1] = 'D';
    write_text(segment, text);
    hash_again(segment);
    CHECK(by_hand(dir.path(), (dir.path() / "anchors").string()) == "BAD");
}

TEST_CASE("ten times the records take ten times as long to verify, not more", "[evidence][verify]") {
    const auto seconds_of = [](int rounds) {
        const TempDir dir;
        {
            SignedJournal written(dir.path(), 1 << 20);
            auto flow = sample_finding();
            const Json record = records::flow_record(sample_origin(), flow.flow, flow.info, &flow.decision);
            for (int i = 0; i < rounds; i++) written.journal->append(record).value();
        }
        double best = 1e9;
        for (int run = 0; run < 3; run++) {
            const auto start = std::clock();
            REQUIRE(verify_with(dir.path() / "journal", genesis_of(dir.path())).good());
            best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
        }
        return best;
    };
    const double small = seconds_of(3'000), large = seconds_of(30'000);
    std::printf("  verify: %.2f us a record\n", large / 30'000 * 1e6);
    CHECK(large < 25 * small);
}

TEST_CASE("a journal of every kind is valid by the shipped JSON Schema", "[records][schema]") {
    const TempDir dir;
    {
        SignedJournal written(dir.path());
        fill(written, 3);
        auto& journal = *written.journal;
        auto tunnelled = sample_finding();
        tunnelled.flow.key.tunnel = datapath::TUNNEL_VXLAN;
        records::Gap gap;
        gap.reason = "unjournaled";
        gap.from = sample_time(0);
        gap.first_seq = 1;
        records::PolicyEvent rejected;
        rejected.event = "rejected";
        Json long_finding = records::finding_record(sample_origin(), tunnelled);
        long_finding["details"] = {{"text", std::string(70'000, 'x')}};
        for (const Json& record :
             {records::finding_record(sample_origin(), tunnelled),
              records::policy_record(sample_origin(), rejected), records::gap_record(sample_origin(), gap),
              records::recovery_record(sample_origin(), {}), long_finding,
              daemon::heartbeat_record(sample_origin(), {}), records::stop_record(sample_origin(), "signal")})
            journal.append(record).value();
    }
    const std::string command =
        std::string("python3 -B " EGRESSWATCH_SOURCE_DIR "/tests/support/journal_schema.py ") +
        (dir.path() / "journal").string() + " > " + (dir.path() / "out").string() + " 2>&1";
    const int status = std::system(command.c_str());
    const std::string out = read_text(dir.path() / "out");
    INFO(out);
    CHECK(WEXITSTATUS(status) == 0);
    for (const auto kind : records::kinds)
        CHECK(out.find("\"" + std::string(kind) + "\"") != std::string::npos);
}
