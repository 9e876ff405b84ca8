// tests/support/rsyslog.h - a real rsyslogd with a configuration and a work directory of the test's own: UDP,
// TCP, TLS, RELP, RELP over TLS and a unix socket, RFC 5424 parser, mmpstrucdata, every message one JSON
// line. SPDX-License-Identifier: Apache-2.0
//
// Nothing of the system's rsyslog is touched.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <thread>
#include <vector>

#include "agent/records/record.h"
#include "agent/unique_fd.h"
#include "tests/support/catch.h"
#include "tests/support/certificates.h"

namespace egresswatch::testing {

using records::Json;

inline std::uint16_t free_port() {  // free for UDP and TCP alike
    for (int attempt = 0; attempt < 50; ++attempt) {
        const UniqueFd tcp(::socket(AF_INET, SOCK_STREAM, 0));
        const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        if (::bind(tcp.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) continue;
        ::getsockname(tcp.get(), reinterpret_cast<sockaddr*>(&address), &size);
        if (::bind(udp.get(), reinterpret_cast<sockaddr*>(&address), size) == 0)
            return ntohs(address.sin_port);
    }
    throw std::runtime_error("no free port");
}

template <typename Condition>
bool eventually(Condition condition, std::chrono::seconds limit = std::chrono::seconds{60}) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
    return true;
}

class Rsyslog {
public:
    // Without certificates there is no TLS. `mutual`: a client must show a certificate of the same authority.
    explicit Rsyslog(std::filesystem::path dir, const Certificates* certificates = nullptr,
                     bool mutual = false)
        : dir_(std::move(dir)),
          port(free_port()),
          relp_port(free_port()),
          tls_port(free_port()),
          relp_tls_port(free_port()) {
        std::filesystem::create_directories(dir_ / "work");
        std::ofstream(dir_ / "rsyslog.conf")
            << "global(workDirectory=\"" << (dir_ / "work").string() << "\" maxMessageSize=\"64k\")\n"
            << R"(module(load="imudp") module(load="imptcp") module(load="mmpstrucdata")
module(load="imuxsock" SysSock.Use="off")
template(name="line" type="list" option.jsonf="on") {
  property(outname="pri" name="pri" format="jsonf")
  property(outname="version" name="protocol-version" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="procid" name="procid" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="input" name="inputname" format="jsonf")
  property(outname="sd" name="$!rfc5424-sd" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}
ruleset(name="all") { action(type="mmpstrucdata") action(type="omfile" file=")"
            << out().string() << "\" template=\"line\" flushOnTXEnd=\"on\") }\n"
            << "input(type=\"imudp\" address=\"127.0.0.1\" port=\"" << port << "\" ruleset=\"all\")\n"
            << "input(type=\"imptcp\" address=\"127.0.0.1\" port=\"" << port
            << "\" ruleset=\"all\" supportOctetCountedFraming=\"on\")\n"
            << "input(type=\"imuxsock\" socket=\"" << socket().string()
            << "\" createPath=\"on\" useSpecialParser=\"off\" ignoreTimestamp=\"off\" parseHostname=\"on\" "
               "ruleset=\"all\" "
               "rateLimit.Interval=\"0\")\n"
            << "module(load=\"imrelp\" tls.tlslib=\"openssl\" ruleset=\"all\")\n"
            << "input(type=\"imrelp\" address=\"127.0.0.1\" port=\"" << relp_port << "\")\n"
            << (certificates != nullptr ? tls_inputs(*certificates, mutual) : std::string());
        start();
    }
    ~Rsyslog() { end(SIGTERM); }

    void start() {
        pid_ = ::fork();
        if (pid_ == 0) {
            const auto config = (dir_ / "rsyslog.conf").string();
            const auto pid_file = (dir_ / "pid").string();
            if (std::freopen((dir_ / "stderr").c_str(), "a", stderr) == nullptr) ::_exit(126);
            ::execlp("rsyslogd", "rsyslogd", "-n", "-f", config.c_str(), "-i", pid_file.c_str(), nullptr);
            ::_exit(127);
        }
        REQUIRE(eventually([this] { return std::filesystem::exists(dir_ / "pid") && accepts(); }));
    }
    void end(int signal) {
        if (pid_ <= 0) return;
        ::kill(pid_, signal);
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = 0;
        std::error_code ignored;
        std::filesystem::remove(dir_ / "pid", ignored);
    }

    [[nodiscard]] std::vector<Json> messages() const {
        std::vector<Json> out;
        std::ifstream file(dir_ / "out.json");
        for (std::string line; std::getline(file, line);) {
            Json message = Json::parse(line, nullptr, false);
            if (message.is_discarded()) continue;
            // jsonf writes the object that mmpstrucdata made as text
            if (message["sd"].is_string())
                message["sd"] = Json::parse(message["sd"].get<std::string>(), nullptr, false);
            out.push_back(std::move(message));
        }
        return out;
    }
    [[nodiscard]] std::map<int, int> times_by_seq() const {
        std::map<int, int> out;
        for (const auto& message : messages()) {
            const Json& sd = message["sd"];
            const Json own = sd.is_object() ? sd.value("egresswatch@32473", Json()) : Json();
            if (own.is_object() && own.contains("seq"))
                ++out[std::stoi(own["seq"].get<std::string>())];
            else
                ++out[-1];  // something that is not a message of ours: the tail of a split one
        }
        return out;
    }
    [[nodiscard]] std::filesystem::path socket() const { return dir_ / "log"; }
    [[nodiscard]] std::filesystem::path out() const { return dir_ / "out.json"; }

private:
    [[nodiscard]] std::string tls_inputs(const Certificates& certificates, bool mutual) const {
        const auto quoted = [](const std::filesystem::path& path) { return "\"" + path.string() + "\""; };
        return "global(DefaultNetstreamDriverCAFile=" + quoted(certificates.ca()) +
               " DefaultNetstreamDriverCertFile=" + quoted(certificates.certificate("server")) +
               " DefaultNetstreamDriverKeyFile=" + quoted(certificates.key("server")) +
               ")\nmodule(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" "
               "StreamDriver.AuthMode=\"" +
               (mutual ? "x509/certvalid" : "anon") +
               "\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"" + std::to_string(tls_port) +
               "\" ruleset=\"all\")\ninput(type=\"imrelp\" address=\"127.0.0.1\" port=\"" +
               std::to_string(relp_tls_port) + "\" tls=\"on\" tls.caCert=" + quoted(certificates.ca()) +
               " tls.myCert=" + quoted(certificates.certificate("server")) +
               " tls.myPrivKey=" + quoted(certificates.key("server")) +
               (mutual ? " tls.authMode=\"certvalid\"" : "") + ")\n";
    }
    [[nodiscard]] bool accepts() const {
        const UniqueFd tcp(::socket(AF_INET, SOCK_STREAM, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        return ::connect(tcp.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    }
    std::filesystem::path dir_;
    pid_t pid_ = 0;

public:
    std::uint16_t port;
    std::uint16_t relp_port;
    std::uint16_t tls_port;
    std::uint16_t relp_tls_port;
};

}  // namespace egresswatch::testing
