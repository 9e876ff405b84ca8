// agent/daemon/engine_factory.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/engine_factory.h"

#include <linux/capability.h>
#include <sys/random.h>

#include <chrono>

#include "capture/ebpf/ebpf_engine.h"
#include "capture/pcap/live_engine.h"

namespace egresswatch::daemon {

namespace {

using capture::OsError;

// As the ebpf engine has it.
constexpr std::chrono::seconds closed_timeout{5};

// CAP_BPF: maps of a reload. CAP_NET_ADMIN: hooks on interfaces that come later. CAP_PERFMON: loading a tc
// program that reads kernel pointers.
std::expected<MadeEngine, OsError> make_ebpf(const Config& config) {
    capture::EbpfConfig engine;
    engine.interfaces = config.interfaces;
    engine.pin_dir = config.pin_dir.string();
    engine.flow_slots_per_cpu = config.flow_slots_per_cpu;
    engine.track_all = config.track_all;
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

}  // namespace

FlowTableConfig flow_table_config(const Config& config, std::size_t tables) {
    FlowTableConfig table;
    table.slots_max = FlowTableConfig::slots_ceiling;  // the memory is what limits it
    table.memory_max_bytes = config.flow_memory_bytes / tables;
    table.track_all = config.track_all;
    table.idle_timeout = config.idle_timeout;
    table.closed_timeout = closed_timeout;
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
            return std::unexpected(OsError{"make the engine", "dpdk", 0, "it is not in this build"});
    }
    return std::unexpected(OsError{"make the engine", "", 0, "no such engine"});
}

}  // namespace egresswatch::daemon
