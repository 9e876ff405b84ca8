// tests/corpus/corpus_test.cpp - every capture through the user-space engine, frame by frame against tshark.
//
// Three things are held for each capture:
//   1. each frame's outcome, innermost five-tuple and IP bytes are tshark's, but for what differences.tsv
//   lists
//      with a reason; a listed difference that does not occur is an error too;
//   2. the flows that the engine reports are exactly the sums of those frames;
//   3. every frame is in exactly one outcome, and the interface counters say so.
// Another collection of captures with the same layout is compared when EGRESSWATCH_CAPTURES names its folder
// (EGRESSWATCH_DIFFERENCES its list; without one any difference fails).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "capture/pcap/file_reader.h"
#include "capture/userspace/file_engine.h"
#include "classifier/link_type.h"
#include "tests/corpus/oracle.h"
#include "tests/support/catch.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::test;
namespace fs = std::filesystem;

struct Corpus {
    fs::path captures;
    fs::path oracle;
    fs::path differences;
};

Corpus corpus() {
    const fs::path here = fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus";
    const char* other = std::getenv("EGRESSWATCH_CAPTURES");
    const char* list = std::getenv("EGRESSWATCH_DIFFERENCES");
    if (other == nullptr) return {here / "captures", here / "oracle", here / "differences.tsv"};
    return {other, fs::path(other) / "oracle", list != nullptr ? list : ""};
}

// Relative paths of all captures that have an oracle, sorted.
std::vector<std::string> capture_names(const Corpus& where) {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(where.oracle)) {
        const std::string suffix = ".packets.tsv";
        std::string name = fs::relative(entry.path(), where.oracle).string();
        if (!name.ends_with(suffix)) continue;
        name.resize(name.size() - suffix.size());
        if (fs::exists(where.captures / name)) names.push_back(std::move(name));
    }
    std::sort(names.begin(), names.end());
    return names;
}

struct NullSink final : FlowSink {
    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
};

// Sums of both directions of every flow, from the last update of each; and from all deltas, which must agree.
struct RouteSink final : FlowSink {
    Routes ended;
    Routes deltas;
    bool time_went_back = false;
    Timestamp latest{};

    static void add(Routes& routes, const FlowUpdate& update, const FlowCounters& counters) {
        const Route out{update.local(), update.remote(), update.key.l4_proto, update.local_port(),
                        update.remote_port()};
        const Route in{out.destination, out.source, out.l4_proto, out.destination_port, out.source_port};
        if (counters.packets_out > 0) {
            routes[out].packets += counters.packets_out;
            routes[out].ip_bytes += counters.bytes_out;
        }
        if (counters.packets_in > 0) {
            routes[in].packets += counters.packets_in;
            routes[in].ip_bytes += counters.bytes_in;
        }
    }
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override {
        time_went_back = time_went_back || now < latest;
        latest = now;
        for (const FlowUpdate& update : updates) {
            if (update.reason == UpdateReason::ended) add(ended, update, update.total);
            add(deltas, update, update.delta);
        }
    }
};

FrameStatus status_of(datapath::outcome outcome) {
    switch (outcome) {
        case datapath::OUTCOME_NOT_IP:
            return FrameStatus::not_ip;
        case datapath::OUTCOME_MALFORMED:
            return FrameStatus::malformed;
        case datapath::OUTCOME_TRUNCATED:
            return FrameStatus::truncated;
        default:
            return FrameStatus::counted;
    }
}

Frame frame_of(const PacketVerdict& verdict, std::uint32_t wire_bytes) {
    Frame frame;
    frame.status = status_of(verdict.outcome);
    frame.frame_bytes = wire_bytes;
    if (frame.status != FrameStatus::counted) return frame;
    const auto& key = verdict.key;
    const Address local = Address::from_bytes(key.local_addr);
    const Address remote = Address::from_bytes(key.remote_addr);
    const auto local_port = datapath::host16(key.local_port);
    const auto remote_port = datapath::host16(key.remote_port);
    frame.route = verdict.direction == datapath::DIRECTION_OUT
                      ? Route{local, remote, key.l4_proto, local_port, remote_port}
                      : Route{remote, local, key.l4_proto, remote_port, local_port};
    frame.ip_bytes = verdict.ip_bytes;
    return frame;
}

struct Walked {
    std::vector<Frame> frames;
    std::uint64_t counted = 0, not_ip = 0, malformed = 0, truncated = 0, seen = 0;
};

// One packet at a time, for its verdict.
Walked walk_frames(const fs::path& path) {
    Walked walked;
    auto reader = capture::FileReader::open(path.string());
    if (!reader) return walked;
    FlowTable table({.track_all = true});
    NullSink sink;
    for (;;) {
        const auto batch = reader->next_batch();
        if (!batch || batch->empty()) break;
        for (const auto& record : *batch) {
            PacketInput input;
            input.bytes = record.bytes;
            input.wire_bytes = record.wire_bytes;
            input.at_ns = record.at_ns;
            input.link = record.link;
            table.account({&input, 1}, sink);
            walked.frames.push_back(frame_of(table.last_verdict(), record.wire_bytes));
        }
    }
    for (const auto& direction : table.interface_totals()[0].by_direction) {
        walked.seen += direction.seen.packets;
        walked.not_ip += direction.outcome[datapath::OUTCOME_NOT_IP].packets;
        walked.malformed += direction.outcome[datapath::OUTCOME_MALFORMED].packets;
        walked.truncated += direction.outcome[datapath::OUTCOME_TRUNCATED].packets;
        for (int kind = 0; kind < datapath::KIND_COUNT; ++kind)
            walked.counted += direction.outcome[kind].packets;
    }
    return walked;
}

Routes sum(const std::vector<Frame>& frames) {
    Routes routes;
    for (const Frame& frame : frames) {
        if (frame.status != FrameStatus::counted) continue;
        Volume& volume = routes[frame.route];
        ++volume.packets;
        volume.ip_bytes += frame.ip_bytes;
    }
    return routes;
}

// The frames on which we and tshark differ, by kind of difference, with one example each for the reader.
struct Comparison {
    std::set<Difference> found;
    std::string example;
};

Comparison compare(const std::string& name, const std::vector<Frame>& ours,
                   const std::vector<OracleFrame>& theirs) {
    Comparison result;
    if (ours.size() != theirs.size())
        result.found.insert(
            {name, "frames", std::to_string(ours.size()) + "/" + std::to_string(theirs.size())});
    std::map<std::string, std::vector<std::size_t>> by_kind;
    for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
        const Frame& expected = theirs[i].frame;
        const char* kind = nullptr;
        if (!theirs[i].agrees_on_status(ours[i].status))
            kind = "status";
        else if (ours[i].status != FrameStatus::counted)
            continue;
        else if (ours[i].route != expected.route)
            kind = "route";
        else if (ours[i].ip_bytes != expected.ip_bytes)
            kind = "bytes";
        if (kind == nullptr) continue;
        auto& frames = by_kind[kind];
        frames.push_back(i + 1);
        if (frames.size() > 3) continue;
        const auto tell = [](const Frame& frame) {
            return std::string(status_name(frame.status)) + " " +
                   (frame.status == FrameStatus::counted
                        ? frame.route.to_string() + " " + std::to_string(frame.ip_bytes) + " B"
                        : "");
        };
        result.example += std::string("  frame ") + std::to_string(i + 1) + " " + kind + ": ours " +
                          tell(ours[i]) + ", tshark's " +
                          (theirs[i].undecodable ? "undecodable" : tell(expected)) + " [" + theirs[i].chain +
                          "] " + theirs[i].flags + "\n";
    }
    for (const auto& [kind, frames] : by_kind) result.found.insert({name, kind, frame_ranges(frames)});
    return result;
}

}  // namespace

TEST_CASE("every capture agrees with tshark, but for the differences that are listed with a reason",
          "[corpus]") {
    const Corpus where = corpus();
    const auto listed =
        where.differences.empty() ? std::map<Difference, std::string>{} : read_differences(where.differences);
    const auto names = capture_names(where);
    REQUIRE(names.size() > 0);
    std::set<Difference> found;
    for (const auto& name : names) {
        const Walked walked = walk_frames(where.captures / name);
        auto theirs = read_oracle(where.oracle / (name + ".packets.tsv"));
        for (const auto& [difference, reason] : listed)
            if (difference.capture == name && difference.what == "no packet" &&
                drop_rows(theirs, difference.frames))
                found.insert(difference);
        const auto compared = compare(name, walked.frames, theirs);
        found.insert(compared.found.begin(), compared.found.end());
        std::string unlisted;
        for (const auto& difference : compared.found)
            if (!listed.contains(difference))
                unlisted += difference.capture + "\t" + difference.what + "\t" + difference.frames + "\n";
        INFO("not in differences.tsv:\n" << unlisted << compared.example);
        CHECK(unlisted.empty());
        INFO(name);
        CHECK(walked.seen == walked.frames.size());
        CHECK(walked.seen == walked.counted + walked.not_ip + walked.malformed + walked.truncated);
    }
    for (const auto& [difference, reason] : listed) {
        INFO("listed, but does not occur: " << difference.capture << " " << difference.what << " "
                                            << difference.frames);
        CHECK(found.contains(difference));
    }
}

TEST_CASE("the flows of every capture are the sums of its frames, however small the table starts",
          "[corpus]") {
    const Corpus where = corpus();
    for (const auto& name : capture_names(where)) {
        const Walked walked = walk_frames(where.captures / name);
        const Routes expected = sum(walked.frames);
        for (const std::uint32_t slots : {64u, 4096u}) {
            auto engine = capture::FileEngine::open((where.captures / name).string(),
                                                    {.slots_start = slots, .track_all = true});
            if (!engine) continue;
            RouteSink sink;
            REQUIRE((*engine)->start(sink));
            while (!(*engine)->finished()) (void)(*engine)->poll({});
            (*engine)->stop();
            INFO(name);
            CHECK(sink.ended == expected);
            CHECK(sink.deltas == expected);
            CHECK_FALSE(sink.time_went_back);
            CHECK((*engine)->totals().losses[datapath::LOSS_FLOWS_FULL] == 0);
        }
    }
}
