// tests/unit/agent/journal_crash_test.cpp - the journal after power loss, kill -9, damage and a full disk.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <sstream>

#include "agent/journal/journal.h"
#include "agent/journal/reader.h"
#include "agent/journal/segment.h"
#include "tests/support/catch.h"
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
    config.directory = dir / "journal";
    config.origin = sample_origin();
    config.boot_id = boot;
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

std::vector<Json> read_all(const fs::path& directory) {
    std::vector<Json> out;
    auto reader = journal::Reader::of_directory(directory / "journal", 0);
    while (auto entry = reader->next()) out.push_back(Json::parse(entry->line));
    return out;
}

// What a crash leaves: a copy of the files of a journal that is still open. The lock does not come along.
void copy_state(const fs::path& from, const fs::path& to) {
    fs::create_directories(to / "journal");
    for (const auto& entry : fs::directory_iterator(from / "journal"))
        fs::copy_file(entry.path(), to / "journal" / entry.path().filename(),
                      fs::copy_options::overwrite_existing);
}

void check_numbers_rise(const std::vector<Json>& records) {
    std::uint64_t last = 0;
    for (const auto& record : records) {
        CHECK(record["seq"].get<std::uint64_t>() > last);
        last = record["seq"].get<std::uint64_t>();
    }
}

const Json* last_of_kind(const std::vector<Json>& records, const std::string& kind) {
    const Json* found = nullptr;
    for (const auto& record : records)
        if (record["kind"] == kind) found = &record;
    return found;
}

}  // namespace

TEST_CASE("power loss at every byte of the last records: the complete ones survive, no number returns",
          "[journal][crash]") {
    const TempDir source;
    auto written = open_or_fail(config_in(source.path()));
    for (int i = 0; i < 6; ++i) written->append(note(i)).value();
    const auto original = journal::list_segments(source.path() / "journal").at(0).path;
    std::ifstream file(original, std::ios::binary);
    std::stringstream buffer;
    buffer << file.rdbuf();
    const std::string content = buffer.str();

    std::size_t from = content.size() - 1;  // the start of the last but two
    for (int lines = 0; lines < 3; ++lines) from = content.rfind('\n', from - 1);
    for (std::size_t size = from + 1; size <= content.size(); ++size) {
        const TempDir crashed;
        copy_state(source.path(), crashed.path());
        const auto segment = crashed.path() / "journal" / original.filename();
        fs::resize_file(segment, size);
        const auto whole = static_cast<std::uint64_t>(
            std::count(content.begin(), content.begin() + static_cast<long>(size), '\n'));
        const std::size_t end = content.rfind('\n', size - 1) + 1;
        CAPTURE(size, whole);
        auto again = open_or_fail(config_in(crashed.path(), "boot-2"));
        const auto seq = again->append(note(100)).value();
        again->stop();
        const auto records = read_all(crashed.path());
        REQUIRE(records.size() == whole + 2);
        check_numbers_rise(records);
        CHECK(seq > 7);  // seven numbers had been given out before
        const Json& recovery = records[whole];
        CHECK(recovery["kind"] == "recovery");
        CHECK(recovery["cut_bytes"] == size - end);
        CHECK(recovery["cut_at"] == end);
        CHECK(recovery["last_seq"] == whole);
        CHECK(recovery["host_restarted"] == true);
        CHECK(recovery["lost_first_seq"] == whole + 1);
        CHECK(recovery["lost_last_seq"] == recovery["seq"].get<std::uint64_t>() - 1);
    }
}

TEST_CASE("a file that grew but was never filled is cut at its last record", "[journal][crash]") {
    const TempDir source;
    const TempDir crashed;
    {
        auto written = open_or_fail(config_in(source.path()));
        for (int i = 0; i < 3; ++i) written->append(note(i)).value();
        copy_state(source.path(), crashed.path());
    }
    const auto segment = journal::list_segments(crashed.path() / "journal").at(0).path;
    const auto size = fs::file_size(segment);
    fs::resize_file(segment, size + 5'000);  // zeros, as ext4 leaves them
    open_or_fail(config_in(crashed.path(), "boot-2"))->stop();
    const auto records = read_all(crashed.path());
    CHECK(records.size() == 5);
    CHECK((*last_of_kind(records, "recovery"))["cut_bytes"] == 5'000);
    CHECK(fs::file_size(segment) == size);
}

TEST_CASE("damage in front of readable records is left alone, named, and skipped by readers",
          "[journal][crash]") {
    const TempDir source;
    const TempDir crashed;
    {
        auto written = open_or_fail(config_in(source.path()));
        for (int i = 0; i < 5; ++i) written->append(note(i)).value();
        copy_state(source.path(), crashed.path());
    }
    const auto segment = journal::list_segments(crashed.path() / "journal").at(0).path;
    const auto size = fs::file_size(segment);
    {
        std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
        std::string line;
        std::getline(file, line);
        std::getline(file, line);
        file.seekp(static_cast<long>(file.tellg()) + 2);
        file << "####";
    }
    open_or_fail(config_in(crashed.path()))->stop();
    CHECK(fs::file_size(segment) >= size);
    const auto records = read_all(crashed.path());
    CHECK(records.size() == 6);  // 1 2 4 5 6 and the recovery
    CHECK((*last_of_kind(records, "recovery"))["damaged_lines"] == 1);
    CHECK((*last_of_kind(records, "recovery"))["cut_bytes"] == 0);
    check_numbers_rise(records);
}

TEST_CASE("a journal whose segments were deleted goes on behind the numbers that were used",
          "[journal][crash]") {
    const TempDir dir;
    {
        auto written = open_or_fail(config_in(dir.path()));
        for (int i = 0; i < 5; ++i) written->append(note(i)).value();
    }
    for (const auto& file : journal::list_segments(dir.path() / "journal")) fs::remove(file.path);
    open_or_fail(config_in(dir.path()))->stop();
    const auto records = read_all(dir.path());
    REQUIRE(records.size() == 2);
    CHECK(records[0]["kind"] == "genesis");  // nothing is left that a log could go on from
    CHECK(records[0]["seq"] == 7);
    CHECK(records[1]["kind"] == "recovery");
    CHECK(records[1]["lost_last_seq"] == 6);
}

TEST_CASE("a segment without one complete record does not stand in the way", "[journal][crash]") {
    const TempDir dir;
    {
        auto written = open_or_fail(config_in(dir.path()));
        written->append(note(1)).value();
    }
    std::ofstream(dir.path() / "journal" / journal::segment_name(3)) << "{\"seq\":3,\"wri";
    auto again = open_or_fail(config_in(dir.path()));
    CHECK(again->append(note(2)).value() == 4);
    again->stop();
    const auto records = read_all(dir.path());
    CHECK(records.size() == 4);
    CHECK((*last_of_kind(records, "recovery"))["cut_bytes"] == 13);
}

TEST_CASE("kill -9 of a writer, forty times: what it had been told is there, numbers never return",
          "[journal][crash]") {
    const TempDir dir;
    std::uint64_t confirmed = 0;
    for (int round = 0; round < 40; ++round) {
        int pipe_fds[2];
        REQUIRE(::pipe2(pipe_fds, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        if (child == 0) {
            auto config = config_in(dir.path());
            config.segment_bytes_max = 32 * 1024;
            auto opened = Journal::open(config);
            if (!opened) ::_exit(3);
            (*opened)->start();
            for (int i = 0;; ++i) {
                const auto seq = (*opened)->append(note(i, static_cast<std::size_t>(i % 300)));
                if (!seq || ::write(pipe_fds[1], &*seq, sizeof *seq) != sizeof *seq) ::_exit(4);
            }
        }
        ::close(pipe_fds[1]);
        std::uint64_t seq = 0;
        for (int i = 0; i < 20 + 37 * (round % 11); ++i) {
            REQUIRE(::read(pipe_fds[0], &seq, sizeof seq) == sizeof seq);
            REQUIRE(seq > confirmed);
            confirmed = seq;
        }
        ::kill(child, SIGKILL);
        while (::read(pipe_fds[0], &seq, sizeof seq) == sizeof seq) {
            REQUIRE(seq > confirmed);
            confirmed = seq;
        }
        ::close(pipe_fds[0]);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE(WIFSIGNALED(status));
    }
    open_or_fail(config_in(dir.path()))->stop();
    const auto records = read_all(dir.path());
    std::uint64_t expected = 0;
    std::size_t recoveries = 0;
    for (const auto& record : records) {
        if (record["seq"] != ++expected) FAIL("number " << expected << " is missing: " << record.dump());
        if (record["kind"] == "recovery") ++recoveries;
    }
    CHECK(expected > confirmed);
    CHECK(recoveries == 40);
}

TEST_CASE("a file that may not grow: the append says so, a gap record follows when it may",
          "[journal][crash]") {
    const TempDir dir;
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
    auto written = open_or_fail(config_in(dir.path()));
    written->append(note(1)).value();
    rlimit small = old;
    small.rlim_cur = 1'000;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    int refused = 0;
    for (int i = 0; i < 10; ++i) refused += written->append(note(i, 200)).has_value() ? 0 : 1;
    const auto failing = written->status();
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(refused >= 6);
    CHECK(failing.state == "failing");
    CHECK(failing.unjournaled == static_cast<std::uint64_t>(refused));
    CHECK(failing.last_error.find("File too large") != std::string::npos);
    REQUIRE(written->commit());  // the gap does not wait for the next record
    CHECK(written->status().state == "ok");
    written->append(note(99)).value();
    written->stop();
    const auto records = read_all(dir.path());
    check_numbers_rise(records);
    const Json* gap = last_of_kind(records, "gap");
    REQUIRE(gap != nullptr);
    CHECK((*gap)["reason"] == "unjournaled");
    CHECK((*gap)["records"] == refused);
    CHECK(records.size() == 2 + 10 - static_cast<std::size_t>(refused) + 2);
}

TEST_CASE("a daemon killed while nothing can be written: the next one tells what was refused",
          "[journal][crash]") {
    const TempDir dir;
    const TempDir next;
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
    auto written = open_or_fail(config_in(dir.path()));
    rlimit small = old;
    small.rlim_cur = 1'000;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    std::uint64_t refused = 0;
    for (int i = 0; i < 10; ++i) refused += written->append(note(i, 600)).has_value() ? 0 : 1;
    (void)written->commit();
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(refused == 10);
    copy_state(dir.path(), next.path());
    for (int life = 0; life < 2; ++life) {  // and the one after it does not tell again
        open_or_fail(config_in(next.path()))->stop();
        std::uint64_t told = 0;
        for (const auto& record : read_all(next.path())) {
            if (record["kind"] != "gap") continue;
            CHECK(record["reason"] == "unjournaled");
            CHECK(record["from"] <= record["to"]);
            CHECK(record["detail"].get<std::string>().find("File too large") != std::string::npos);
            told += record["records"].get<std::uint64_t>();
        }
        CHECK(told == refused);
    }
    written->stop();
}

TEST_CASE("a full disk: refused, counted, and whole again when space returns", "[journal][crash][root]") {
    const TempDir dir;
    if (::geteuid() != 0) {
        WARN("not run: mounting a small tmpfs needs root");
        return;
    }
    REQUIRE(::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=256k") == 0);
    struct Unmount {
        const fs::path& path;
        ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
    } const unmount{dir.path()};
    {
        auto written = open_or_fail(config_in(dir.path()));
        const fs::path filler = dir.path() / "filler";
        {
            std::ofstream fill(filler, std::ios::binary);
            const std::string block(4'096, 'f');
            while (fill.write(block.data(), 4'096).flush()) {
            }
        }
        std::size_t kept = 0;
        std::size_t refused = 0;
        for (int i = 0; i < 50; ++i) ++(written->append(note(i, 1'000)).has_value() ? kept : refused);
        CHECK(refused >= 45);
        CHECK(written->status().last_error.find("No space left") != std::string::npos);
        fs::remove(filler);
        written->append(note(100)).value();
        CHECK(written->status().state == "ok");
        written->stop();
        const auto records = read_all(dir.path());
        check_numbers_rise(records);
        const Json* gap = last_of_kind(records, "gap");
        REQUIRE(gap != nullptr);
        CHECK((*gap)["records"] == refused);
        CHECK(records.size() == 1 + kept + 2);
    }
    auto again = open_or_fail(config_in(dir.path()));  // and the next start finds nothing to repair
    again->stop();
    CHECK(last_of_kind(read_all(dir.path()), "recovery") == nullptr);
}
