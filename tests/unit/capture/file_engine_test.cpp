// tests/unit/capture/file_engine_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/file_engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/support/capture_file.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using namespace egresswatch::capture;
using egresswatch::test::Bytes;
using egresswatch::test::CaptureFile;

namespace {

constexpr std::uint32_t link_raw = 101;

Bytes udp(std::uint32_t client, bool reply) {
    Bytes packet(28);
    packet[0] = 0x45;
    packet[3] = 60;
    packet[9] = 17;
    const std::uint8_t ours[4] = {192, 0, static_cast<std::uint8_t>(client >> 8),
                                  static_cast<std::uint8_t>(client)};
    const std::uint8_t theirs[4] = {198, 51, 100, 1};
    std::memcpy(&packet[12], reply ? theirs : ours, 4);
    std::memcpy(&packet[16], reply ? ours : theirs, 4);
    packet[reply ? 20 : 22] = 35;
    packet[reply ? 22 : 20] = 117;
    return packet;
}

CaptureFile many(std::size_t packets) {
    CaptureFile file;
    file.pcap_header(link_raw);
    for (std::size_t i = 0; i < packets; ++i)
        file.pcap_record(static_cast<std::uint32_t>(1000 + i / 500), static_cast<std::uint32_t>(i % 500),
                         udp(static_cast<std::uint32_t>(i * 7919 % 700), i % 3 == 0));
    return file;
}

// A temporary file, deleted with it.
struct TempFile {
    std::string path = "/tmp/egresswatch-file-engine-XXXXXX";
    explicit TempFile(const Bytes& bytes) {
        const int fd = mkstemp(path.data());
        REQUIRE(fd >= 0);
        REQUIRE(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
        close(fd);
    }
    ~TempFile() { (void)unlink(path.c_str()); }
};

struct Recorder final : FlowSink {
    std::string lines;
    void on_flow_updates(std::span<const FlowUpdate> updates, Timestamp now) noexcept override {
        lines += std::to_string(now.time_since_epoch().count()) + "\n";
        for (const FlowUpdate& u : updates)
            lines += u.local().to_string() + " " + u.remote().to_string() + " " +
                     std::to_string(u.total.bytes_out) + " " + std::to_string(u.delta.packets_in) + " " +
                     std::to_string(static_cast<int>(u.reason)) + "\n";
    }
};

struct Outcome {
    std::string lines;
    std::uint64_t seen = 0;
    std::uint64_t packets = 0;
    std::string damage;
};

Outcome run(const std::string& path, FileEngineOptions options) {
    Outcome out;
    // Who sent first decides the direction: the hardest to keep equal.
    auto engine =
        FileEngine::open(path, {.idle_timeout = std::chrono::seconds(2), .local_networks = {}}, options);
    REQUIRE(engine);
    Recorder sink;
    REQUIRE((*engine)->start(sink));
    while (!(*engine)->finished()) (void)(*engine)->poll(std::chrono::milliseconds(50));
    (*engine)->stop();
    out.lines = std::move(sink.lines);
    const TotalsSnapshot totals = (*engine)->totals();
    for (const auto& direction : totals.interfaces[0].totals.by_direction) out.seen += direction.seen.packets;
    out.packets = (*engine)->progress().packets;
    if ((*engine)->damage()) out.damage = (*engine)->damage()->to_string();
    return out;
}

}  // namespace

TEST_CASE("a file gives the same updates and totals on any number of cores", "[capture][file]") {
    const TempFile file(many(20000).bytes);
    const Outcome one = run(file.path, {});
    CHECK(one.seen == 20000);
    for (const unsigned jobs : {2u, 3u, 7u}) {
        const Outcome several = run(file.path, {.jobs = jobs});
        CHECK(several.lines == one.lines);
        CHECK(several.seen == one.seen);
        CHECK(several.packets == one.packets);
    }
}

TEST_CASE("a damaged file is counted up to the damage on any number of cores, and says where it is",
          "[capture][file]") {
    CaptureFile whole = many(5000);
    const std::size_t good = whole.bytes.size();
    whole.u32(1).u32(2).u32(0x7fffffff).u32(60);
    const TempFile file(whole.bytes);
    for (const unsigned jobs : {1u, 2u, 4u}) {
        const Outcome outcome = run(file.path, {.jobs = jobs});
        CHECK(outcome.seen == 5000);
        CHECK(outcome.damage.find("damaged at byte " + std::to_string(good) + ":") != std::string::npos);
    }
}

TEST_CASE("a file that shrinks between two windows ends there, with an error", "[capture][file]") {
    constexpr std::size_t packets = 400000;  // 17 MB: more than two windows
    const TempFile file(many(packets).bytes);
    auto engine = FileEngine::open(file.path, {});
    REQUIRE(engine);
    Recorder sink;
    REQUIRE((*engine)->start(sink));
    REQUIRE((*engine)->poll({}));
    // Behind the first window, which stays whole.
    REQUIRE(truncate(file.path.c_str(), static_cast<off_t>(ByteSource::window_bytes + 4096)) == 0);
    while (!(*engine)->finished()) (void)(*engine)->poll({});
    (*engine)->stop();
    REQUIRE((*engine)->damage());
    CHECK((*engine)->damage()->kind == FileError::Kind::cut_off);
    CHECK((*engine)->progress().packets > 100000);
    CHECK((*engine)->progress().packets < packets);
}

TEST_CASE("packets are due as their time stamps say, at a speed", "[capture][file]") {
    using namespace std::chrono_literals;
    Pacer pacer(10);
    const Pacer::Clock::time_point now{};
    const Pacer::PacketTime first(1000s);
    CHECK(pacer.due(first, now) == now);
    CHECK(pacer.due(first + 20s, now + 1s) == now + 2s);
    CHECK(pacer.due(first - 20s, now + 1s) < now);
    CHECK(pacer.due(Pacer::PacketTime::max(), now) > now + std::chrono::hours(24 * 365));
    // The engine waits so long, and gives the same as without a speed.
    CaptureFile capture;
    capture.pcap_header(link_raw);
    for (std::uint32_t i = 0; i < 3; ++i) capture.pcap_record(1000 + i, 0, udp(1, false));
    const TempFile file(capture.bytes);
    const auto begin = Pacer::Clock::now();
    const Outcome paced = run(file.path, {.speed = 10});
    CHECK(Pacer::Clock::now() - begin >= 200ms);
    CHECK(paced.seen == 3);
    CHECK(paced.lines == run(file.path, {}).lines);
}
