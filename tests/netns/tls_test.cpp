// tests/netns/tls_test.cpp - whom an output trusts, against a real rsyslogd: syslog over TLS and RELP over
// TLS. SPDX-License-Identifier: Apache-2.0
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
using outputs::Output;
using outputs::OutputConfig;
using outputs::OutputStatus;
using outputs::TransportKind;

namespace {

OutputConfig config_for(const Rsyslog& receiver, TransportKind transport, const Certificates& certificates) {
    OutputConfig config;
    config.name = "siem";
    config.transport = transport;
    config.address = "127.0.0.1";
    config.port = transport == TransportKind::tls ? receiver.tls_port : receiver.relp_tls_port;
    config.kinds = {"finding"};
    config.backoff_min = 20ms;
    config.backoff_max = 200ms;
    config.cursor_interval = 20ms;
    config.tls.emplace().ca_file = certificates.ca();
    return config;
}

// What becomes of one finding: delivered, or the connection's error.
OutputStatus attempt(const TempDir& dir, Rsyslog& receiver, const OutputConfig& config) {
    auto journal = open_journal(dir);
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(outputs::check(config).empty());
    REQUIRE(output.start());
    const auto before = receiver.messages().size();
    journal->append(records::finding_record(sample_origin(), sample_finding())).value();
    REQUIRE(
        eventually([&] { return receiver.messages().size() > before || output.status().retries >= 2; }, 20s));
    auto status = output.status();
    output.stop();
    status.sent = receiver.messages().size() - before;
    return status;
}

}  // namespace

TEST_CASE("a receiver is trusted by chain and name, or by its pinned certificate, and else gets nothing",
          "[tls][rsyslog]") {
    const TempDir dir;
    const Certificates certificates(dir.path() / "certificates");
    const Certificates strangers(dir.path() / "strangers");
    Rsyslog receiver(dir.path(), &certificates);
    const auto transport = GENERATE(TransportKind::tls, TransportKind::relp);
    const OutputConfig good = config_for(receiver, transport, certificates);
    const auto error_with = [&](auto change) {
        OutputConfig config = good;
        change(*config.tls);
        const auto status = attempt(dir, receiver, config);
        return status.sent != 0 ? std::string("delivered") : status.last_error;
    };
    const auto pin = [](std::string text) {
        return [text](outputs::TlsConfig& tls) {
            tls.ca_file.clear();
            tls.fingerprints = {text};
        };
    };
    CHECK(error_with([](auto&) {}) == "delivered");
    CHECK(error_with([](auto& tls) { tls.server_name = "siem.example.org"; }) == "delivered");
    CHECK(error_with([](auto& tls) { tls.server_name = "other.example.org"; }).find("hostname mismatch") !=
          std::string::npos);
    CHECK(error_with([](auto& tls) { tls.server_name = "127.0.0.2"; }).find("IP address mismatch") !=
          std::string::npos);
    CHECK(error_with([&](auto& tls) { tls.ca_file = strangers.ca(); }).find("the receiver's certificate: ") !=
          std::string::npos);
    CHECK(error_with([](auto& tls) { tls.ca_file.clear(); }).find("the receiver's certificate: ") !=
          std::string::npos);
    CHECK(error_with([](auto& tls) { tls.ca_file = "/nonexistent.pem"; }).find("read /nonexistent.pem") !=
          std::string::npos);
    CHECK(error_with(pin("sha-256:" + certificates.fingerprint("server", "sha256"))) == "delivered");
    CHECK(error_with(pin("sha-1:" + certificates.fingerprint("server", "sha1"))) == "delivered");
    CHECK(error_with(pin("sha-256:" + strangers.fingerprint("server", "sha256")))
              .find("not one of the pinned fingerprints") != std::string::npos);
}

TEST_CASE("a receiver whose certificate has expired or carries another name gets nothing until it is renewed",
          "[tls][rsyslog]") {
    const TempDir dir;
    const Certificates certificates(dir.path() / "certificates");
    const auto transport = GENERATE(TransportKind::tls, TransportKind::relp);
    const bool expired = GENERATE(true, false);
    if (expired)
        certificates.issue("server", "IP:127.0.0.1", -1);
    else
        certificates.issue("server",
                           "DNS:127.0.0.1,IP:127.0.0.9");  // the common name is ours, and must not count
    Rsyslog receiver(dir.path(), &certificates);
    const auto config = config_for(receiver, transport, certificates);
    auto journal = open_journal(dir);
    Output output(config, *journal, dir.path() / "cursors", sample_origin());
    REQUIRE(output.start());
    journal->append(records::finding_record(sample_origin(), sample_finding())).value();
    REQUIRE(eventually([&] { return output.status().retries >= 3; }));
    CHECK(output.status().last_error.find(expired ? "certificate has expired" : "IP address mismatch") !=
          std::string::npos);
    CHECK(receiver.messages().empty());
    receiver.end(SIGTERM);
    certificates.issue("server", "IP:127.0.0.1");
    receiver.start();
    CHECK(eventually([&] { return receiver.messages().size() == 1; }));
}

TEST_CASE("a receiver that asks for our certificate gets it", "[tls][rsyslog]") {
    const TempDir dir;
    const Certificates certificates(dir.path() / "certificates");
    certificates.issue("client", "DNS:web1.dub.example.org");
    Rsyslog receiver(dir.path(), &certificates, true);
    const auto transport = GENERATE(TransportKind::tls, TransportKind::relp);
    auto config = config_for(receiver, transport, certificates);
    CHECK(attempt(dir, receiver, config).sent == 0);
    config.tls->certificate_file = certificates.certificate("client");
    config.tls->key_file = certificates.key("client");
    CHECK(attempt(dir, receiver, config).sent != 0);
}
