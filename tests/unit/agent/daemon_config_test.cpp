// tests/unit/agent/daemon_config_test.cpp - the configuration file: defaults, every complaint at once, the
// manual. SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <sstream>

#include "agent/daemon/config.h"
#include "tests/support/catch.h"

using namespace egresswatch;
using daemon::Config;
using daemon::parse_config;

namespace {

std::string complaints(std::string_view text) {
    const auto config = parse_config("egresswatch.yaml", text);
    if (config) return "accepted";
    std::string out;
    for (const auto& diagnostic : config.error()) out += rules::format_diagnostic(diagnostic);
    return out;
}

Config accepted(std::string_view text) {
    auto config = parse_config("egresswatch.yaml", text);
    if (!config)
        for (const auto& diagnostic : config.error()) FAIL(rules::format_diagnostic(diagnostic));
    return *config;
}

}  // namespace

TEST_CASE("the shipped example configuration is accepted", "[daemon][config]") {
    const auto config = daemon::load_config(EGRESSWATCH_SOURCE_DIR "/docs/examples/egresswatch.yaml");
    if (!config)
        for (const auto& diagnostic : config.error()) FAIL(rules::format_diagnostic(diagnostic));
    CHECK(config->site == "dublin");
    CHECK(config->interfaces == std::vector<std::string>{"all-physical"});
    REQUIRE(config->outputs.size() == 2);
    CHECK(config->outputs[0].transport == outputs::TransportKind::unix_datagram);
    CHECK(config->outputs[0].body == records::BodyKind::text);
    CHECK(config->outputs[1].transport == outputs::TransportKind::tcp);
    CHECK(config->outputs[1].port == 601);
    CHECK(config->outputs[1].max_bytes == 4000);
}

TEST_CASE("the defaults that the example shows in its comments are the defaults", "[daemon][config]") {
    std::ifstream in(EGRESSWATCH_SOURCE_DIR "/docs/examples/egresswatch.yaml");
    std::string line, uncommented;
    while (std::getline(in, line)) {
        if (line.rfind("outputs:", 0) == 0) break;
        if (line.rfind("# ", 0) == 0 && line.find(": ") != std::string::npos &&
            line.find("flow_slots") == std::string::npos && line.find(" - ") == std::string::npos &&
            line.find("every key") == std::string::npos)
            uncommented += line.substr(2) + "\n";
    }
    const Config defaults;
    const Config config = accepted(uncommented);
    REQUIRE(uncommented.find("journal:") != std::string::npos);
    CHECK(config.track_all == defaults.track_all);
    CHECK(config.policy_dir == defaults.policy_dir);
    CHECK(config.state_dir == defaults.state_dir);
    CHECK(config.keep_hooks == defaults.keep_hooks);
    CHECK(config.coverage_interval == defaults.coverage_interval);
    CHECK(config.flow_records.long_lived == defaults.flow_records.long_lived);
    CHECK(config.flow_records.per_second_max == defaults.flow_records.per_second_max);
    CHECK(config.journal.segment_bytes_max == defaults.journal.segment_bytes_max);
    CHECK(config.journal.bytes_max == defaults.journal.bytes_max);
    CHECK(config.journal.age_max == defaults.journal.age_max);
    CHECK(config.log_level == defaults.log_level);
}

TEST_CASE("an empty file is a configuration of defaults", "[daemon][config]") {
    const Config config = accepted("site: hamar\n");
    CHECK(config.interfaces == std::vector<std::string>{"all-physical"});
    CHECK(config.control_socket == "/run/egresswatch/control.sock");
    CHECK(config.pin_dir == "/sys/fs/bpf/egresswatch");
    CHECK(config.outputs.empty());
}

TEST_CASE("an unknown key is an error with the nearest name", "[daemon][config]") {
    CHECK(
        complaints("site: dublin\ninterfces: [eth0]\n") ==
        "egresswatch.yaml:2:1: error: unknown key \"interfces\" in the configuration  [config/unknown-key]\n"
        "    2 | interfces: [eth0]\n"
        "      | ^~~~~~~~~\n"
        "  help: did you mean interfaces?\n");
}

TEST_CASE("every error is reported, in the order of the file", "[daemon][config]") {
    const std::string text = complaints(
        "engine: dpkd\n"
        "flow_slots_per_cpu: 1000\n"
        "policy_dir: policy.d\n"
        "keep_hooks: yes\n"
        "coverage_interval: 2h\n"
        "journal: {size_max: 1 KiB}\n"
        "keep_hooks: true\n");
    CHECK(text.find("egresswatch.yaml:1:9: error: \"dpkd\" is not ebpf, pcap or dpdk") != std::string::npos);
    CHECK(text.find("egresswatch.yaml:2:21: error: 1000 is not a power of two") != std::string::npos);
    CHECK(text.find("help: write 512 or 1024") != std::string::npos);
    CHECK(text.find("egresswatch.yaml:3:13: error: \"policy.d\" is not an absolute path") !=
          std::string::npos);
    CHECK(text.find("egresswatch.yaml:4:13: error: \"yes\" is neither true nor false") != std::string::npos);
    CHECK(text.find("egresswatch.yaml:5:20: error: 2h is out of range") != std::string::npos);
    CHECK(text.find("help: write a duration from 1s to 1m") != std::string::npos);
    CHECK(text.find("egresswatch.yaml:6:21: error: 1 KiB is out of range") != std::string::npos);
    CHECK(text.find("egresswatch.yaml:7:1: error: key \"keep_hooks\" stands here for the second time") !=
          std::string::npos);
    CHECK(text.find("the first is in line 4") != std::string::npos);
    CHECK(text.find(":1:9") < text.find(":7:1"));
}

TEST_CASE("an output's errors name the output", "[daemon][config]") {
    const std::string text = complaints(
        "outputs:\n"
        "  - {name: siem, type: syslog, transport: tpc, address: 192.0.2.7, port: 70000}\n"
        "  - {transport: udp}\n");
    CHECK(text.find("egresswatch.yaml:2:43: error: \"tpc\" is not unix, udp, tcp, tls or relp") !=
          std::string::npos);
    CHECK(text.find("did you mean tcp?") != std::string::npos);
    CHECK(text.find("in outputs[0] (line 2)") != std::string::npos);
    CHECK(text.find("the output has no type") != std::string::npos);
    CHECK(text.find("the output has no address") != std::string::npos);
    CHECK(text.find("in outputs[1] (line 3)") != std::string::npos);
}

TEST_CASE("two outputs must not share a name, given or made from the destination", "[daemon][config]") {
    CHECK(complaints("outputs:\n  - {type: syslog, transport: udp, address: 192.0.2.7, port: 514}\n"
                     "  - {type: syslog, transport: udp, address: 192.0.2.7}\n")
              .find("two outputs are called \"udp-192.0.2.7-514\"") != std::string::npos);
    const Config config = accepted(
        "outputs:\n  - {type: syslog, transport: udp, address: 192.0.2.7, port: 514}\n"
        "  - {type: syslog, transport: udp, address: \"2001:db8::7\"}\n");
    CHECK(config.outputs[1].name == "udp-2001-db8--7-514");
}

TEST_CASE("what is looked at for names, and what records show of them", "[daemon][config]") {
    const Config defaults = accepted("site: dublin\n");
    CHECK(defaults.names.inspect);
    CHECK(defaults.names.shown == records::ShownNames::full);
    const Config config = accepted("names: {inspect: false, shown: registered-domain, hash_key: secret}\n");
    CHECK_FALSE(config.names.inspect);
    CHECK(config.names.shown == records::ShownNames::registered_domain);
    CHECK(config.names.hash_key == "secret");
    CHECK(complaints("names: {shown: some}\n").find("registered-domain") != std::string::npos);
    CHECK(defaults.names.resolvers.system);
    CHECK(defaults.names.resolvers.local);
    CHECK_FALSE(defaults.names.resolvers.any);
    const auto listed =
        accepted("names: {resolvers: [192.0.2.53, \"2001:db8::/32\", local]}\n").names.resolvers;
    CHECK_FALSE(listed.system);
    CHECK(listed.local);
    CHECK(listed.prefixes == std::vector{*Prefix::parse("192.0.2.53"), *Prefix::parse("2001:db8::/32")});
    CHECK(accepted("names: {resolvers: any}\n").names.resolvers.any);
    CHECK(complaints("names: {resolvers: [dns.example.org]}\n").find("neither any, system or local") !=
          std::string::npos);
}

TEST_CASE("the keys of the engines in user space", "[daemon][config]") {
    const Config defaults = accepted("engine: pcap\n");
    CHECK(defaults.engine == daemon::EngineKind::pcap);
    CHECK(defaults.local_networks.empty());
    CHECK(defaults.flow_memory_bytes == 256ULL << 20);
    CHECK(defaults.idle_timeout == std::chrono::seconds(60));
    CHECK(defaults.pcap.snap_length == 2048);
    CHECK(defaults.closed_timeout == std::chrono::seconds(5));
    CHECK(defaults.active_timeout == std::chrono::seconds(0));
    const Config config = accepted(
        "engine: pcap\n"
        "local_networks: [10.0.0.0/8, \"2001:db8::/32\"]\n"
        "flow_memory: 1 GiB\n"
        "idle_timeout: 2m\n"
        "closed_timeout: 3s\n"
        "active_timeout: 1h\n"
        "pcap: {buffer: 1 MiB, snap_length: 128, promiscuous: false, filter: \"not port 22\"}\n");
    REQUIRE(config.local_networks.size() == 2);
    CHECK(config.local_networks[0] == Prefix::parse("10.0.0.0/8").value());
    CHECK(config.flow_memory_bytes == 1ULL << 30);
    CHECK(config.idle_timeout == std::chrono::seconds(120));
    CHECK(config.closed_timeout == std::chrono::seconds(3));
    CHECK(config.active_timeout == std::chrono::seconds(3600));
    const std::string timeouts = complaints("active_timeout: 0s\nclosed_timeout: 2d\n");
    CHECK(timeouts.find("0s is out of range") != std::string::npos);
    CHECK(timeouts.find("2d is out of range") != std::string::npos);
    CHECK(config.pcap.buffer_bytes == 1ULL << 20);
    CHECK(config.pcap.snap_length == 128);
    CHECK_FALSE(config.pcap.promiscuous);
    CHECK(config.pcap.filter == "not port 22");
    const std::string text = complaints("local_networks: [10.0.0.1/8, eth0]\npcap: {snap_length: 20}\n");
    CHECK(text.find("\"10.0.0.1/8\" is not a prefix") != std::string::npos);
    CHECK(text.find("\"eth0\" is not a prefix") != std::string::npos);
    CHECK(text.find("20 is out of range") != std::string::npos);
}

TEST_CASE("the keys of the engine dpdk", "[daemon][config]") {
    const Config config = accepted(
        "engine: dpdk\n"
        "dpdk: {eal_args: [--no-pci, \"--vdev=net_null0\"], ports: net_null0, queues: 2, cores: [2, 3], "
        "mbufs: 4095,\n"
        "       descriptors: 512, burst: 64, mtu: 9000, promiscuous: false, huge_pages: false, memory: 1 "
        "GiB,\n"
        "       idle: spin, spread: queues, time: device}\n");
    CHECK(config.engine == daemon::EngineKind::dpdk);
    CHECK(config.dpdk.eal_args == std::vector<std::string>{"--no-pci", "--vdev=net_null0"});
    CHECK(config.dpdk.ports == std::vector<std::string>{"net_null0"});
    CHECK(config.dpdk.queues == 2);
    CHECK(config.dpdk.cores == std::vector<unsigned>{2, 3});
    CHECK(config.dpdk.mbufs == 4095);
    CHECK(config.dpdk.descriptors == 512);
    CHECK(config.dpdk.burst == 64);
    CHECK(config.dpdk.mtu == 9000);
    CHECK_FALSE(config.dpdk.promiscuous);
    CHECK_FALSE(config.dpdk.huge_pages);
    CHECK(config.dpdk.memory_mb == 1024);
    CHECK(config.dpdk.idle == capture::DpdkIdle::spin);
    CHECK(config.dpdk.spread == capture::DpdkSpread::queues);
    CHECK(config.dpdk.time == capture::DpdkTime::device);
    const Config defaults = accepted("engine: dpdk\n");
    CHECK(defaults.dpdk.huge_pages);
    CHECK(defaults.dpdk.idle == capture::DpdkIdle::sleep);
    const std::string text = complaints("dpdk: {queues: 65, burst: 0, spread: rss, core: [1]}\n");
    CHECK(text.find("65 is out of range") != std::string::npos);
    CHECK(text.find("0 is out of range") != std::string::npos);
    CHECK(text.find("\"rss\" is not auto or queues") != std::string::npos);
    CHECK(text.find("cores") != std::string::npos);
}

TEST_CASE("a value of the wrong shape is an error, not an exception", "[daemon][config]") {
    for (const char* text : {"- a\n", "site: [a, b]\n", "journal: 7\n", "outputs: [7]\n", "interfaces: []\n",
                             "interfaces: {}\n", "site: {\n", "flow_records: []\n", "site: \"\"\n",
                             "interfaces: [an-interface-name-that-is-too-long]\n", "port: 1\n", "\x01\n"})
        CHECK(complaints(text) != "accepted");
}

TEST_CASE("a file that cannot be read is a diagnostic about the file", "[daemon][config]") {
    const auto missing = daemon::load_config("/nonexistent/egresswatch.yaml");
    REQUIRE(!missing);
    CHECK(missing.error().front().code == "config/unreadable");
    CHECK(missing.error().front().message.find("No such file") != std::string::npos);
    CHECK(!daemon::load_config("/"));
}

TEST_CASE("every key of the configuration is in the manual", "[daemon][config]") {
    std::ifstream in(EGRESSWATCH_SOURCE_DIR "/docs/man/egresswatch.yaml.5");
    std::stringstream manual;
    manual << in.rdbuf();
    for (const std::string& name : daemon::config_key_names()) {
        const std::string last = name.substr(name.rfind('.') == std::string::npos ? 0 : name.rfind('.') + 1);
        INFO(name);
        CHECK(manual.str().find(".It Cm " + last) != std::string::npos);
    }
}
