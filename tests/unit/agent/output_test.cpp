// tests/unit/agent/output_test.cpp - one destination's life against sockets of the test's own. What a
// real rsyslogd makes of it: tests/netns/syslog_test.cpp. SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/output.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <set>
#include <thread>

#include "agent/daemon/record_writer.h"
#include "agent/unique_fd.h"
#include "tests/support/catch.h"
#include "tests/support/open_journal.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using namespace std::chrono_literals;
using journal::Journal;
using outputs::Output;
using outputs::OutputConfig;
using Transport = outputs::TransportKind;
using records::Json;

namespace {

Json finding(const char* level = "medium") {
    Json record = records::finding_record(sample_origin(), sample_finding());
    record["level"] = level;
    return record;
}

// A loopback socket on a port that the kernel chooses, or on `port` again.
class Receiver {
public:
    explicit Receiver(int type, std::uint16_t wanted_port = 0)
        : socket_(::socket(AF_INET, type | SOCK_CLOEXEC, 0)) {
        const int on = 1;
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(wanted_port);
        REQUIRE(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        if (type == SOCK_STREAM) REQUIRE(::listen(socket_.get(), 4) == 0);
        socklen_t size = sizeof address;
        ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
        port = ntohs(address.sin_port);
    }
    [[nodiscard]] int fd() const { return socket_.get(); }
    std::uint16_t port = 0;

private:
    UniqueFd socket_;
};

std::string receive(int fd, std::chrono::milliseconds timeout = 10s) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(timeout.count())) != 1) return {};
    std::string out(65'536, '\0');
    const auto got = ::recv(fd, out.data(), out.size(), 0);
    out.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return out;
}

// The `seq` parameters in what arrived.
std::vector<int> seqs_of(const std::string& stream) {
    std::vector<int> out;
    static const std::string key = "[egresswatch@32473 seq=\"";
    for (auto at = stream.find(key); at != std::string::npos; at = stream.find(key, at + 1))
        out.push_back(std::stoi(stream.substr(at + key.size())));
    return out;
}

OutputConfig config_for(Transport transport, std::uint16_t port) {
    OutputConfig config;
    config.name = "siem";
    config.transport = transport;
    config.address = "127.0.0.1";
    config.port = port;
    config.kinds = {"finding"};
    config.backoff_min = 20ms;
    config.backoff_max = 100ms;
    config.resend_window = 300ms;
    config.cursor_interval = 10ms;
    return config;
}

template <typename Condition>
bool eventually(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

}  // namespace

TEST_CASE("a finding leaves within milliseconds of its append", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_DGRAM);
    Output output(config_for(Transport::udp, receiver.port), *journal, dir.path() / "cursors",
                  sample_origin());
    REQUIRE(output.start());
    REQUIRE(eventually([&] { return output.status().state == "up"; }));
    std::vector<double> milliseconds;
    for (int i = 0; i < 21; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        const auto seq = journal->append(finding(i % 2 == 0 ? "medium" : "critical")).value();
        const auto message = receive(receiver.fd());
        milliseconds.push_back(
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
        CHECK(seqs_of(message) == std::vector<int>{static_cast<int>(seq)});
        CHECK(message.size() <= outputs::message_bytes_udp);
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    WARN("append to datagram, durable ones included: median " << milliseconds[10] << " ms, worst "
                                                              << milliseconds[20] << " ms");
    // Not a measurement (the latency test is): it must not wait for the group commit, which comes within a
    // second.
    CHECK(milliseconds[10] < 500);
}

TEST_CASE("level and kind choose what a destination gets", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_DGRAM);
    auto config = config_for(Transport::udp, receiver.port);
    config.kinds = {"finding", "stop"};
    config.level_min = records::Level::high;
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    journal->append(finding("medium")).value();
    journal->append(finding("high")).value();
    journal->append(records::gap_record(sample_origin(), {})).value();
    journal->append(records::stop_record(sample_origin(), "signal")).value();
    CHECK(seqs_of(receive(receiver.fd())) == std::vector<int>{3});
    CHECK(seqs_of(receive(receiver.fd())) == std::vector<int>{5});
    output.stop();
    CHECK(receive(receiver.fd(), 50ms).empty());
    CHECK(output.status().filtered == 3);  // genesis, medium, gap
    CHECK(output.status().sent == 2);
    CHECK(output.status().cursor_seq == 5);
    CHECK(output.status().lag_records == 0);
}

TEST_CASE("a restarted output goes on where the last one stopped", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_DGRAM);
    const auto config = config_for(Transport::udp, receiver.port);
    for (int round = 0; round < 3; ++round) {
        Output output(config, *journal, dir.path() / "cursors", sample_origin());
        REQUIRE(output.start());
        const auto seq = journal->append(finding()).value();
        const auto message = receive(receiver.fd());
        CHECK(seqs_of(message) == std::vector<int>{static_cast<int>(seq)});
        CHECK(message.find("sequenceId=\"1\"") != std::string::npos);
    }
    CHECK(receive(receiver.fd(), 50ms).empty());
}

TEST_CASE("a TCP receiver that resets is sent again what may not have arrived", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_STREAM);
    auto config = config_for(Transport::tcp, receiver.port);
    config.framing = GENERATE(outputs::Framing::octet_counting, outputs::Framing::lf);
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    std::vector<int> seen;
    constexpr int total = 60;
    std::thread producer([&] {
        for (int i = 0; i < total; ++i) {
            (void)journal->append(finding());
            std::this_thread::sleep_for(5ms);
        }
    });
    // Three receivers die with data unread (a reset), the fourth one stays.
    for (int life = 0; life < 4; ++life) {
        UniqueFd peer(::accept(receiver.fd(), nullptr, nullptr));
        std::string stream;
        while (life < 3 ? stream.size() < 8'000 : (seen.empty() || seen.back() != total + 1)) {
            const auto part = receive(peer.get(), 5s);
            if (part.empty()) break;
            stream += part;
            if (life == 3) seen = seqs_of(stream);
        }
        if (life == 3) break;
        const linger reset{1, 0};
        ::setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    producer.join();
    // The last receiver got everything from a point that the window covers to the end, in order.
    REQUIRE_FALSE(seen.empty());
    for (std::size_t i = 1; i < seen.size(); ++i) CHECK(seen[i] == seen[i - 1] + 1);
    CHECK(seen.back() == total + 1);
    const auto status = output.status();
    CHECK(status.retries >= 3);
    CHECK(status.resent > 0);
    CHECK(status.last_error.find("127.0.0.1:") != std::string::npos);
}

TEST_CASE("a dead destination delays nobody, and catches up when it lives", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver alive(SOCK_DGRAM);
    std::uint16_t dead_port = 0;
    { dead_port = Receiver(SOCK_STREAM).port; }
    auto dead_config = config_for(Transport::tcp, dead_port);
    dead_config.name = "dead";
    Output dead(dead_config, *journal, dir.path() / "cursors", sample_origin());
    Output good(config_for(Transport::udp, alive.port), *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(dead.start());
    REQUIRE(good.start());
    for (int i = 0; i < 100; ++i) {
        const auto seq = journal->append(finding()).value();
        REQUIRE(seqs_of(receive(alive.fd())) == std::vector<int>{static_cast<int>(seq)});
    }
    REQUIRE(eventually([&] { return dead.status().retries > 1; }));
    const auto status = dead.status();
    CHECK(status.sent == 0);
    CHECK(status.lag_records == 100);
    CHECK(status.lag_seconds > 0);
    CHECK(status.last_error.find("Connection refused") != std::string::npos);

    const Receiver back(SOCK_STREAM, dead_port);
    const UniqueFd peer(::accept(back.fd(), nullptr, nullptr));
    std::string stream;
    while (seqs_of(stream).size() < 100) {
        const auto part = receive(peer.get());
        REQUIRE_FALSE(part.empty());
        stream += part;
    }
    CHECK(seqs_of(stream).front() == 2);
    CHECK(seqs_of(stream).back() == 101);
    CHECK(eventually([&] { return dead.status().cursor_seq == 101; }));
}

TEST_CASE("a finding that the journal refused goes out directly, also after a reconnect", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const auto path = (dir.path() / "log").string();
    OutputConfig config = config_for(Transport::unix_datagram, 0);
    config.address = path;
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    output.deliver_unjournaled(finding("high"));                           // the receiver does not exist yet
    output.deliver_unjournaled(records::gap_record(sample_origin(), {}));  // not wanted here
    REQUIRE(eventually([&] { return output.status().errors > 0; }));
    const UniqueFd receiver(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    const auto message = receive(receiver.get());
    CHECK(message.find("[egresswatch@32473 seq=\"0\" unjournaled=\"1\" kind=\"finding\" level=\"high\"") !=
          std::string::npos);
    journal->append(finding()).value();
    CHECK(seqs_of(receive(receiver.get())) == std::vector<int>{2});
    CHECK(output.status().unjournaled_sent == 1);
}

TEST_CASE("unjournaled findings have an event.id of their own, the same at every receiver", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    journal->stop();  // refuses everything
    daemon::JournalWriter writer(sample_origin(), *journal);
    std::vector<std::unique_ptr<Receiver>> receivers;
    std::vector<std::unique_ptr<Output>> outputs;
    for (const char* name : {"siem", "other-site"}) {
        receivers.push_back(std::make_unique<Receiver>(SOCK_DGRAM));
        auto config = config_for(Transport::udp, receivers.back()->port);
        config.name = name;
        config.max_bytes = 8'000;
        outputs.push_back(
            std::make_unique<Output>(config, *journal, dir.path() / "cursors", sample_origin()));
        REQUIRE(outputs.back()->start());
        writer.add_output(outputs.back().get());
    }
    for (int i = 0; i < 3; ++i)
        CHECK_FALSE(writer.write(finding("high")));  // of one packet, as far as time tells
    std::vector<std::vector<std::string>> ids(2);
    for (std::size_t i = 0; i < receivers.size(); ++i)
        for (int n = 0; n < 3; ++n) {
            const auto message = receive(receivers[i]->fd());
            const auto at = message.find("\"id\":\"web1");
            REQUIRE(at != std::string::npos);
            ids[i].push_back(message.substr(at, message.find('"', at + 7) - at));
        }
    CHECK(ids[0] == ids[1]);
    CHECK(std::set<std::string>(ids[0].begin(), ids[0].end()).size() == 3);
}

TEST_CASE("the canary passes every filter by level", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_DGRAM);
    auto config = config_for(Transport::udp, receiver.port);
    config.level_min = records::Level::critical;
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    journal->append(finding("high")).value();
    Json canary = finding("low");
    canary["canary"] = true;
    journal->append(canary).value();
    CHECK(seqs_of(receive(receiver.fd())) == std::vector<int>{3});
}

TEST_CASE("a summary tells what the rate limit kept back, and the cursor waits for it", "[outputs]") {
    const TempDir dir;
    auto journal = open_journal(dir);
    const Receiver receiver(SOCK_DGRAM);
    auto config = config_for(Transport::udp, receiver.port);
    config.rate_limit = {1, 4};
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    for (int i = 0; i < 20; ++i) journal->append(finding("medium")).value();
    REQUIRE(output.start());
    std::vector<int> sent;
    while (sent.size() < 4)
        for (const int seq : seqs_of(receive(receiver.fd()))) sent.push_back(seq);
    CHECK(sent == std::vector<int>{2, 3, 4, 5});
    REQUIRE(eventually([&] { return output.status().rate_limited == 16; }));
    CHECK(output.status().cursor_seq < 6);
    output.stop();  // says it at the end, at the latest
    const auto summary = receive(receiver.fd());
    CHECK(summary.find(" summary [egresswatch@32473 seq=\"0\" kind=\"summary\" level=\"medium\"") !=
          std::string::npos);
    CHECK(summary.find("\"first_seq\":6") != std::string::npos);
    CHECK(summary.find("\"last_seq\":21") != std::string::npos);
    CHECK(output.status().cursor_seq == 21);
}

TEST_CASE("a destination's configuration is checked as a whole", "[outputs]") {
    OutputConfig config;
    config.name = "../x";
    config.max_bytes = 9'000;
    config.kinds = {"findings"};
    config.transport = Transport::udp;
    config.port = 0;
    CHECK(outputs::check(config).size() == 4);
    CHECK(outputs::parse_facility("local4") == 20);
    CHECK_FALSE(outputs::parse_facility("local8"));
    config = config_for(Transport::udp, 514);
    CHECK(outputs::check(config).empty());
}
