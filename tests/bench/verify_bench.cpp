// tests/bench/verify_bench.cpp - how long `egresswatch verify` takes for a journal of N records, on one core.
// SPDX-License-Identifier: Apache-2.0
//
// usage: verify_bench DIRECTORY RECORDS. Writes a signed journal as the daemon would (flow records of 700
// bytes, a coverage record every thousand, a checkpoint every ten thousand), verifies it, removes it. Ten
// million records need 8 GB.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "agent/evidence/verifier.h"
#include "agent/journal/hash_file.h"
#include "agent/journal/segment.h"

using namespace egresswatch;
using namespace egresswatch::evidence;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t segment_bytes = 64ULL << 20;
constexpr const char* origin = "bench/egresswatch/0123456789abcdef";

std::string time_text(std::uint64_t second) {
    char out[40];
    std::snprintf(out, sizeof out, "2026-11-%02uT%02u:%02u:%02u.000000000Z",
                  static_cast<unsigned>(1 + second / 86400 % 28), static_cast<unsigned>(second / 3600 % 24),
                  static_cast<unsigned>(second / 60 % 60), static_cast<unsigned>(second % 60));
    return out;
}

std::string escaped(const std::string& note) {
    std::string out;
    for (const char c : note) out += c == '\n' ? std::string("\\n") : std::string(1, c);
    return out;
}

class Writer {
public:
    Writer(fs::path directory, const SigningKey& key) : directory_(std::move(directory)), key_(key) {}
    ~Writer() { close(); }

    void add(const std::string& kind_and_rest) {
        char head[160];
        std::snprintf(head, sizeof head, "{\"seq\":%llu,\"written\":\"%s\",\"nonce\":\"%016llx%016llx\",",
                      static_cast<unsigned long long>(seq_), time_text(seq_ / 100).c_str(),
                      static_cast<unsigned long long>(seq_ * 0x9E3779B97F4A7C15ULL),
                      static_cast<unsigned long long>(seq_ * 0xC2B2AE3D27D4EB4FULL));
        line_ = head;
        line_ += kind_and_rest;
        if (!out_.is_open() || bytes_ + line_.size() > segment_bytes) open();
        leaves_.push_back(leaf_hash(line_));
        tree_.append(leaves_.back());
        line_ += '\n';
        out_ << line_;
        bytes_ += line_.size();
        ++seq_;
    }
    void checkpoint() {
        const Checkpoint head{origin, tree_.size(), tree_.root(), {}};
        const auto note = sign_note(head.text(), origin, key_);
        add("\"kind\":\"checkpoint\",\"note\":\"" + escaped(note->to_string()) + "\"}");
    }

private:
    void open() {
        close();
        first_ = seq_;
        header_ = {origin, tree_};
        bytes_ = 0;
        out_.open(directory_ / journal::segment_name(seq_), std::ios::binary);
    }
    void close() {
        if (!out_.is_open()) return;
        out_.close();
        if (journal::write_hash_file(directory_ / journal::hash_file_name(first_), header_, leaves_) != 0)
            std::abort();
        leaves_.clear();
    }
    fs::path directory_;
    const SigningKey& key_;
    std::ofstream out_;
    journal::HashHeader header_;
    Frontier tree_;
    std::vector<Hash> leaves_;
    std::string line_;
    std::uint64_t seq_ = 1, first_ = 1, bytes_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return std::fputs("usage: verify_bench DIRECTORY RECORDS\n", stderr), 2;
    const fs::path directory = fs::path(argv[1]) / "verify-bench-journal";
    const std::uint64_t records = std::strtoull(argv[2], nullptr, 10);
    fs::create_directory(directory);
    const auto key = SigningKey::generate();
    const PublicKey genesis{origin, key->public_bytes()};
    const Checkpoint empty{origin, 0, empty_root(), link_extensions(0, key->public_bytes(), std::nullopt)};
    std::ofstream(directory / keys_file_name) << sign_note(empty.text(), origin, *key)->to_string();
    const std::string flow =
        "\"kind\":\"flow\",\"host\":\"bench\",\"version\":\"0\",\"ended\":true,\"flow\":{\"local\":\"198.51."
        "100.5\","
        "\"remote\":\"203.0.113.9\",\"pad\":\"" +
        std::string(430, 'x') + "\"}}";
    {
        Writer writer(directory, *key);
        writer.add("\"kind\":\"genesis\",\"origin\":\"" + std::string(origin) + "\"}");
        for (std::uint64_t i = 1; i < records; i++) {
            if (i % 10'000 == 0)
                writer.checkpoint();
            else if (i % 1'000 == 0)
                writer.add("\"kind\":\"coverage\",\"from\":\"" + time_text(i / 100 - 10) + "\",\"to\":\"" +
                           time_text(i / 100) + "\"}");
            else
                writer.add(flow);
        }
        writer.checkpoint();
    }
    std::printf("written; verifying\n");
    const std::clock_t start = std::clock();
    timespec wall_start{}, wall_end{};
    ::clock_gettime(CLOCK_MONOTONIC, &wall_start);
    const auto report =
        verify_journal({.journal = directory, .genesis = genesis, .anchors = {}, .progress = {}});
    ::clock_gettime(CLOCK_MONOTONIC, &wall_end);
    const double cpu = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    const double wall = static_cast<double>(wall_end.tv_sec - wall_start.tv_sec) +
                        static_cast<double>(wall_end.tv_nsec - wall_start.tv_nsec) / 1e9;
    std::uint64_t altered = 0;
    for (const auto& problem : report->problems) altered += problem.code == "missing-time" ? 0 : 1;
    std::printf(
        "%llu records, %.2f GB, %llu checkpoints: %.1f s, %.1f s of one core, %.2f us a record; %llu "
        "problems\n",
        static_cast<unsigned long long>(report->records), static_cast<double>(report->bytes) / 1e9,
        static_cast<unsigned long long>(report->logs[0].checkpoints), wall, cpu,
        cpu / static_cast<double>(records) * 1e6, static_cast<unsigned long long>(altered));
    fs::remove_all(directory);
    return altered == 0 && report->records >= records ? 0 : 1;
}
