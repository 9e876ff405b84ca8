// tests/netns/syslog_test.cpp - the journal and its syslog outputs against a real rsyslogd on loopback.
// SPDX-License-Identifier: Apache-2.0
//
// UDP, TCP (octet-counted and LF), TLS, RELP, RELP over TLS and a unix socket. TLS as such: tls_test.cpp.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "agent/outputs/output.h"
#include "tests/support/catch.h"
#include "tests/support/open_journal.h"
#include "tests/support/rsyslog.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using namespace std::chrono_literals;
using journal::Journal;
using outputs::Framing;
using outputs::Output;
using outputs::OutputConfig;
using Transport = outputs::TransportKind;
using records::BodyKind;
using records::Json;

namespace {

OutputConfig config_for(const Rsyslog& receiver, Transport transport) {
    OutputConfig config;
    config.name = "siem";
    config.transport = transport;
    config.address = transport == Transport::unix_datagram ? receiver.socket().string() : "127.0.0.1";
    config.port = transport == Transport::relp  ? receiver.relp_port
                  : transport == Transport::tls ? receiver.tls_port
                                                : receiver.port;
    config.backoff_min = 50ms;
    config.backoff_max = 500ms;
    config.cursor_interval = 50ms;
    return config;
}

Json odd_finding() {
    auto finding = sample_finding("2001:db8:77::9");
    finding.rule_id = "odd \"quotes\" [brackets] back\\slash";
    finding.title = "Overf\xC3\xB8ring\nut av regionen";
    return records::finding_record(sample_origin(), finding);
}

}  // namespace

TEST_CASE("every field arrives over every transport, framing and body", "[syslog][rsyslog]") {
    struct Way {
        Transport transport;
        Framing framing;
        BodyKind body;
    };
    const Way way = GENERATE(Way{Transport::udp, Framing::octet_counting, BodyKind::ecs},
                             Way{Transport::tcp, Framing::octet_counting, BodyKind::ecs},
                             Way{Transport::tcp, Framing::lf, BodyKind::text},
                             Way{Transport::unix_datagram, Framing::octet_counting, BodyKind::ecs},
                             Way{Transport::udp, Framing::octet_counting, BodyKind::text},
                             Way{Transport::tls, Framing::octet_counting, BodyKind::ecs},
                             Way{Transport::relp, Framing::octet_counting, BodyKind::ecs});
    CAPTURE(static_cast<int>(way.transport), static_cast<int>(way.framing), static_cast<int>(way.body));
    const TempDir dir;
    const Certificates certificates(dir.path() / "certificates");
    Rsyslog receiver(dir.path(), &certificates);
    auto journal = open_journal(dir);
    auto config = config_for(receiver, way.transport);
    if (way.transport == Transport::tls) config.tls.emplace().ca_file = certificates.ca();
    config.framing = way.framing;
    config.body = way.body;
    config.max_bytes = 4'000;
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    constexpr int total = 100;
    for (int i = 0; i < total; ++i) {
        journal->append(i == 50 ? odd_finding() : records::finding_record(sample_origin(), sample_finding()))
            .value();
        // UDP has no brake: a burst beyond the receiver's socket buffer is lost, so it gets ten at a time.
        if (way.transport == Transport::udp && i % 10 == 9)
            REQUIRE(
                eventually([&] { return receiver.messages().size() >= static_cast<std::size_t>(i + 2); }));
    }
    REQUIRE(eventually([&] { return receiver.messages().size() >= total + 1; }));
    output.stop();
    const auto messages = receiver.messages();
    REQUIRE(messages.size() == total + 1);
    for (int i = 0; i <= total; ++i) {  // number 1 is genesis
        const Json& message = messages[static_cast<std::size_t>(i)];
        REQUIRE(message["sd"]["egresswatch@32473"]["seq"] == std::to_string(i + 1));
        REQUIRE(message["sd"]["meta"]["sequenceid"] == std::to_string(i + 1));
    }
    const Json& plain = messages[1];
    CHECK(plain["pri"] == "163");
    CHECK(plain["version"] == "1");
    CHECK(plain["host"] == "web1.dub.example.org");
    CHECK(plain["app"] == "egresswatch");
    CHECK(plain["procid"] == std::to_string(::getpid()));
    CHECK(plain["msgid"] == "finding");
    CHECK(plain["time"] == "2026-11-23T12:00:00.123456Z");
    const Json& own = plain["sd"]["egresswatch@32473"];
    CHECK(own["rule"] == "bulk-to-outside");
    CHECK(own["level"] == "high");
    CHECK(own["country"] == "CN");
    CHECK(own["verdict"] == "not_allowed");
    CHECK(own["remote"] == "203.0.113.9");
    CHECK(own["bytes_out"] == "62914560");
    CHECK(own["initiator"] == "local");
    CHECK(own["site"] == "dublin");
    CHECK(own["community_id"].get<std::string>().starts_with("1:"));
    CHECK_FALSE(own.contains("cut"));
    CHECK(plain["sd"]["origin"]["software"] == "egresswatch");
    CHECK(plain["sd"]["timequality"]["tzknown"] == "1");
    const Json& odd = messages[51];
    CHECK(odd["sd"]["egresswatch@32473"]["rule"] == "odd \"quotes\" [brackets] back\\slash");
    CHECK(odd["sd"]["egresswatch@32473"]["remote"] == "2001:db8:77::9");
    const auto body = odd["msg"].get<std::string>();
    if (way.body == BodyKind::ecs) {
        const Json ecs = Json::parse(body, nullptr, false);
        REQUIRE(ecs.is_object());
        CHECK(ecs["rule"]["name"] == "Overf\xC3\xB8ring\nut av regionen");
        CHECK(ecs["destination"]["ip"] == "2001:db8:77::9");
        CHECK(ecs["event"]["sequence"] == 52);
    } else {
        CHECK(body.find("Overf\xC3\xB8ring\\x0aut av regionen") != std::string::npos);
    }
}

TEST_CASE("a message near the limit stays one message", "[syslog][rsyslog]") {
    const TempDir dir;
    Rsyslog receiver(dir.path());
    auto journal = open_journal(dir);
    auto config = config_for(receiver, Transport::tcp);
    config.framing = GENERATE(Framing::octet_counting, Framing::lf);
    config.max_bytes = outputs::message_bytes_limit;
    config.kinds = {"finding"};
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    constexpr int total = 60;
    for (int i = 0; i < total; ++i) {
        auto finding = sample_finding();
        finding.title = std::string(static_cast<std::size_t>(2'600 + 10 * i), 't');  // in name and in message
        journal->append(records::finding_record(sample_origin(), finding)).value();
    }
    REQUIRE(eventually([&] { return receiver.messages().size() >= total; }));
    output.stop();
    const auto seen = receiver.times_by_seq();
    CHECK(seen.size() == total);
    CHECK_FALSE(seen.contains(-1));
    std::size_t longest = 0;
    std::size_t cut = 0;
    for (const auto& message : receiver.messages()) {
        CHECK(Json::accept(message["msg"].get<std::string>()));
        longest = std::max(longest, message["msg"].get_ref<const std::string&>().size());
        cut += message["sd"]["egresswatch@32473"].contains("cut") ? 1 : 0;
    }
    CHECK(longest > 7'000);
    CHECK(cut > 0);
    CHECK(cut < total);
    CHECK(output.status().shortened == cut);
}

TEST_CASE("a receiver that is stopped and started loses nothing that TCP can keep", "[syslog][rsyslog]") {
    const TempDir dir;
    Rsyslog receiver(dir.path());
    auto journal = open_journal(dir);
    auto config = config_for(receiver, Transport::tcp);
    config.framing = GENERATE(Framing::octet_counting, Framing::lf);
    config.kinds = {"finding"};
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    constexpr int total = 600;
    std::thread producer([&] {
        for (int i = 0; i < total; ++i) {
            (void)journal->append(records::finding_record(sample_origin(), sample_finding()));
            std::this_thread::sleep_for(5ms);
        }
    });
    for (const int signal : {SIGTERM, SIGKILL}) {
        std::this_thread::sleep_for(700ms);
        receiver.end(signal);
        std::this_thread::sleep_for(400ms);
        receiver.start();
    }
    producer.join();
    REQUIRE(eventually([&] {
        const auto seen = receiver.times_by_seq();
        return !seen.empty() && seen.rbegin()->first == total + 1 && output.status().cursor_seq == total + 1;
    }));
    output.stop();
    const auto seen = receiver.times_by_seq();
    int missing = 0;
    int doubles = 0;
    for (int seq = 2; seq <= total + 1; ++seq) {
        const auto found = seen.find(seq);
        missing += found == seen.end() ? 1 : 0;
        doubles += found != seen.end() && found->second > 1 ? found->second - 1 : 0;
    }
    WARN(total << " findings, receiver stopped and killed: " << missing << " missing, " << doubles
               << " twice");
    // The resend window (2 s) is longer than what this receiver held unread: nothing may be missing here.
    CHECK(missing == 0);
    CHECK(doubles > 0);
    CHECK(output.status().retries >= 2);
}

TEST_CASE("of two receivers one is dead: the other one gets everything at once", "[syslog][rsyslog]") {
    const TempDir dir;
    const TempDir dead_dir;
    Rsyslog receiver(dir.path());
    Rsyslog dead_receiver(dead_dir.path());
    dead_receiver.end(SIGKILL);
    auto journal = open_journal(dir);
    auto dead_config = config_for(dead_receiver, Transport::tcp);
    dead_config.name = "dead";
    Output dead(dead_config, *journal, dir.path() / "cursors", sample_origin());
    Output good(config_for(receiver, Transport::unix_datagram), *journal, dir.path() / "cursors",
                sample_origin());
    REQUIRE(dead.start());
    REQUIRE(good.start());
    for (int i = 0; i < 200; ++i)
        journal->append(records::finding_record(sample_origin(), sample_finding())).value();
    CHECK(eventually([&] { return receiver.times_by_seq().size() == 201; }));
    CHECK(dead.status().lag_records == 201);
    CHECK(dead.status().sent == 0);
    dead_receiver.start();
    CHECK(eventually([&] { return dead_receiver.times_by_seq().size() == 201; }));
}
