// tests/journal_faults/journal_faults_test.cpp - every write and every sync of the journal fails once; power
// goes with sectors torn. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "agent/journal/journal.h"
#include "agent/journal/reader.h"
#include "tests/support/catch.h"
#include "tests/support/faulty_files.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using journal::Journal;
using journal::Json;
namespace fs = std::filesystem;

namespace {

journal::Config config_in(const fs::path& dir, const std::string& boot = "boot-1") {
    journal::Config config;
    config.directory = dir;
    config.origin = sample_origin();
    config.boot_id = boot;
    config.segment_bytes_max = 6'000;  // several segments in a test
    return config;
}

std::unique_ptr<Journal> open_or_fail(journal::Config config) {
    auto opened = Journal::open(std::move(config));
    if (!opened) FAIL(opened.error().to_string());
    return std::move(*opened);
}

Json note(int number, std::size_t padding) {
    return {{"kind", "flow"}, {"number", number}, {"padding", std::string(padding, 'x')}};
}

struct Kept {
    std::map<std::uint64_t, int> numbers;  // seq -> number of the note, 0 for other kinds
    std::uint64_t unjournaled = 0;         // as gap records tell
    bool in_doubt = false;                 // a gap record tells of a failed sync
    bool recovered = false;
    int damaged = 0;
    std::uint64_t last_seq = 0;
};

Kept read(const fs::path& dir) {
    Kept kept;
    auto reader = journal::Reader::of_directory(dir, 0);
    while (auto entry = reader->next()) {
        const Json record = Json::parse(entry->line, nullptr, false);
        if (record.is_discarded()) {  // torn in front of others that are whole: outputs count it as
                                      // undeliverable
            ++kept.damaged;
            continue;
        }
        const auto seq = record["seq"].get<std::uint64_t>();
        REQUIRE(seq > kept.last_seq);  // none twice, none out of order
        kept.last_seq = seq;
        kept.numbers[seq] = record.value("number", 0);
        if (record["kind"] == "recovery") kept.recovered = true;
        if (record["kind"] != "gap") continue;
        if (record["reason"] == "unjournaled") kept.unjournaled += record["records"].get<std::uint64_t>();
        if (record["reason"] == "not-durable") kept.in_doubt = true;
    }
    return kept;
}

struct Outcome {
    std::map<std::uint64_t, int> accepted;
    std::uint64_t refused = 0;
    bool commit_failed = false;
};

void append(Journal& journal, Outcome& outcome, int number) {
    if (const auto seq = journal.append(note(number, 700)))
        outcome.accepted[*seq] = number;
    else
        ++outcome.refused;
}

// Twelve records over several segments with a commit now and then, while something fails; then two more on
// whole files.
Outcome live_through(const fs::path& dir, FaultyFiles& files, const std::function<void()>& break_it) {
    Outcome outcome;
    auto journal = open_or_fail(config_in(dir));
    break_it();
    for (int i = 1; i <= 12; ++i) {
        append(*journal, outcome, i);
        if (i % 3 == 0 && !journal->commit()) outcome.commit_failed = true;
    }
    files.heal();
    append(*journal, outcome, 13);
    REQUIRE(journal->commit());
    append(*journal, outcome, 14);
    REQUIRE(journal->commit());
    CHECK(journal->status().state == "ok");
    CHECK(journal->status().unjournaled == outcome.refused);
    journal->stop();
    return outcome;
}

void check_nothing_lost(const fs::path& dir, const Outcome& outcome) {
    const Kept kept = read(dir);
    for (const auto& [seq, number] : outcome.accepted) {
        REQUIRE(kept.numbers.contains(seq));
        CHECK(kept.numbers.at(seq) == number);
    }
    CHECK(kept.unjournaled == outcome.refused);
    CHECK(kept.damaged == 0);
    auto again = open_or_fail(config_in(dir));
    const auto next = again->append(note(99, 10));
    REQUIRE(next);
    CHECK(*next > kept.last_seq);
    again->stop();
    CHECK_FALSE(read(dir).recovered);  // there was nothing to repair
}

}  // namespace

TEST_CASE("writes that take only a few bytes at a time lose nothing", "[journal][faults]") {
    for (const std::size_t bytes : {1U, 7U, 100U, 511U}) {
        const TempDir dir;
        FaultyFiles files(dir.path());
        const auto outcome = live_through(dir.path() / "journal", files, [&] { files.short_writes(bytes); });
        // The block of the sequence file is written as one or refused: that is told, and it is written again.
        CHECK(outcome.refused == 0);
        check_nothing_lost(dir.path() / "journal", outcome);
    }
}

TEST_CASE(
    "no room, or no disk, at any one of the writes: what was accepted is there, what was refused is counted",
    "[journal][faults]") {
    unsigned total = 0;
    std::uint64_t refused = 0;
    {
        const TempDir dir;
        FaultyFiles files(dir.path());
        unsigned opened = 0;
        (void)live_through(dir.path() / "journal", files, [&] { opened = files.writes(); });
        total = files.writes() - opened;
    }
    REQUIRE(total > 24);
    for (unsigned nth = 1; nth <= total; ++nth)
        for (const auto& [error, partial] : {std::pair<int, std::size_t>{ENOSPC, 0},
                                             {ENOSPC, 1},
                                             {ENOSPC, 400},
                                             {EIO, 0},
                                             {EROFS, 0}})  // the kernel's answer after a remount
            for (const unsigned count : {1U, 5U}) {
                INFO("write " << nth << ", error " << error << ", after " << partial << " bytes, " << count
                              << " times");
                const TempDir dir;
                FaultyFiles files(dir.path());
                const auto outcome = live_through(dir.path() / "journal", files, [&] {
                    files.fail_writes(nth, error, count + (partial != 0 ? 1 : 0), partial);
                });
                refused += outcome.refused;
                check_nothing_lost(dir.path() / "journal", outcome);
            }
    CHECK(refused > total);
}

TEST_CASE("a journal that is begun on a full disk begins with its genesis record all the same",
          "[journal][faults]") {
    int begun_late = 0;
    for (unsigned nth = 1; nth <= 6; ++nth) {
        INFO("write " << nth << " and four behind it");
        const TempDir dir;
        FaultyFiles files(dir.path());
        files.fail_writes(nth, ENOSPC, 5);
        auto opened = Journal::open(config_in(dir.path() / "journal"));
        if (!opened) continue;  // not even a number can be kept
        begun_late += (*opened)->status().last_seq == 0 ? 1 : 0;
        Outcome outcome;
        for (int i = 1; i <= 8; ++i) append(**opened, outcome, i);
        files.heal();
        append(**opened, outcome, 9);
        (*opened)->stop();
        check_nothing_lost(dir.path() / "journal", outcome);
        const auto first = journal::Reader::of_directory(dir.path() / "journal", 0)->next();
        REQUIRE(first);
        CHECK(Json::parse(first->line)["kind"] == "genesis");
    }
    CHECK(begun_late > 0);
}

TEST_CASE("any one of the syncs fails: the records in doubt are named, and the journal goes on",
          "[journal][faults]") {
    unsigned total = 0;
    {
        const TempDir dir;
        FaultyFiles files(dir.path());
        unsigned opened = 0;
        (void)live_through(dir.path() / "journal", files, [&] { opened = files.syncs(); });
        total = files.syncs() - opened;
    }
    REQUIRE(total >= 6);
    int in_doubt = 0;
    for (unsigned nth = 1; nth <= total; ++nth) {
        INFO("sync " << nth);
        const TempDir dir;
        FaultyFiles files(dir.path());
        const auto outcome =
            live_through(dir.path() / "journal", files, [&] { files.fail_syncs(nth, EIO, 1); });
        check_nothing_lost(dir.path() / "journal", outcome);
        const Kept kept = read(dir.path() / "journal");
        CHECK((!outcome.commit_failed || kept.in_doubt));
        in_doubt += kept.in_doubt ? 1 : 0;
    }
    CHECK(in_doubt >= 4);
}

TEST_CASE("power loss with torn sectors, 300 times: what was committed is there, numbers never return",
          "[journal][faults]") {
    int torn = 0;
    for (unsigned round = 0; round < 300; ++round) {
        INFO("round " << round);
        std::mt19937 chance(round);
        const TempDir dir;
        const TempDir image;
        std::map<std::uint64_t, int> written;
        std::uint64_t durable = 0;
        {
            FaultyFiles files(dir.path());
            auto journal = open_or_fail(config_in(dir.path() / "journal"));
            const int records = std::uniform_int_distribution(0, 25)(chance);
            for (int i = 1; i <= records; ++i) {
                const auto seq =
                    journal->append(note(i, std::uniform_int_distribution<std::size_t>(0, 2'000)(chance)));
                REQUIRE(seq);
                written[*seq] = i;
                if (std::bernoulli_distribution(0.3)(chance)) {
                    REQUIRE(journal->commit());
                    durable = *seq;
                }
            }
            files.power_loss(image.path(), chance);
        }
        fs::create_directories(image.path() / "journal");
        auto after = open_or_fail(config_in(image.path() / "journal", "boot-2"));
        const auto next = after->append(note(1'000, 10));
        REQUIRE(next);
        after->stop();
        const std::uint64_t given = written.empty() ? 1 : written.rbegin()->first;
        if (durable != 0) CHECK(*next > given);
        const Kept kept = read(image.path() / "journal");
        for (const auto& [seq, number] : written) {
            if (seq > durable) break;
            REQUIRE(kept.numbers.contains(seq));
            CHECK(kept.numbers.at(seq) == number);
        }
        torn += kept.recovered ? 1 : 0;
    }
    CHECK(torn > 100);
}
