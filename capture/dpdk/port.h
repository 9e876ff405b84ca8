// capture/dpdk/port.h - one DPDK port: queues, memory for frames, spreading by flow, counters.
//
// Threads:  the engine's owner; receive() from the core that the queue belongs to.
// Owns:     a memory pool for each queue, so that a queue that runs dry takes none from another.
// Fails:    OsError with the cure; a port half set up is closed by its destructor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "capture/dpdk/dpdk_engine.h"

struct rte_mempool;

namespace egresswatch::capture {

enum class PortSpread { one_queue, symmetric_rss, driver_hash, none };

class DpdkPort {
public:
    // By name; every port that DPDK found where `names` is empty.
    [[nodiscard]] static std::expected<std::vector<std::unique_ptr<DpdkPort>>, OsError> open_all(
        const DpdkConfig& config);
    ~DpdkPort();
    DpdkPort(const DpdkPort&) = delete;
    DpdkPort& operator=(const DpdkPort&) = delete;

    [[nodiscard]] std::expected<void, OsError> start();
    void stop() noexcept;  // the last counters stay readable

    [[nodiscard]] std::uint16_t id() const noexcept { return id_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::uint32_t ifindex() const noexcept {
        return ifindex_;
    }  // 0: the kernel does not know it
    [[nodiscard]] PortSpread spread() const noexcept { return spread_; }
    [[nodiscard]] bool stamps_packets() const noexcept { return driver_ == "net_pcap"; }
    [[nodiscard]] DpdkPortStatus status() const;

private:
    DpdkPort(std::uint16_t id, std::string name) : id_(id), name_(std::move(name)) {}
    [[nodiscard]] std::expected<void, OsError> set_up(const DpdkConfig& config);
    [[nodiscard]] std::expected<void, OsError> set_up_queue(const DpdkConfig& config, std::uint16_t queue,
                                                            std::uint16_t descriptors, int socket);
    void read_counters() const;
    void find_packet_sockets();
    [[nodiscard]] OsError failed(const char* operation, int error, std::string cure = {}) const;

    std::uint16_t id_;
    std::string name_, driver_;
    std::uint32_t ifindex_ = 0;
    PortSpread spread_ = PortSpread::none;
    bool promiscuous_ = false, started_ = false;
    std::vector<rte_mempool*> pools_;
    std::vector<int> packet_sockets_;  // of net_af_packet: the driver does not ask them what they dropped
    mutable DpdkPortStatus counters_;
    mutable std::uint64_t socket_drops_ = 0;
};

// mbufs of each queue that the configuration asks for, or that it needs.
[[nodiscard]] std::uint32_t mbufs_per_queue(const DpdkConfig& config) noexcept;

}  // namespace egresswatch::capture
