// tests/reliability/delivery_feeder.cpp - the delivering half of the daemon in a process of its own: journal
// and outputs of a real configuration, fed with findings at a given rate, to be killed at will.
// SPDX-License-Identifier: Apache-2.0
//
//   delivery_feeder DIR CONFIG.yaml --rate N --total N [--backlog-hours N]
//
// Appends findings until the journal holds `total` of them (over all lives), and ends when every output has
// delivered everything. With --backlog-hours the findings are written first, at times spread over so many
// hours (the journal's clock is a fast one), and only then the outputs start: the end of an outage.
// DIR/status is rewritten ten times a second: counters of the outputs. SIGTERM stops as the daemon does.
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "agent/daemon/config.h"
#include "agent/journal/journal.h"
#include "agent/journal/reader.h"
#include "agent/outputs/output.h"
#include "tests/support/sample_finding.h"

using namespace egresswatch;
using namespace std::chrono_literals;
using records::Json;

namespace {

std::atomic<bool> stop_wanted{false};

struct Options {
    std::filesystem::path dir;
    std::filesystem::path config;
    double rate = 500;
    std::uint64_t total = 1'000;
    int backlog_hours = 0;
};

Options parse(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr,
                     "usage: delivery_feeder DIR CONFIG.yaml [--rate N] [--total N] [--backlog-hours N]\n");
        std::exit(2);
    }
    Options options;
    options.dir = argv[1];
    options.config = argv[2];
    for (int i = 3; i + 1 < argc; i += 2) {
        if (std::strcmp(argv[i], "--rate") == 0) options.rate = std::atof(argv[i + 1]);
        if (std::strcmp(argv[i], "--total") == 0) options.total = std::strtoull(argv[i + 1], nullptr, 10);
        if (std::strcmp(argv[i], "--backlog-hours") == 0) options.backlog_hours = std::atoi(argv[i + 1]);
    }
    return options;
}

std::uint64_t findings_in(const std::filesystem::path& journal) {
    std::uint64_t count = 0;
    const auto reader = journal::Reader::of_directory(journal, 0);
    while (const auto entry = reader->next())
        if (entry->line.find(",\"kind\":\"finding\"") != std::string::npos) ++count;
    return count;
}

using Outputs = std::vector<std::unique_ptr<outputs::Output>>;

bool write_status(const std::filesystem::path& dir, const Outputs& outputs, std::uint64_t last_seq) {
    Json status;
    status["last_seq"] = last_seq;
    status["outputs"] = Json::object();
    bool all = true;
    for (const auto& output : outputs) {
        const auto now = output->status();
        all = all && now.cursor_seq == last_seq;
        status["outputs"][now.name] = outputs::to_json(now);
    }
    std::ofstream(dir / "status.new") << status.dump();
    std::filesystem::rename(dir / "status.new", dir / "status");
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGTERM, [](int) { stop_wanted = true; });
    auto config = daemon::load_config(options.config);
    if (!config) {
        std::fprintf(stderr, "%s: %s\n", options.config.c_str(), config.error().front().message.c_str());
        return 2;
    }
    std::uint64_t written = findings_in(options.dir / "journal");
    std::atomic<std::int64_t> simulated_ns{0};
    const auto begin = testing::sample_time(0);
    journal::Config journal_config;
    journal_config.directory = options.dir / "journal";
    journal_config.origin = testing::sample_origin();
    if (options.backlog_hours != 0)
        journal_config.clock = [&] { return begin + std::chrono::nanoseconds{simulated_ns.load()}; };
    auto opened = journal::Journal::open(std::move(journal_config));
    if (!opened) {
        std::fprintf(stderr, "%s\n", opened.error().to_string().c_str());
        return 1;
    }
    auto journal = std::move(*opened);
    journal->start();
    Json finding = records::finding_record(testing::sample_origin(), testing::sample_finding());
    finding["level"] = "medium";  // group commit, as most findings
    if (options.backlog_hours != 0) {
        const auto step = std::chrono::nanoseconds{std::chrono::hours{options.backlog_hours}} /
                          static_cast<std::int64_t>(options.total);
        for (; written < options.total; ++written) {
            (void)journal->append(finding);
            simulated_ns += step.count();
        }
        std::ofstream(options.dir / "backlog-written") << "1";
    }
    Outputs outputs;
    for (auto& output : config->outputs) {
        output.backoff_min = 100ms;  // faults come faster here than in the field
        output.backoff_max = 1s;
        output.cursor_interval = 200ms;
        outputs.push_back(std::make_unique<outputs::Output>(output, *journal, options.dir / "cursors",
                                                            testing::sample_origin()));
        if (auto started = outputs.back()->start(); !started) {
            std::fprintf(stderr, "%s\n", started.error().to_string().c_str());
            return 1;
        }
    }
    auto next = std::chrono::steady_clock::now();
    auto status_at = next;
    while (!stop_wanted) {
        const auto now = std::chrono::steady_clock::now();
        if (written < options.total && now >= next) {
            if (journal->append(finding)) ++written;
            next += std::chrono::nanoseconds{static_cast<std::int64_t>(1e9 / options.rate)};
        }
        if (now >= status_at) {
            status_at = now + 100ms;
            const bool all = write_status(options.dir, outputs, journal->last_seq());
            if (all && written >= options.total) break;
        }
        std::this_thread::sleep_until(written < options.total ? std::min(next, status_at) : status_at);
    }
    for (auto& output : outputs) output->stop();
    write_status(options.dir, outputs, journal->last_seq());
    journal->stop();
    return 0;
}
