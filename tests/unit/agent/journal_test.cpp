// tests/unit/agent/journal_test.cpp - append, read, rotate, forget: real files, a clock of the test's own.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/journal.h"

#include <fcntl.h>
#include <poll.h>

#include <fstream>
#include <thread>

#include "agent/journal/hash_file.h"
#include "agent/journal/reader.h"
#include "agent/journal/sector_file.h"
#include "agent/journal/segment.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using journal::Journal;
using journal::Json;
using journal::Urgency;

namespace {

journal::Config config_in(const TempDir& dir) {
    journal::Config config;
    config.directory = dir.path() / "journal";
    config.origin = sample_origin();
    config.boot_id = "boot-1";
    return config;
}

std::unique_ptr<Journal> open_or_fail(journal::Config config) {
    auto opened = Journal::open(std::move(config));
    if (!opened) FAIL(opened.error().to_string());
    return std::move(*opened);
}

Json note(int number, std::size_t padding = 0) {
    Json record;
    record["kind"] = "flow";
    record["number"] = number;
    if (padding != 0) record["padding"] = std::string(padding, 'x');
    return record;
}

std::vector<Json> read_all(const std::filesystem::path& directory) {
    std::vector<Json> out;
    auto reader = journal::Reader::of_directory(directory, 0);
    while (auto entry = reader->next()) out.push_back(Json::parse(entry->line));
    CHECK(reader->damaged_lines() == 0);
    return out;
}

}  // namespace

TEST_CASE("a new journal begins with genesis and numbers every record", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    auto written = open_or_fail(config);
    CHECK(written->append(note(1)).value() == 2);
    CHECK(written->append(note(2)).value() == 3);
    written->stop();
    CHECK_FALSE(written->append(note(3)).has_value());
    const auto records = read_all(config.directory);
    REQUIRE(records.size() == 3);
    CHECK(records[0]["kind"] == "genesis");
    CHECK(records[0]["host"] == "web1.dub.example.org");
    CHECK(records[2]["seq"] == 3);
    CHECK(records[2]["number"] == 2);
    CHECK(records[2]["time"] == records[2]["written"]);
}

TEST_CASE("a clean stop leaves no recovery record, and numbers go on", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    open_or_fail(config)->append(note(1)).value();
    config.boot_id = "boot-2";  // a reboot after a clean stop is no crash
    auto again = open_or_fail(config);
    CHECK(again->append(note(2)).value() == 3);
    again->stop();
    const auto records = read_all(config.directory);
    CHECK(records.size() == 3);
    CHECK(records.back()["kind"] == "flow");
}

TEST_CASE("two journals never share a directory", "[journal]") {
    const TempDir dir;
    auto first = open_or_fail(config_in(dir));
    auto second = Journal::open(config_in(dir));
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().operation == "lock");
    CHECK(second.error().to_string().find("another egresswatchd") != std::string::npos);
    first->stop();
    CHECK(Journal::open(config_in(dir)).has_value());
}

TEST_CASE("a segment is closed when it is full, and readers follow over the border", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    config.segment_bytes_max = 4'096;
    auto written = open_or_fail(config);
    auto reader = written->reader("tail", 0);
    std::uint64_t seen = 0;
    for (int i = 0; i < 200; ++i) {
        written->append(note(i, 100)).value();
        while (auto entry = reader->next()) CHECK(entry->seq == ++seen);
    }
    CHECK(seen == 201);
    CHECK_FALSE(reader->take_missing());
    const auto files = journal::list_segments(config.directory);
    CHECK(files.size() > 8);
    for (const auto& file : files) CHECK(std::filesystem::file_size(file.path) <= config.segment_bytes_max);
    CHECK(files[0].path.filename() == "seg-00000000000000000001.jsonl");
    reader->seek(50);
    CHECK(reader->next()->seq == 51);
    CHECK(reader->next()->seq == 52);
    reader->seek(150);
    CHECK(reader->next()->seq == 151);
    CHECK(read_all(config.directory).size() == 201);
}

TEST_CASE("a new day begins a new segment", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    Timestamp now = *records::parse_time("2026-11-23T23:59:59.000000000Z");
    config.clock = [&now] { return now; };
    auto written = open_or_fail(config);
    written->append(note(1)).value();
    CHECK(journal::list_segments(config.directory).size() == 1);
    now += std::chrono::seconds{2};
    written->append(note(2)).value();
    const auto files = journal::list_segments(config.directory);
    REQUIRE(files.size() == 2);
    CHECK(files[1].first_seq == 3);
}

TEST_CASE("retention erases whole old segments, and says so of each, with who had not delivered it",
          "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    Timestamp now = *records::parse_time("2026-11-23T12:00:00.000000000Z");
    config.clock = [&now] { return now; };
    config.segment_bytes_max = 4'096;
    config.retention_age = std::chrono::hours{48};
    auto written = open_or_fail(config);
    auto slow = written->reader("siem", 0);
    auto unnamed = written->reader("", 0);
    for (int i = 0; i < 100; ++i) written->append(note(i, 200)).value();
    const auto before = journal::list_segments(config.directory);
    REQUIRE(before.size() > 4);
    const std::uint64_t delivered = before[2].first_seq + 3;  // two segments and a bit
    slow->delivered(delivered);
    now += std::chrono::hours{47};
    REQUIRE(written->commit());
    CHECK(journal::list_segments(config.directory).size() == before.size());  // not old enough by an hour
    now += std::chrono::hours{2};
    REQUIRE(written->commit());
    const auto after = journal::list_segments(config.directory);
    // The gap records began a new day; that segment, the one being written, stays.
    CHECK(after.front().first_seq == 102);
    written->stop();
    std::uint64_t gone = 0;
    for (const auto& record : read_all(config.directory)) {
        if (record["kind"] != "gap") continue;
        const bool everywhere = record["last_seq"] <= delivered;
        CHECK(record["reason"] == "retention");
        CHECK(record["outputs"] == (everywhere ? Json::array() : Json::array({"siem"})));
        CHECK(record["level"] == (everywhere ? "info" : "medium"));
        CHECK(record["first_seq"] == 1 + gone);
        gone += record["records"].get<std::uint64_t>();
    }
    CHECK(gone == 101);
    for (std::size_t i = 0; i < before.size(); i++) {
        const std::uint64_t next_seq = i + 1 < before.size() ? before[i + 1].first_seq : 102;
        const auto hashes =
            journal::read_hash_file(config.directory / journal::hash_file_name(before[i].first_seq));
        REQUIRE(hashes);
        CHECK(hashes->count == next_seq - before[i].first_seq);
    }
    // A reader that wanted them is told.
    unnamed->seek(0);
    const auto next = unnamed->next();
    REQUIRE(next);
    const auto missing = unnamed->take_missing();
    REQUIRE(missing);
    CHECK(missing->first == 1);
    CHECK(missing->last == next->seq - 1);
}

TEST_CASE("retention by size keeps the newest segments", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    config.segment_bytes_max = 4'096;
    config.retention_bytes_max = 3 * 4'096;
    auto written = open_or_fail(config);
    for (int i = 0; i < 200; ++i) written->append(note(i, 200)).value();
    REQUIRE(written->commit());
    CHECK(written->status().bytes <= config.retention_bytes_max);
    CHECK(written->status().segments >= 2);
    CHECK(written->status().segments_deleted > 5);
}

TEST_CASE("an immediate record is read when it is durable, a normal one when it is written", "[journal]") {
    const TempDir dir;
    auto written = open_or_fail(config_in(dir));  // no committing thread: the test commits
    auto reader = written->reader("out", 1);
    written->append(note(1)).value();
    CHECK(reader->next()->seq == 2);
    written->append(note(2), Urgency::immediate).value();
    written->append(note(3)).value();
    CHECK_FALSE(reader->next());
    REQUIRE(written->commit());
    CHECK(reader->next()->seq == 3);
    CHECK(reader->next()->seq == 4);
}

TEST_CASE("the committing thread makes immediate records durable within milliseconds and wakes readers",
          "[journal]") {
    const TempDir dir;
    auto written = open_or_fail(config_in(dir));
    written->start();
    auto reader = written->reader("out", 1);
    CHECK_FALSE(reader->next());
    const auto begin = std::chrono::steady_clock::now();
    written->append(note(1), Urgency::immediate).value();
    pollfd wait{reader->wake_fd(), POLLIN, 0};
    std::optional<journal::Entry> entry;
    while (!(entry = reader->next())) REQUIRE(::poll(&wait, 1, 5'000) == 1);
    CHECK(entry->seq == 2);
    CHECK(std::chrono::steady_clock::now() - begin <
          std::chrono::milliseconds{900});  // not the group commit's second
    CHECK_FALSE(reader->next());
    CHECK(::poll(&wait, 1, 0) == 0);  // nothing new: no busy loop
    while (written->status().durable_seq < 2) std::this_thread::yield();
}

TEST_CASE("normal records are durable within the commit interval", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    config.commit_interval = std::chrono::milliseconds{50};
    auto written = open_or_fail(config);
    written->start();
    const auto seq = written->append(note(1)).value();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
    while (written->status().durable_seq < seq && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
    CHECK(written->status().durable_seq == seq);
}

TEST_CASE("a record that is too long loses members in the stated order, and says which", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    auto written = open_or_fail(config);
    Json record = note(1);
    record["detail"] = std::string(40'000, 'd');
    record["interfaces"] = std::string(40'000, 'i');
    record["losses"] = 1;
    written->append(record).value();
    record = note(2, 70'000);  // nothing to drop but everything
    record["level"] = "low";
    written->append(record).value();
    CHECK(written->status().lines_cut == 2);
    written->stop();
    const auto records = read_all(config.directory);
    CHECK(records[1]["cut"] == Json::array({"detail"}));
    CHECK(records[1].contains("interfaces"));
    CHECK(records[1]["number"] == 1);
    CHECK(records[2]["cut"] == Json::array({"*"}));
    CHECK(records[2]["kind"] == "flow");
    CHECK(records[2]["level"] == "low");
    std::ifstream file(journal::list_segments(config.directory)[0].path);
    for (std::string line; std::getline(file, line);) CHECK(line.size() <= journal::line_bytes_max);
}

TEST_CASE("what is no record is refused without a number", "[journal]") {
    const TempDir dir;
    auto written = open_or_fail(config_in(dir));
    CHECK(written->append(Json::array()).error().error == EINVAL);
    CHECK(written->append(Json{{"seq", 7}}).error().error == EINVAL);
    CHECK(written->status().unjournaled == 0);
    CHECK(written->append(note(1)).value() == 2);
}

TEST_CASE("four writers and two readers: every number once, in order", "[journal]") {
    const TempDir dir;
    auto config = config_in(dir);
    config.segment_bytes_max = 64 * 1024;
    auto written = open_or_fail(config);
    written->start();
    constexpr int each = 2'000;
    constexpr std::uint64_t last = 4 * each + 1;
    std::vector<std::thread> threads;
    for (int writer = 0; writer < 4; ++writer)
        threads.emplace_back([&written, writer] {
            for (int i = 0; i < each; ++i)
                (void)written->append(note(i), i % 500 == writer ? Urgency::immediate : Urgency::normal);
        });
    std::vector<std::uint64_t> wrong(2, 0);
    for (std::size_t index = 0; index < 2; ++index)
        threads.emplace_back([&written, &wrong, index] {
            auto reader = written->reader("r" + std::to_string(index), 0);
            std::uint64_t seen = 0;
            while (seen < last) {
                if (auto entry = reader->next()) {
                    if (entry->seq != ++seen || !Json::accept(entry->line)) ++wrong[index];
                    continue;
                }
                pollfd wait{reader->wake_fd(), POLLIN, 0};
                if (::poll(&wait, 1, 10'000) != 1) {
                    ++wrong[index];
                    return;
                }
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong[0] == 0);
    CHECK(wrong[1] == 0);
    CHECK(written->last_seq() == last);
}

TEST_CASE("a sector file keeps its fields, and damage is found", "[journal]") {
    const TempDir dir;
    const auto path = dir.path() / "cursor";
    {
        auto file = journal::SectorFile::open(path);
        REQUIRE(file);
        CHECK(file->fields().empty());
        CHECK(file->write({{"seq", "12"}, {"boot", "x"}}) == 0);
        CHECK(file->sync() == 0);
    }
    CHECK(std::filesystem::file_size(path) == journal::SectorFile::bytes);
    CHECK(journal::number_field(journal::SectorFile::open(path)->fields(), "seq") == 12);
    {
        std::fstream file(path, std::ios::in | std::ios::out);
        file.seekp(40);
        file.put('9');
    }
    auto damaged = journal::SectorFile::open(path);
    CHECK(damaged->damaged());
    CHECK(damaged->fields().empty());
}
