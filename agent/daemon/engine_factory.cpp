// agent/daemon/engine_factory.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/engine_factory.h"

#include <linux/capability.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>

#include <chrono>

#include "agent/daemon/dpdk_module.h"
#include "capture/ebpf/ebpf_engine.h"
#include "capture/pcap/live_engine.h"

namespace egresswatch::daemon {

namespace {

using capture::OsError;

// CAP_BPF: maps of a reload. CAP_NET_ADMIN: hooks on interfaces that come later. CAP_PERFMON: loading a tc
// program that reads kernel pointers.
std::expected<MadeEngine, OsError> make_ebpf(const Config& config) {
    capture::EbpfConfig engine;
    engine.interfaces = config.interfaces;
    engine.pin_dir = config.pin_dir.string();
    engine.flow_slots_per_cpu = config.flow_slots_per_cpu;
    engine.track_all = config.track_all;
    engine.idle_timeout = config.idle_timeout;
    engine.closed_timeout = config.closed_timeout;
    engine.sample_payload = config.names.inspect;
    engine.senders = config.processes.senders;
    engine.hashes = config.processes.hashes;
    engine.arguments = config.processes.arguments;
    auto made = capture::EbpfEngine::make(std::move(engine));
    if (!made) return std::unexpected(made.error());
    const capture::EbpfEngine* ebpf = made->get();
    return MadeEngine{std::move(*made),
                      [ebpf] {
                          return Predecessor{ebpf->adoption().adopted, ebpf->adoption().flows};
                      },
                      {CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON}};
}

// CAP_NET_RAW: packet sockets on interfaces that come later.
std::expected<MadeEngine, OsError> make_pcap(const Config& config) {
    capture::PcapConfig engine;
    engine.interfaces = config.interfaces;
    engine.live = {config.pcap.buffer_bytes, config.pcap.snap_length, config.pcap.promiscuous,
                   config.pcap.filter};
    engine.table = flow_table_config(config, 1);
    auto made = capture::PcapEngine::make(std::move(engine));
    if (!made) return std::unexpected(made.error());
    return MadeEngine{std::move(*made), {}, {CAP_NET_RAW}};
}

void log_dpdk(capture::DpdkLogLevel level, std::string_view line) {
    static constexpr spdlog::level::level_enum levels[] = {spdlog::level::debug, spdlog::level::info,
                                                           spdlog::level::warn, spdlog::level::err};
    spdlog::log(levels[static_cast<std::size_t>(level)], "dpdk: {}", line);
}

// CAP_NET_ADMIN: the promiscuous mode and the interface of a tap are taken back at the end.
std::expected<MadeEngine, OsError> make_dpdk(const Config& config) {
    capture::DpdkConfig engine = config.dpdk;
    engine.table = flow_table_config(config, engine.queues);
    engine.log = log_dpdk;
    auto made = make_dpdk_engine(std::move(engine));
    if (!made) return std::unexpected(made.error());
    return MadeEngine{std::move(*made), {}, {CAP_NET_ADMIN}};
}

}  // namespace

FlowTableConfig flow_table_config(const Config& config, std::size_t tables) {
    FlowTableConfig table;
    table.slots_max = FlowTableConfig::slots_ceiling;  // the memory is what limits it
    table.memory_max_bytes = config.flow_memory_bytes / tables;
    table.track_all = config.track_all;
    table.sample_payload = config.names.inspect;
    table.idle_timeout = config.idle_timeout;
    table.closed_timeout = config.closed_timeout;
    table.active_timeout = config.active_timeout;
    table.local_networks = config.local_networks;
    table.direction_by_region = true;
    // Nobody outside may choose flows that crowd into the same slots.
    if (::getrandom(&table.hash_seed, sizeof table.hash_seed, 0) != sizeof table.hash_seed)
        table.hash_seed =
            static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    return table;
}

std::expected<MadeEngine, OsError> make_engine(const Config& config) {
    switch (config.engine) {
        case EngineKind::ebpf:
            return make_ebpf(config);
        case EngineKind::pcap:
            return make_pcap(config);
        case EngineKind::dpdk:
            return make_dpdk(config);
    }
    return std::unexpected(OsError{"make the engine", "", 0, "no such engine"});
}

}  // namespace egresswatch::daemon
