// capture/dpdk/port.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/port.h"

#include <linux/if_packet.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <filesystem>

namespace egresswatch::capture {
namespace {

constexpr std::uint32_t POOL_CACHE = 256;        // mbufs that a core keeps for itself; returns them in bulk
constexpr std::uint32_t CACHED_POOL_MIN = 2048;  // smaller pools have no caches: they would hold most of it
constexpr std::size_t KEY_BYTES_MAX = 64;        // 40 and 52 are what NICs have

// Both directions of a flow get the same Toeplitz hash where the key repeats itself every 16 bits: exchanging
// addresses and ports moves bits by multiples of 16 (Woo and Park, "Scalable TCP Session Monitoring with
// Symmetric Receive-side Scaling", KAIST 2012).
constexpr std::array<std::uint8_t, 2> SYMMETRIC_KEY{0x6d, 0x5a};

// Drivers whose queues are filled by the kernel's flow hash, which is symmetric: PACKET_FANOUT_HASH
// (net/packet/af_packet.c, fanout_demux_hash) and tun_automq_select_queue (drivers/net/tun.c).
constexpr std::array<std::string_view, 2> HASHED_BY_KERNEL{"net_af_packet", "net_tap"};
// Drivers that have taken the packet before they ask for an mbuf: no mbuf, no packet. Others leave it with
// the device, which counts it as missed when it has no room for the next one.
constexpr std::array<std::string_view, 2> LOSES_WITHOUT_MBUF{"net_pcap", "net_tap"};

template <std::size_t N>
bool among(const std::array<std::string_view, N>& names, const std::string& name) {
    return std::ranges::find(names, name) != names.end();
}

std::vector<std::uint16_t> port_ids() {
    std::vector<std::uint16_t> ids;
    for (std::uint64_t id = rte_eth_find_next(0); id < RTE_MAX_ETHPORTS;
         id = rte_eth_find_next(static_cast<std::uint16_t>(id + 1)))
        ids.push_back(static_cast<std::uint16_t>(id));
    return ids;
}

std::string name_of(std::uint16_t id) {
    char name[RTE_ETH_NAME_MAX_LEN]{};
    return rte_eth_dev_get_name_by_port(id, name) == 0 ? name : "port " + std::to_string(id);
}

std::string list_of_ports() {
    std::string list;
    for (const std::uint16_t id : port_ids()) list += (list.empty() ? "" : ", ") + name_of(id);
    return list.empty() ? "none" : list;
}

std::uint64_t hashed_fields(const rte_eth_dev_info& info) {
    return info.flow_type_rss_offloads &
           (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP);
}

PortSpread spread_of(const DpdkConfig& config, const rte_eth_dev_info& info, const std::string& driver) {
    if (config.queues == 1) return PortSpread::one_queue;
    if (among(HASHED_BY_KERNEL, driver)) return PortSpread::driver_hash;
    const bool can =
        hashed_fields(info) != 0 && info.hash_key_size >= 40 && info.hash_key_size <= KEY_BYTES_MAX;
    return can ? PortSpread::symmetric_rss : PortSpread::none;
}

}  // namespace

std::uint32_t mbufs_per_queue(const DpdkConfig& config) noexcept {
    if (config.mbufs != 0) return config.mbufs;
    const std::uint32_t held = config.descriptors + config.burst + 2 * POOL_CACHE;
    return std::bit_ceil(2 * held) - 1;  // a memory pool is best at a power of two less one
}

OsError DpdkPort::failed(const char* operation, int error, std::string cure) const {
    return {operation, name_, error, std::move(cure)};
}

std::expected<std::vector<std::unique_ptr<DpdkPort>>, OsError> DpdkPort::open_all(const DpdkConfig& config) {
    std::vector<std::unique_ptr<DpdkPort>> ports;
    const auto add = [&](std::uint16_t id, const std::string& name) -> std::expected<void, OsError> {
        ports.push_back(std::unique_ptr<DpdkPort>(new DpdkPort(id, name)));
        return ports.back()->set_up(config);
    };
    for (const std::string& name : config.ports) {
        std::uint16_t id = 0;
        if (rte_eth_dev_get_port_by_name(name.c_str(), &id) != 0)
            return std::unexpected(
                OsError{"open DPDK port", name, ENODEV,
                        "DPDK has these ports: " + list_of_ports() +
                            "; bind a NIC with dpdk-devbind.py, or name a --vdev in eal_args"});
        if (auto done = add(id, name); !done) return std::unexpected(done.error());
    }
    if (config.ports.empty())
        for (const std::uint16_t id : port_ids())
            if (auto done = add(id, name_of(id)); !done) return std::unexpected(done.error());
    if (ports.empty())
        return std::unexpected(
            OsError{"open DPDK ports", "", ENODEV,
                    "DPDK found no port: bind a NIC with dpdk-devbind.py (vfio-pci), or name a "
                    "virtual device in eal_args"});
    return ports;
}

std::expected<void, OsError> DpdkPort::set_up(const DpdkConfig& config) {
    rte_eth_dev_info info{};
    if (const int error = rte_eth_dev_info_get(id_, &info); error != 0)
        return std::unexpected(failed("ask DPDK port", -error));
    driver_ = info.driver_name;
    ifindex_ = info.if_index;
    if (config.queues > info.max_rx_queues)
        return std::unexpected(failed("set up DPDK port", EINVAL,
                                      "it has " + std::to_string(info.max_rx_queues) +
                                          " receive queues, not " + std::to_string(config.queues) +
                                          ": lower queues"));
    if (config.time == DpdkTime::device && !stamps_packets())
        return std::unexpected(
            failed("use the device's time", ENOTSUP, "only net_pcap has one here; write time: clock"));
    spread_ = spread_of(config, info, driver_);

    rte_eth_conf conf{};
    std::array<std::uint8_t, KEY_BYTES_MAX> key{};
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = SYMMETRIC_KEY[i % SYMMETRIC_KEY.size()];
    if (spread_ == PortSpread::symmetric_rss) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_key = key.data();
        conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
        conf.rx_adv_conf.rss_conf.rss_hf = hashed_fields(info);
    }
    if ((info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0)
        conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
    if (config.mtu != 0) conf.rxmode.mtu = config.mtu;
    // Nothing is ever sent. net_tap wants as many queues each way; others are set up with one to please them.
    const std::uint16_t send_queues =
        std::min<std::uint16_t>(driver_ == "net_tap" ? config.queues : 1, info.max_tx_queues);
    if (const int error = rte_eth_dev_configure(id_, config.queues, send_queues, &conf); error != 0)
        return std::unexpected(failed("configure DPDK port", -error));
    std::uint16_t descriptors = config.descriptors, send_descriptors = 64;
    if (const int error = rte_eth_dev_adjust_nb_rx_tx_desc(id_, &descriptors, &send_descriptors); error != 0)
        return std::unexpected(failed("size the queues of DPDK port", -error));
    const int socket = rte_eth_dev_socket_id(id_);
    for (std::uint16_t queue = 0; queue < config.queues; ++queue)
        if (auto done = set_up_queue(config, queue, descriptors, socket); !done) return done;
    for (std::uint16_t queue = 0; queue < send_queues; ++queue)
        if (const int error =
                rte_eth_tx_queue_setup(id_, queue, send_descriptors, static_cast<unsigned>(socket), nullptr);
            error != 0)
            return std::unexpected(failed("set up a send queue of DPDK port", -error));
    promiscuous_ = config.promiscuous;
    find_packet_sockets();
    return {};
}

std::expected<void, OsError> DpdkPort::set_up_queue(const DpdkConfig& config, std::uint16_t queue,
                                                    std::uint16_t descriptors, int socket) {
    const std::uint32_t mbufs = mbufs_per_queue(config);
    const std::string name = "ew_mbufs_" + std::to_string(id_) + "_" + std::to_string(queue);
    rte_mempool* pool = rte_pktmbuf_pool_create(name.c_str(), mbufs, mbufs < CACHED_POOL_MIN ? 0 : POOL_CACHE,
                                                0, RTE_MBUF_DEFAULT_BUF_SIZE, socket);
    if (pool == nullptr)
        return std::unexpected(failed("make the memory pool of DPDK port", rte_errno,
                                      std::to_string(mbufs) +
                                          " mbufs: lower mbufs or descriptors, or raise memory_mb "
                                          "or the number of huge pages"));
    pools_.push_back(pool);
    if (const int error =
            rte_eth_rx_queue_setup(id_, queue, descriptors, static_cast<unsigned>(socket), nullptr, pool);
        error != 0)
        return std::unexpected(failed("set up a queue of DPDK port", -error));
    return {};
}

// net_af_packet 22.11 does not tell what its sockets dropped. They are in this process: they can be asked.
void DpdkPort::find_packet_sockets() {
    if (driver_ != "net_af_packet") return;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
        const std::string text = entry.path().filename().string();
        int fd = -1;
        std::from_chars(text.data(), text.data() + text.size(), fd);
        sockaddr_ll address{};
        socklen_t size = sizeof address;
        if (fd < 0 || ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
        if (address.sll_family == AF_PACKET && address.sll_ifindex == static_cast<int>(ifindex_))
            packet_sockets_.push_back(fd);
    }
}

std::expected<void, OsError> DpdkPort::start() {
    if (const int error = rte_eth_dev_start(id_); error != 0)
        return std::unexpected(failed("start DPDK port", -error));
    started_ = true;
    if (!promiscuous_) return {};
    // A virtual device without an address of its own sees everything as it is.
    const int error = rte_eth_promiscuous_enable(id_);
    if (error != 0 && error != -ENOTSUP)
        return std::unexpected(failed("set DPDK port promiscuous", -error, "or write promiscuous: false"));
    return {};
}

void DpdkPort::stop() noexcept {
    if (!started_) return;
    read_counters();
    started_ = false;
    if (promiscuous_) (void)rte_eth_promiscuous_disable(id_);
    (void)rte_eth_dev_stop(id_);
}

DpdkPort::~DpdkPort() {
    stop();
    (void)rte_eth_dev_close(id_);
    for (rte_mempool* pool : pools_) rte_mempool_free(pool);
}

void DpdkPort::read_counters() const {
    rte_eth_stats stats{};
    if (rte_eth_stats_get(id_, &stats) != 0) return;
    for (const int fd : packet_sockets_) {
        tpacket_stats socket_stats{};
        socklen_t size = sizeof socket_stats;
        // Reading it sets it back to zero.
        if (::getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &socket_stats, &size) == 0)
            socket_drops_ += socket_stats.tp_drops;
    }
    counters_.packets = stats.ipackets;
    counters_.missed = stats.imissed + socket_drops_;
    counters_.errors = stats.ierrors;
    counters_.no_mbufs = stats.rx_nombuf;
    counters_.dropped = counters_.missed + counters_.errors;
    if (among(LOSES_WITHOUT_MBUF, driver_)) counters_.dropped += counters_.no_mbufs;
}

DpdkPortStatus DpdkPort::status() const {
    if (started_) read_counters();
    DpdkPortStatus status = counters_;
    status.name = name_;
    status.driver = driver_;
    static constexpr std::array<std::string_view, 4> words{"one queue", "symmetric rss", "driver hash",
                                                           "none"};
    status.spread = words[static_cast<std::size_t>(spread_)];
    // The tap's queue is the kernel's: what it drops is in the kernel's counters of the interface.
    status.missed_is_known = driver_ != "net_tap" && !(driver_ == "net_af_packet" && packet_sockets_.empty());
    return status;
}

}  // namespace egresswatch::capture
