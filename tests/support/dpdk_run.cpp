// tests/support/dpdk_run.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/dpdk_run.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <numeric>
#include <type_traits>

#include "capture/pcap/file_reader.h"
#include "tests/support/capture_file.h"

namespace egresswatch::test {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto run_deadline = 60s;

class Collector final : public FlowSink {
public:
    void on_flow_updates(std::span<const FlowUpdate> news, Timestamp) noexcept override {
        updates.insert(updates.end(), news.begin(), news.end());
    }
    std::vector<FlowUpdate> updates;
};

std::expected<EngineRun, std::string> run_here(const std::vector<std::string>& files, std::uint64_t packets,
                                               const RegionTable& region, const FlowTableConfig& table,
                                               std::uint32_t mbufs) {
    capture::DpdkConfig config;
    std::string device = "--vdev=net_pcap0";
    for (const std::string& file : files) device += ",rx_pcap=" + file;
    config.eal_args = {"--no-pci", device};
    config.huge_pages = false;
    config.queues = static_cast<std::uint16_t>(files.size());
    for (unsigned cpu = 0; cpu < files.size(); ++cpu) config.cores.push_back(cpu);
    config.mbufs = mbufs != 0 ? mbufs : 4095;
    config.descriptors = 512;
    config.promiscuous = false;
    config.spread = capture::DpdkSpread::queues;
    config.time = capture::DpdkTime::device;
    config.table = table;
    auto engine = capture::DpdkEngine::make(config);
    if (!engine) return std::unexpected(engine.error().to_string());
    if (auto done = (*engine)->install_region(region); !done)
        return std::unexpected(done.error().to_string());
    Collector collector;
    if (auto done = (*engine)->start(collector); !done) return std::unexpected(done.error().to_string());
    const auto deadline = Clock::now() + run_deadline;
    for (std::uint64_t seen = 0; seen < packets;) {
        if (auto done = (*engine)->poll(1ms); !done) return std::unexpected(done.error().to_string());
        const capture::DpdkStatus status = (*engine)->status();
        seen = status.ports.at(0).dropped;
        for (const auto& core : status.cores) seen += core.packets;
        if (Clock::now() > deadline)
            return std::unexpected("only " + std::to_string(seen) + " of " + std::to_string(packets) +
                                   " packets after a minute");
    }
    (*engine)->stop();
    EngineRun run;
    run.updates = std::move(collector.updates);
    const auto totals = (*engine)->totals();
    run.by_class = totals.by_class;
    run.interface = totals.interfaces.at(0).totals;
    run.losses = totals.losses;
    run.dropped = (*engine)->status().ports.at(0).dropped;
    run.flows_split = (*engine)->status().flows_split;
    return run;
}

template <typename T>
void put(std::string& to, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
void put_all(std::string& to, const std::vector<T>& values) {
    put(to, values.size());
    for (const T& value : values) put(to, value);
}
template <typename T>
bool get(std::string_view& from, T& value) {
    if (from.size() < sizeof value) return false;
    std::memcpy(&value, from.data(), sizeof value);
    from.remove_prefix(sizeof value);
    return true;
}
template <typename T>
bool get_all(std::string_view& from, std::vector<T>& values) {
    std::size_t count = 0;
    if (!get(from, count) || from.size() / sizeof(T) < count) return false;
    values.resize(count);
    for (T& value : values) (void)get(from, value);
    return true;
}

void write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(fd, text.data(), text.size());
        if (written < 0 && errno != EINTR) return;
        if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
    }
}

std::string read_all(int fd) {
    std::string text;
    char block[1 << 16];
    for (;;) {
        const ssize_t got = ::read(fd, block, sizeof block);
        if (got > 0) text.append(block, static_cast<std::size_t>(got));
        if (got == 0 || (got < 0 && errno != EINTR)) return text;
    }
}

std::string packed(const std::expected<EngineRun, std::string>& run) {
    std::string out;
    put(out, run.has_value());
    if (!run) return out + run.error();
    put_all(out, run->updates);
    put_all(out, run->by_class);
    put(out, run->interface);
    put(out, run->losses);
    put(out, run->dropped);
    put(out, run->flows_split);
    return out;
}

std::expected<EngineRun, std::string> unpacked(std::string_view text) {
    bool good = false;
    if (!get(text, good)) return std::unexpected("the child process said nothing: did it crash?");
    if (!good) return std::unexpected(std::string(text));
    EngineRun run;
    if (!get_all(text, run.updates) || !get_all(text, run.by_class) || !get(text, run.interface) ||
        !get(text, run.losses) || !get(text, run.dropped) || !get(text, run.flows_split))
        return std::unexpected("the child process ended in the middle of its answer");
    return run;
}

}  // namespace

std::expected<EngineRun, std::string> run_dpdk_over(const std::vector<std::string>& files,
                                                    std::uint64_t packets, const RegionTable& region,
                                                    const FlowTableConfig& table, std::uint32_t mbufs) {
    int ends[2];
    if (::pipe(ends) != 0) return std::unexpected(std::string("pipe: ") + std::strerror(errno));
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child < 0) return std::unexpected(std::string("fork: ") + std::strerror(errno));
    if (child == 0) {
        ::close(ends[0]);
        write_all(ends[1], packed(run_here(files, packets, region, table, mbufs)));
        ::_exit(0);
    }
    ::close(ends[1]);
    const std::string answer = read_all(ends[0]);
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    auto run = unpacked(answer);
    if (run && status != 0)
        return std::unexpected("the child process ended with status " + std::to_string(status));
    return run;
}

std::expected<std::uint64_t, std::string> on_wire_as_captured(const std::vector<std::string>& from,
                                                              const std::string& to) {
    constexpr std::uint32_t ethernet = 1;              // LINKTYPE_ETHERNET
    constexpr std::size_t net_pcap_bytes_max = 65535;  // longer ones lose their beginning in the driver
    constexpr std::uint64_t libpcap_ns_end = 0x8000'0000 * 1'000'000'000ULL;  // it reads seconds as signed
    CaptureFile file;
    file.pcap_header(ethernet);
    std::uint64_t packets = 0;
    for (const std::string& name : from) {
        auto reader = capture::FileReader::open(name);
        if (!reader) continue;  // not a capture
        for (;;) {
            const auto batch = reader->next_batch();
            if (!batch || batch->empty()) break;  // damage: what is before it counts
            for (const PacketInput& record : *batch) {
                if (reader->link_type_of(record) != ethernet || record.bytes.size() > net_pcap_bytes_max)
                    continue;
                const std::uint64_t ns = record.at_ns;
                if (ns >= libpcap_ns_end) continue;
                file.pcap_record(static_cast<std::uint32_t>(ns / 1'000'000'000),
                                 static_cast<std::uint32_t>(ns % 1'000'000'000 / 1000), record.bytes);
                ++packets;
            }
        }
    }
    std::ofstream out(to, std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.bytes.data()),
              static_cast<std::streamsize>(file.bytes.size()));
    if (!out.flush()) return std::unexpected("cannot write " + to);
    return packets;
}

}  // namespace egresswatch::test
