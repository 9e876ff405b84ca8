// agent/daemon/config.h - /etc/egresswatch/egresswatch.yaml as a value. docs/man/egresswatch.yaml.5 is its
// manual. SPDX-License-Identifier: Apache-2.0
//
// In:    a YAML file.     Out: Config, every default filled in, every value within its range.
// Fails: Diagnostics, all of them at once, each with its place and its cure; never half a configuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "agent/daemon/control_protocol.h"
#include "agent/journal/journal.h"
#include "agent/outputs/output_config.h"
#include "agent/records/names.h"
#include "agent/resolvers.h"
#include "capture/dpdk/dpdk_engine.h"
#include "capture/process/command_line.h"
#include "classifier/address.h"
#include "rules/diagnostics.h"

namespace egresswatch::daemon {

inline constexpr const char* config_file_default = "/etc/egresswatch/egresswatch.yaml";

struct JournalSettings {
    std::uint64_t segment_bytes_max = journal::segment_bytes_default;
    std::uint64_t bytes_max = 8ULL << 30;
    std::chrono::hours age_max{24 * 90};
    std::uint64_t hash_bytes_max = 1ULL << 30;
};

struct EvidenceSettings {
    std::chrono::seconds checkpoint_interval{60};
    std::chrono::seconds key_interval{3600};
};

struct FlowRecordSettings {
    std::chrono::seconds long_lived{300};  // a flow that lives longer is recorded again at this interval
    std::uint32_t per_second_max = 1000;   // records beyond are counted in the coverage record
};

// What of payload is looked at, and what records show of it.
struct NameSettings {
    bool inspect = true;
    records::ShownNames shown = records::ShownNames::full;
    std::string hash_key;  // of `hashed`; empty: one of our own, in state_dir
    ResolverSettings resolvers{.system = true, .local = true};
};

enum class EngineKind : std::uint8_t { ebpf, pcap, dpdk };

// Of the engine pcap.
struct PcapSettings {
    std::uint64_t buffer_bytes = 32ULL << 20;  // for each interface, of kernel memory
    std::uint32_t snap_length = 2048;          // headers, and a ClientHello behind them
    bool promiscuous = true;
    std::string filter;  // pcap-filter(7); empty: everything
};

// Records whose arrival shows that the way to the SIEM is open. 0: none.
struct LivenessSettings {
    std::chrono::seconds heartbeat{300};
    std::chrono::seconds canary{86'400};
    std::string canary_level = "low";
};

// Of the engine ebpf: what is found out about the processes that send.
struct ProcessSettings {
    bool senders = true;
    bool hashes = true;
    capture::ArgumentPolicy arguments = capture::ArgumentPolicy::masked;
};

struct MetricsSettings {
    std::string listen;  // "127.0.0.1:9847"; empty: no metrics
};

struct Config {
    std::string site;
    EngineKind engine = EngineKind::ebpf;
    std::vector<std::string> interfaces{"all-physical"};
    bool track_all = false;
    std::uint32_t flow_slots_per_cpu = 0;  // ebpf; 0: the engine chooses
    ProcessSettings processes;
    std::chrono::seconds idle_timeout{60}, closed_timeout{5};
    // Of the engines in user space.
    std::vector<Prefix> local_networks;              // empty: the region table tells which end is ours
    std::uint64_t flow_memory_bytes = 256ULL << 20;  // of all flow tables together
    std::chrono::seconds active_timeout{0};          // 0: a flow that lasts is told when it moves
    PcapSettings pcap;
    capture::DpdkConfig dpdk;  // without its table and log
    std::filesystem::path policy_dir = "/etc/egresswatch/policy.d";
    bool watch_policy = true;  // load it when it changes on disk, not on SIGHUP only
    std::string geo_file;      // empty: find_geo_file()
    std::string asn_file;      // MaxMind DB; empty: AS numbers are unknown
    std::filesystem::path state_dir = "/var/lib/egresswatch";
    std::filesystem::path pin_dir = "/sys/fs/bpf/egresswatch";
    std::string control_socket = control_socket_default;
    bool keep_hooks = false;
    std::chrono::seconds coverage_interval{10};
    std::chrono::seconds windows_save_interval{60};
    FlowRecordSettings flow_records;
    NameSettings names;
    JournalSettings journal;
    EvidenceSettings evidence;
    LivenessSettings liveness;
    MetricsSettings metrics;
    std::string log_level = "info";
    std::vector<outputs::OutputConfig> outputs;
};

[[nodiscard]] rules::Compiled<Config> load_config(const std::filesystem::path& path);
// `name` stands for the file in diagnostics.
[[nodiscard]] rules::Compiled<Config> parse_config(std::string_view name, std::string_view text);

// "site", "journal.size_max", "outputs.port", ...: every key there is.
[[nodiscard]] std::vector<std::string> config_key_names();

}  // namespace egresswatch::daemon
