// tests/unit/agent/daemon_loop_test.cpp - the daemon around a scripted engine: coverage, reload, alerts,
// restart. SPDX-License-Identifier: Apache-2.0
//
// The engine here only says what it is told to say; the real one is tested in network namespaces
// (tests/netns).
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "agent/daemon/daemon.h"
#include "agent/journal/reader.h"
#include "agent/unique_fd.h"
#include "classifier/region/geo_builder.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using namespace std::chrono_literals;
using daemon::Daemon;
using records::Json;

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* policy_text = R"(policy: egresswatch/v1
name: unit
revision: 7
owner: secops@example.org
regions:
  europe: {groups: [EEA], as_of: 2026-02-01}
home: europe
allow:
  - id: mirror
    to: {cidr: [192.0.3.0/24]}
    owner: platform@example.org
    reason: Package updates
    ticket: SEC-1
    expires: 2099-12-31
rules:
  - id: bulk
    title: Bulk transfer out of the region
    level: high
    when: {region: outside, allowed: false}
    window: {sum: bytes_out, over: 10m, by: [remote], at_least: 50 MiB}
    suppress: {for: 1h, by: [remote]}
)";

// What the test tells the engine to say, and what the daemon told the engine. Outlives the daemon.
struct Script {
    capture::TotalsSnapshot totals;
    std::vector<FlowUpdate> next;  // handed over by the next poll
    std::vector<std::uint64_t> notify;
    std::vector<std::uint32_t> generations;  // of the tables installed
    bool refuse_region = false;
    bool stopped = false;
    Clock::time_point handed_over{};
    Timestamp now{std::chrono::seconds(1'800'000'000)};
};

class ScriptedEngine final : public capture::Engine {
public:
    explicit ScriptedEngine(Script& script) : script_(script) {}
    [[nodiscard]] std::string_view name() const noexcept override { return "scripted"; }
    [[nodiscard]] std::expected<void, capture::OsError> start(FlowSink& sink) override {
        sink_ = &sink;
        return {};
    }
    [[nodiscard]] std::expected<void, capture::OsError> poll(std::chrono::milliseconds) override {
        script_.now += 1ms;
        const auto updates = std::exchange(script_.next, {});
        script_.handed_over = Clock::now();
        sink_->on_flow_updates(updates, script_.now);
        return {};
    }
    void stop() noexcept override { script_.stopped = true; }
    [[nodiscard]] std::expected<void, capture::OsError> install_region(const RegionTable& table) override {
        if (script_.refuse_region)
            return std::unexpected(capture::OsError{"install region", "map", ENOMEM, ""});
        script_.generations.push_back(table.generation());
        return {};
    }
    void notify_at(const datapath::flow_key&, std::uint64_t bytes_out) noexcept override {
        script_.notify.push_back(bytes_out);
    }
    [[nodiscard]] capture::TotalsSnapshot totals() const override { return script_.totals; }

private:
    Script& script_;
    FlowSink* sink_ = nullptr;
};

// A folder with policy, geo data and configuration for one daemon after the other.
class Site {
public:
    Site() {
        daemon::block_signals();
        spdlog::set_level(spdlog::level::off);
        char name[] = "/tmp/ew-daemon-XXXXXX";
        folder_ = ::mkdtemp(name);
        std::filesystem::create_directory(folder_ / "policy.d");
        write_policy(policy_text);
        GeoBuilder builder;
        REQUIRE(builder.add_text({GeoFormat::cidr, "list", "test", ""},
                                 "192.0.3.0/24 US\n203.0.112.0/24 IE\n64.0.0.0/8 CN\n"));
        auto geo = builder.finish();
        REQUIRE(geo);
        REQUIRE(geo->save(folder_ / "geo.ewgeo"));
        config.site = "dublin";
        config.policy_dir = folder_ / "policy.d";
        config.geo_file = folder_ / "geo.ewgeo";
        config.state_dir = folder_ / "state";
        config.control_socket = folder_ / "control.sock";
        config.coverage_interval = 3600s;
        config.watch_policy = false;  // only the tests of that want a reload that nobody asked for
        config.liveness = {0s, 0s, "low"};
        script.totals.by_class.resize(datapath::CLASSES_MAX);
    }
    ~Site() {
        daemon.reset();
        std::filesystem::remove_all(folder_);
    }
    Site(const Site&) = delete;
    Site& operator=(const Site&) = delete;

    void write_policy(const std::string& text) const {
        std::ofstream(folder_ / "policy.d/10-unit.yaml") << text;
    }
    void start(bool adopted = false) {
        daemon.emplace(
            config, std::make_unique<ScriptedEngine>(script),
            [adopted] {
                return daemon::Predecessor{adopted, adopted ? 3u : 0u};
            },
            daemon::DaemonOptions{.drop_privileges = false, .poll_timeout = 0ms});
        const auto started = daemon->start();
        if (!started) FAIL(started.error());
    }
    [[nodiscard]] std::vector<Json> journal(const std::string& kind) const {
        std::vector<Json> found;
        const auto reader = journal::Reader::of_directory(folder_ / "state/journal", 0);
        while (const auto entry = reader->next()) {
            Json record = Json::parse(entry->line);
            if (record["kind"] == kind) found.push_back(std::move(record));
        }
        return found;
    }
    // Steps until `done`, with a deadline.
    template <typename Done>
    void step_until(Done done) {
        const auto deadline = Clock::now() + 20s;
        while (!done()) {
            REQUIRE(Clock::now() < deadline);
            daemon->step();
            std::this_thread::sleep_for(1ms);
        }
    }
    [[nodiscard]] std::uint16_t class_of(const char* address) const {
        // Compiled as the daemon does it, and class ids are given out in a fixed order: the table it saved.
        const auto table = RegionTable::load(folder_ / "state/region.table");
        REQUIRE(table);
        return (*table)->lookup(*Address::parse(address));
    }
    [[nodiscard]] FlowUpdate flow(const char* remote, std::uint64_t bytes, UpdateReason reason) const {
        FlowUpdate update;
        const Address local = *Address::parse("10.0.0.5"), far = *Address::parse(remote);
        std::ranges::copy(local.bytes, update.key.local_addr);
        std::ranges::copy(far.bytes, update.key.remote_addr);
        update.key.l4_proto = 6;
        update.key.class_id = class_of(remote);
        update.total.bytes_out = update.delta.bytes_out = bytes;
        update.total.packets_out = update.delta.packets_out = bytes / 1000 + 1;
        update.first_seen = update.last_seen = script.now;
        update.initiator = datapath::INITIATOR_LOCAL;
        update.reason = reason;
        return update;
    }
    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

    daemon::Config config;
    Script script;
    std::optional<Daemon> daemon;

private:
    std::filesystem::path folder_;
};

void count(capture::TotalsSnapshot& totals, std::uint16_t class_id, std::uint64_t packets,
           std::uint64_t bytes) {
    auto& traffic = totals.by_class[class_id].by_direction[datapath::DIRECTION_OUT];
    traffic.packets += packets;
    traffic.ip_bytes += bytes;
    traffic.frame_bytes += bytes + packets * 14;
}

const Json* class_row(const Json& record, const char* kind, const char* country) {
    for (const Json& row : record["classes"])
        if (row["class"] == kind && row["country"] == country) return &row;
    return nullptr;
}

}  // namespace

TEST_CASE("a run leaves genesis, policy, coverage and stop in the journal", "[daemon][loop]") {
    Site site;
    site.start();
    ::raise(SIGTERM);
    CHECK(site.daemon->run() == 0);
    CHECK(site.script.stopped);
    CHECK(site.journal("genesis").size() == 1);
    const auto policies = site.journal("policy");
    REQUIRE(policies.size() == 1);
    CHECK(policies[0]["event"] == "loaded");
    CHECK(policies[0]["name"] == "unit");
    CHECK(policies[0]["revision"] == 7);
    CHECK(policies[0]["geo_hash"].get<std::string>().size() == 64);
    CHECK(site.journal("coverage").size() == 1);
    REQUIRE(site.journal("stop").size() == 1);
    CHECK(site.journal("stop")[0]["reason"] == "SIGTERM");
    CHECK_FALSE(std::filesystem::exists(site.folder() / "control.sock"));
}

TEST_CASE("heartbeats and a canary come without traffic, and tell each output's lag", "[daemon][loop]") {
    Site site;
    site.config.liveness = {3'600s, 3'600s, "medium"};
    outputs::OutputConfig output;
    output.name = "nobody";
    output.address = site.folder() / "no-such-socket";
    site.config.outputs.push_back(output);
    site.start();
    site.daemon->step();
    site.daemon->step();
    site.daemon->stop();
    const auto heartbeats = site.journal("heartbeat");
    REQUIRE(heartbeats.size() == 1);
    CHECK(heartbeats[0]["outputs"][0]["name"] == "nobody");
    CHECK(heartbeats[0]["outputs"][0]["lag_records"].get<int>() > 0);
    const auto canaries = site.journal("finding");
    REQUIRE(canaries.size() == 1);
    CHECK(canaries[0]["rule"]["id"] == "egresswatch/canary");
    CHECK(canaries[0]["level"] == "medium");
    CHECK(site.journal("coverage").back()["outputs"][0]["undelivered_from"] == 1);
}

TEST_CASE(
    "a finding stands in the journal: a daemon that was killed before it saved its windows does not repeat "
    "it",
    "[daemon][loop]") {
    Site site;
    const auto life = [&](const char* remote) {
        site.start();
        const auto before = site.journal("finding").size();
        site.script.next = {site.flow(remote, 60 << 20, UpdateReason::active)};
        site.daemon->step();
        site.daemon.reset();
        std::filesystem::remove(site.folder() / "state/windows.state");  // as if it had never come to saving
        return site.journal("finding").size() - before;
    };
    CHECK(life("64.100.0.9") == 1);
    CHECK(life("64.100.0.9") == 0);
    CHECK(life("64.100.0.10") == 1);
    std::string other = policy_text;
    other.replace(other.find("revision: 7"), 11, "revision: 8");
    site.write_policy(other);  // which asks again
    CHECK(life("64.100.0.9") == 1);
}

TEST_CASE("coverage records tile time and carry differences by country", "[daemon][loop]") {
    Site site;
    site.config.coverage_interval = 0s;  // one record each pass
    site.start();
    const auto cn = site.class_of("64.100.0.9"), ie = site.class_of("203.0.112.9");
    count(site.script.totals, cn, 10, 9000);
    site.daemon->step();
    count(site.script.totals, cn, 1, 500);
    count(site.script.totals, ie, 4, 4000);
    site.script.totals.losses[datapath::LOSS_TUNNEL_DEPTH] = 2;
    site.daemon->step();
    site.daemon->stop();
    const auto records = site.journal("coverage");
    REQUIRE(records.size() == 3);
    for (std::size_t i = 1; i < records.size(); i++) CHECK(records[i]["from"] == records[i - 1]["to"]);
    CHECK((*class_row(records[0], "outside", "CN"))["out"]["ip_bytes"] == 9000);
    CHECK((*class_row(records[1], "outside", "CN"))["out"]["ip_bytes"] == 500);
    CHECK((*class_row(records[1], "outside", "CN"))["out"]["packets"] == 1);
    CHECK((*class_row(records[1], "home", "IE"))["out"]["ip_bytes"] == 4000);
    CHECK(records[1]["losses"]["tunnel_depth_packets"] == 2);
    CHECK(records[2]["losses"]["tunnel_depth_packets"] == 0);
    CHECK(records[2]["classes"].empty());
}

TEST_CASE("a broken policy file is rejected whole on SIGHUP, visibly, and a mended one comes into force",
          "[daemon][loop]") {
    Site site;
    site.start();
    const Json before = site.daemon->status()["policy"];
    site.write_policy(std::string(policy_text) + "rulez: []\n");
    ::raise(SIGHUP);
    site.step_until([&] { return site.journal("policy").size() == 2; });
    const Json rejected = site.journal("policy")[1];
    CHECK(rejected["event"] == "rejected");
    CHECK(rejected["content_hash"] == before["content_hash"]);
    REQUIRE(!rejected["problems"].empty());
    CHECK(rejected["problems"][0].get<std::string>().find("10-unit.yaml:") != std::string::npos);
    Json status = site.daemon->status()["policy"];
    CHECK(status["content_hash"] == before["content_hash"]);
    CHECK(status["last_reload"]["ok"] == false);
    CHECK(status["last_reload"]["trigger"] == "SIGHUP");
    CHECK(status["last_reload"]["problems"][0].get<std::string>().find("rulez") != std::string::npos);
    CHECK(site.script.generations.size() == 1);

    std::string mended = policy_text;
    mended.replace(mended.find("revision: 7"), 11, "revision: 8");
    mended.replace(mended.find("groups: [EEA]"), 13, "groups: [EEA], countries: [GB]");  // another table
    site.write_policy(mended);
    ::raise(SIGHUP);
    site.step_until([&] { return site.journal("policy").size() == 3; });
    CHECK(site.journal("policy")[2]["event"] == "reloaded");
    status = site.daemon->status()["policy"];
    CHECK(status["revision"] == 8);
    CHECK(status["last_reload"]["ok"] == true);
    CHECK(site.script.generations.size() == 2);
}

TEST_CASE("a table that the engine refuses changes nothing", "[daemon][loop]") {
    Site site;
    site.start();
    site.script.refuse_region = true;
    std::string text = policy_text;
    site.write_policy(text.replace(text.find("groups: [EEA]"), 13, "groups: [EEA], countries: [GB]"));
    site.daemon->request_reload("test");
    site.step_until([&] { return site.journal("policy").size() == 2; });
    CHECK(site.journal("policy")[1]["event"] == "rejected");
    CHECK(site.daemon->status()["policy"]["last_reload"]["problems"][0].get<std::string>().find(
              "install region") == 0);
}

TEST_CASE("a change on disk comes into force by itself", "[daemon][loop]") {
    Site site;
    site.config.watch_policy = true;
    site.start();
    const std::string before = site.daemon->status()["policy"]["content_hash"];
    CHECK(site.daemon->status()["policy"]["watch"] == "watching");
    std::string text = policy_text;
    site.write_policy(text.replace(text.find("revision: 7"), 11, "revision: 8"));
    site.step_until([&] { return site.daemon->status()["policy"]["revision"] == 8; });
    const Json policy = site.daemon->status()["policy"];
    CHECK(policy["last_reload"]["trigger"] == "change on disk");
    CHECK(policy["reloads"]["accepted"] == 1);
    CHECK(policy["content_hash"] != before);
    CHECK(site.journal("policy").back()["content_hash"] == policy["content_hash"]);
    // Only the rules' side has changed: the region table stays the one that the engine has.
    CHECK(site.script.generations.size() == 1);
    // The same text again: read, and left as it is.
    site.write_policy(text);
    site.step_until([&] { return site.daemon->status()["policy"]["reloads"]["unchanged"] == 1; });
    CHECK(site.journal("policy").size() == 2);
}

TEST_CASE("a set that is broken on disk is one finding, and stays visible until it is mended",
          "[daemon][loop]") {
    Site site;
    site.config.watch_policy = true;
    site.config.coverage_interval = 0s;  // a record every pass
    site.start();
    const std::string good = site.daemon->status()["policy"]["content_hash"];
    CHECK(site.daemon->status()["policy"]["broken"].is_null());
    site.write_policy(std::string(policy_text) + "rulez: []\n");
    site.step_until([&] { return site.daemon->status()["policy"]["broken"].is_object(); });
    site.daemon->request_reload("test");  // still broken, and no news
    site.step_until([&] { return site.daemon->status()["policy"]["reloads"]["rejected"] == 2; });
    site.daemon->step();
    const Json policy = site.daemon->status()["policy"];
    CHECK(policy["content_hash"] == good);
    CHECK(policy["broken"]["refusals"] == 2);
    CHECK(policy["broken"]["content_hash"].get<std::string>().size() == 64);
    CHECK(policy["broken"]["problems"][0].get<std::string>().find("rulez") != std::string::npos);
    const auto findings = site.journal("finding");
    REQUIRE(findings.size() == 1);
    CHECK(findings[0]["rule"]["id"] == "egresswatch/policy-broken");
    CHECK(findings[0]["level"] == "high");
    CHECK(findings[0]["message"].get<std::string>().find("10-unit.yaml:22:1") != std::string::npos);
    CHECK(findings[0]["details"]["in_force_hash"] == good);
    CHECK(site.journal("coverage").back()["policy_broken"] == true);
    CHECK(site.journal("coverage").back()["policy_hash"] == good);
    // Another mistake is news; taking it back mends it.
    site.write_policy(std::string(policy_text) + "rulezz: []\n");
    site.step_until([&] { return site.journal("finding").size() == 2; });
    site.write_policy(policy_text);
    site.step_until([&] { return site.daemon->status()["policy"]["broken"].is_null(); });
    site.daemon->step();
    CHECK(site.journal("policy").back()["event"] == "reloaded");
    CHECK(site.journal("policy").back()["content_hash"] == good);
    CHECK(site.journal("coverage").back()["policy_broken"] == false);
}

TEST_CASE("a policy that is broken at the start is no start", "[daemon][loop]") {
    Site site;
    site.write_policy("policy: egresswatch/v1\nname: [\n");
    Daemon daemon(site.config, std::make_unique<ScriptedEngine>(site.script), {}, {.drop_privileges = false});
    const auto started = daemon.start();
    REQUIRE(!started);
    CHECK(started.error().find("10-unit.yaml:") != std::string::npos);
    CHECK(site.script.generations.empty());
}

TEST_CASE("the byte that crosses a threshold is a syslog datagram within 50 ms", "[daemon][loop]") {
    Site site;
    const std::string receiver = site.folder() / "log";
    const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    receiver.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    outputs::OutputConfig output;
    output.name = "test";
    output.address = receiver;
    output.kinds = {"finding"};
    site.config.outputs = {output};
    site.start();

    std::vector<double> delays;
    for (int round = 0; round < 20; round++) {
        const std::string remote = "64.1.2." + std::to_string(round);
        site.script.next = {site.flow(remote.c_str(), 51 << 20, UpdateReason::volume)};
        site.daemon->step();
        char buffer[8192];
        const ssize_t got = ::recv(socket.get(), buffer, sizeof buffer, 0);
        REQUIRE(got > 0);
        delays.push_back(
            std::chrono::duration<double, std::milli>(Clock::now() - site.script.handed_over).count());
        CHECK(std::string_view(buffer, static_cast<std::size_t>(got)).find(remote) != std::string_view::npos);
    }
    std::ranges::sort(delays);
    std::printf("  update to syslog datagram, ms: min %.2f median %.2f max %.2f, 20 rounds\n", delays.front(),
                delays[delays.size() / 2], delays.back());
    CHECK(delays[delays.size() / 2] < 50);
    const auto findings = site.journal("finding");
    REQUIRE(findings.size() == 20);
    CHECK(findings[0]["rule"]["id"] == "bulk");
    CHECK(findings[0]["flow"]["country"] == "CN");
}

TEST_CASE("the engine is asked to tell at the threshold, by halves and then to the byte", "[daemon][loop]") {
    Site site;
    site.start();
    constexpr std::uint64_t threshold = 50ull << 20;
    FlowUpdate update = site.flow("64.100.0.9", 1000, UpdateReason::created);
    site.script.next = {update};
    site.daemon->step();
    REQUIRE(site.script.notify.size() == 1);
    int asked = 1;
    while (site.script.notify.back() < threshold) {
        update.delta.bytes_out = site.script.notify.back() - update.total.bytes_out;
        update.total.bytes_out = site.script.notify.back();
        update.reason = UpdateReason::volume;
        site.script.next = {update};
        site.daemon->step();
        REQUIRE(++asked < 20);
    }
    CHECK(site.script.notify.back() == threshold);
    CHECK(site.journal("finding").empty());
}

TEST_CASE("an allowed flow is recorded at its end with the entry that allows it, a home flow not at all",
          "[daemon][loop]") {
    Site site;
    site.start();
    site.script.next = {site.flow("192.0.3.9", 5000, UpdateReason::ended),
                        site.flow("203.0.112.9", 5000, UpdateReason::ended),
                        site.flow("64.100.0.9", 5000, UpdateReason::active)};
    site.daemon->step();
    const auto flows = site.journal("flow");
    REQUIRE(flows.size() == 1);
    CHECK(flows[0]["flow"]["remote"] == "192.0.3.9");
    CHECK(flows[0]["decision"]["verdict"] == "allowed");
    CHECK(flows[0]["decision"]["allow_id"] == "mirror");
}

TEST_CASE("a long-lived flow is recorded at its interval, and flow records have a rate", "[daemon][loop]") {
    Site site;
    site.config.flow_records = {.long_lived = 10s, .per_second_max = 3};
    site.start();
    FlowUpdate update = site.flow("64.100.0.9", 1000, UpdateReason::created);
    for (int second = 0; second < 31; second++) {
        site.script.next = {update};
        site.daemon->step();
        update.reason = UpdateReason::active;
        site.script.now += 1s;
    }
    CHECK(site.journal("flow").size() == 3);
    for (int i = 0; i < 10; i++) {
        update = site.flow(("64.9.9." + std::to_string(i)).c_str(), 1, UpdateReason::ended);
        site.script.next.push_back(update);
    }
    site.daemon->step();
    CHECK(site.journal("flow").size() == 6);
    site.daemon->stop();
    CHECK(site.journal("coverage").back()["flow_records_skipped"] == 7);
}

TEST_CASE("a full flow table becomes one finding, and the totals go on", "[daemon][loop]") {
    Site site;
    site.start();
    site.script.totals.losses[datapath::LOSS_FLOWS_FULL] = 100;
    site.script.totals.losses[datapath::LOSS_FLOWS_FULL_BYTES] = 6400;
    site.step_until([&] { return !site.journal("finding").empty(); });
    site.script.totals.losses[datapath::LOSS_FLOWS_FULL] = 200;
    for (int i = 0; i < 20; i++) site.daemon->step();
    const auto findings = site.journal("finding");
    REQUIRE(findings.size() == 1);
    CHECK(findings[0]["rule"]["id"] == "egresswatch/flow-table-full");
    CHECK(findings[0]["level"] == "high");
    CHECK(findings[0]["value"] == 100);
    CHECK(findings[0]["details"]["bytes"] == 6400);
}

TEST_CASE("packets lost before they were counted become one finding, and are in coverage and status",
          "[daemon][loop]") {
    Site site;
    site.start();
    capture::InterfaceStatus tap;
    tap.name = "tap0";
    tap.ifindex = 9;
    tap.hooked = true;
    tap.dropped = {.buffer = 40, .device = 2, .memory = 0};
    site.script.totals.interfaces = {tap};
    site.step_until([&] { return !site.journal("finding").empty(); });
    site.script.totals.interfaces[0].dropped.buffer = 50;
    for (int i = 0; i < 20; i++) site.daemon->step();
    const auto findings = site.journal("finding");
    REQUIRE(findings.size() == 1);
    CHECK(findings[0]["rule"]["id"] == "egresswatch/capture-drops");
    CHECK(findings[0]["value"] == 42);
    CHECK(findings[0]["details"]["interfaces"]["tap0"] == 42);
    const Json status = site.daemon->status();
    CHECK(status["losses"]["capture_dropped_packets"] == 52);
    CHECK(status["interfaces"][0]["dropped"]["device"] == 2);
    site.daemon->stop();
    const Json coverage = site.journal("coverage").back();
    CHECK(coverage["losses"]["capture_dropped_packets"] == 52);
    CHECK(coverage["interfaces"][0]["dropped"]["buffer"] == 50);
}

TEST_CASE("after a crash the totals go on and the time without evaluation is a gap", "[daemon][loop]") {
    Site site;
    site.config.coverage_interval = 0s;
    site.config.keep_hooks = true;  // as a crash: the engine is not stopped
    site.start();
    const auto cn = site.class_of("64.100.0.9");
    count(site.script.totals, cn, 10, 9000);
    site.daemon->step();
    site.daemon.reset();
    CHECK_FALSE(site.script.stopped);
    const std::string last = site.journal("coverage").back()["to"];
    count(site.script.totals, cn, 5, 700);  // while nobody ran

    site.start(/*adopted=*/true);
    site.daemon->step();
    site.daemon->stop();
    const auto gaps = site.journal("gap");
    REQUIRE(gaps.size() == 1);
    CHECK(gaps[0]["reason"] == "evaluation");
    CHECK(gaps[0]["from"] == last);
    const auto coverage = site.journal("coverage");
    const auto next =
        std::ranges::find_if(coverage, [&](const Json& record) { return record["from"] == last; });
    REQUIRE(next != coverage.end());
    CHECK((*class_row(*next, "outside", "CN"))["out"]["ip_bytes"] == 700);
}

TEST_CASE("counters that cannot continue the saved ones start a period of their own", "[daemon][loop]") {
    Site site;
    site.start();
    const auto cn = site.class_of("64.100.0.9");
    count(site.script.totals, cn, 10, 9000);
    site.daemon->stop();
    site.daemon.reset();
    site.script.totals = {};
    site.script.totals.by_class.resize(datapath::CLASSES_MAX);
    site.start();
    count(site.script.totals, cn, 1, 100);
    site.daemon->stop();
    CHECK((*class_row(site.journal("coverage").back(), "outside", "CN"))["out"]["ip_bytes"] == 100);
    REQUIRE(site.journal("gap").size() == 1);
    CHECK(site.journal("gap")[0]["detail"].get<std::string>().find("no hooks were in place") !=
          std::string::npos);
}

TEST_CASE("status and reload are answered over the control socket", "[daemon][loop]") {
    Site site;
    site.start();
    std::expected<nlohmann::json, std::string> status, reload;
    std::atomic<int> done = 0;
    std::jthread client([&] {
        status = daemon::ask_daemon(site.config.control_socket, "status", 10s);
        done++;
        reload = daemon::ask_daemon(site.config.control_socket, "reload", 10s);
        done++;
    });
    site.step_until([&] { return done == 1; });
    REQUIRE(status);
    const auto& answer = (*status)["status"];
    CHECK(answer["site"] == "dublin");
    CHECK(answer["policy"]["name"] == "unit");
    CHECK(answer["journal"]["state"] == "ok");
    CHECK(answer["privileges"].contains("effective"));
    site.write_policy("nonsense: 1\n");
    site.step_until([&] { return done == 2; });
    REQUIRE(!reload);
    CHECK(reload.error().find("10-unit.yaml") != std::string::npos);
}

TEST_CASE("a state folder of another user is refused with its reason", "[daemon][loop]") {
    if (::geteuid() != 0) return;  // only root can make one
    Site site;
    std::filesystem::create_directory(site.config.state_dir);
    REQUIRE(::chown(site.config.state_dir.c_str(), 65534, 65534) == 0);
    Daemon daemon(site.config, std::make_unique<ScriptedEngine>(site.script), {}, {.drop_privileges = false});
    const auto started = daemon.start();
    REQUIRE(!started);
    CHECK(started.error().find("belongs to user id 65534") != std::string::npos);
}

TEST_CASE("what leaves is added up while somebody observes, and not afterwards", "[daemon][loop]") {
    Site site;
    site.start();
    const auto ask = [&](const char* request, const nlohmann::json& members) {
        auto answer = std::async(std::launch::async, [&] {
            return daemon::ask_daemon(site.config.control_socket, request, 10s, members);
        });
        site.step_until([&] { return answer.wait_for(0s) == std::future_status::ready; });
        return answer.get();
    };
    CHECK(!ask("observed", nlohmann::json::object()));
    CHECK(ask("observe", {{"seconds", 0}}).error().find("write a number") != std::string::npos);
    REQUIRE(ask("observe", {{"seconds", 60}}));
    site.script.next = {site.flow("64.1.2.3", 5000, UpdateReason::created),
                        site.flow("192.0.3.9", 7000, UpdateReason::created),
                        site.flow("203.0.112.9", 9000, UpdateReason::created)};
    site.daemon->step();
    const auto answer = ask("observed", nlohmann::json::object());
    REQUIRE(answer);
    // Neither what the policy allows (192.0.3.0/24) nor what stays at home (IE).
    const auto& groups = (*answer)["observed"]["groups"];
    REQUIRE(groups.size() == 1);
    CHECK(groups[0]["prefix"] == "64.1.2.0/24");
    CHECK(groups[0]["country"] == "CN");
    CHECK(groups[0]["bytes_out"] == 5000);
    CHECK(groups[0]["flows"] == 1);
    CHECK(!ask("observed", nlohmann::json::object()));
}

TEST_CASE("a flow is explained with the windows as they are", "[daemon][loop]") {
    Site site;
    site.start();
    site.script.next = {site.flow("64.1.2.3", 20 << 20, UpdateReason::created)};
    site.daemon->step();
    const auto ask = [&](const nlohmann::json& members) {
        auto answer = std::async(std::launch::async, [&] {
            return daemon::ask_daemon(site.config.control_socket, "explain", 10s, members);
        });
        site.step_until([&] { return answer.wait_for(0s) == std::future_status::ready; });
        return answer.get();
    };
    CHECK(!ask(nlohmann::json::object()));
    CHECK(!ask({{"flow", {{"local", "10.0.0.5"}, {"remote", "nowhere"}}}}));
    const auto answer = ask({{"flow",
                              {{"local", "10.0.0.5"},
                               {"remote", "64.1.2.3"},
                               {"remote_port", 443},
                               {"l4_proto", 6},
                               {"initiator", "local"}}}});
    if (!answer) FAIL(answer.error());
    const auto& said = (*answer)["explanation"];
    INFO(said.dump(1));
    CHECK(said["remote"]["class"] == "outside");
    CHECK(said["remote"]["country"] == "CN");
    CHECK(said["remote"]["prefix"] == "64.0.0.0/8");
    CHECK(said["remote"]["source"] == "test");
    CHECK(said["decision"]["allowed"] == false);
    CHECK(said["allow"][0]["close"] == false);
    CHECK(said["rules"][0]["counts"] == true);
    CHECK(said["rules"][0]["group"]["remote"] == "64.1.2.3");
    CHECK(said["rules"][0]["value"] == 20 << 20);
    CHECK(said["rules"][0]["threshold"] == 50 << 20);
    const auto allowed = ask({{"flow", {{"local", "10.0.0.5"}, {"remote", "192.0.3.7"}, {"l4_proto", 6}}}});
    REQUIRE(allowed);
    CHECK((*allowed)["explanation"]["decision"]["allow_id"] == "mirror");
    CHECK((*allowed)["explanation"]["remote"]["lists"].empty());  // the author has named none
    CHECK((*allowed)["explanation"]["rules"][0]["counts"] == false);
    CHECK((*allowed)["explanation"]["rules"][0]["why_not"] != "");
}
