// tests/fuzz/make_seeds.cpp - make_seeds OUTPUT CAPTURE...: what captures hold as seeds of the inspect_*
// targets.
//
// OUTPUT/NAME_fuzz/CAPTURE-N: of each flow its samples; of each parser a payload that it is made for.
// Captures that cannot be read are passed over, as are those without payload. SPDX-License-Identifier:
// Apache-2.0
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "capture/userspace/file_engine.h"
#include "classifier/inspect/protocol.h"
#include "tests/fuzz/samples.h"
#include "tests/support/test_region.h"

namespace {

using namespace egresswatch;
namespace fs = std::filesystem;

constexpr std::size_t samples_max = 40;       // of a seed
constexpr std::size_t payload_max = 1460;     // of each
constexpr std::size_t seeds_of_kind_max = 6;  // of a capture, for each target

using Bytes = std::vector<std::uint8_t>;

class Seeds final : public FlowSink, public PayloadSink {
public:
    Seeds(fs::path output, std::string capture) : output_(std::move(output)), capture_(std::move(capture)) {}

    void on_flow_updates(std::span<const FlowUpdate>, Timestamp) noexcept override {}
    bool on_payload(const PayloadSample& sample) noexcept override {
        testing::FuzzSample out;
        const std::uint16_t far = datapath::host16(sample.key.remote_port);
        const std::uint16_t near = datapath::host16(sample.key.local_port);
        const auto* const port = std::ranges::find_if(
            testing::fuzz_ports, [&](std::uint16_t known) { return known == far || known == near; });
        out.flow = static_cast<std::uint8_t>(
            port == std::end(testing::fuzz_ports) ? 1 : port - std::begin(testing::fuzz_ports));
        out.inbound = sample.direction == datapath::DIRECTION_IN;
        out.remote_connects = sample.initiator == datapath::INITIATOR_REMOTE;
        out.datagram = sample.key.l4_proto == 17;
        out.tcp_flags = sample.tcp_flags;
        out.payload = sample.payload.first(std::min(sample.payload.size(), payload_max));
        const std::string flow(reinterpret_cast<const char*>(&sample.key), sizeof sample.key);
        auto& first = first_[flow + (out.inbound ? "i" : "o")];
        if (!first) first = sample.tcp_sequence;
        out.sequence = static_cast<std::uint16_t>(sample.tcp_sequence - *first + 1000);
        if (auto& [samples, bytes] = flows_[flow]; ++samples <= samples_max) testing::put_sample(out, bytes);
        if (++samples_ <= samples_max) testing::put_sample(out, all_);
        put_payload(sample, {far, near});
        return true;
    }
    std::size_t write() {
        for (const auto& [flow, seed] : flows_) {
            put("inspect_flow_fuzz", seed.second);
            put("inspect_inspection_fuzz", seed.second);
            put("inspect_assembler_fuzz", seed.second);
        }
        if (!all_.empty()) put("inspect_inspection_fuzz", all_);
        return written_;
    }

private:
    void put(const std::string& target, const Bytes& seed) {
        if (++of_kind_[target] > seeds_of_kind_max || !seen_[target].insert(seed).second) return;
        fs::create_directories(output_ / target);
        std::ofstream out(output_ / target / (capture_ + "-" + std::to_string(of_kind_[target])),
                          std::ios::binary);
        out.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
        ++written_;
    }
    void put_payload(const PayloadSample& sample, inspect::Ports ports) {
        const auto from = [&](std::size_t offset) {
            const auto rest = sample.payload.subspan(std::min(offset, sample.payload.size()));
            return Bytes(rest.begin(), rest.end());
        };
        const bool is_tcp = sample.key.l4_proto == 6;
        if (ports.client == 53 || ports.server == 53)
            return put("inspect_dns_fuzz", from(is_tcp ? 2 : 0));  // behind its length
        const inspect::Recognised found = is_tcp ? inspect::recognise_tcp(sample.payload, {}, ports)
                                                 : inspect::recognise_udp(sample.payload, ports);
        switch (found.protocol) {
            case inspect::Protocol::tls:
                put("inspect_tls_fuzz", from(0));
                return put("inspect_tls_fuzz", from(9));  // behind the heads of the record and the message
            case inspect::Protocol::http:
                return put("inspect_http_fuzz", from(0));
            case inspect::Protocol::ssh:
                return put("inspect_ssh_fuzz", from(0));
            case inspect::Protocol::quic:
                return put("inspect_quic_fuzz", from(0));
            default:
                return;
        }
    }

    fs::path output_;
    std::string capture_;
    std::map<std::string, std::pair<std::size_t, Bytes>> flows_;
    std::map<std::string, std::optional<std::uint32_t>> first_;  // sequence number of a direction
    Bytes all_;
    std::size_t samples_ = 0, written_ = 0;
    std::map<std::string, std::size_t> of_kind_;
    std::map<std::string, std::set<Bytes>> seen_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: make_seeds OUTPUT CAPTURE...\n", stderr);
        return 2;
    }
    const auto region = test::make_region("203.0.113.0/24 US\n");
    std::size_t written = 0;
    for (int i = 2; i < argc; ++i) {
        FlowTableConfig config;
        config.track_all = true;
        config.sample_payload = true;
        auto engine = capture::FileEngine::open(argv[i], config);
        if (!engine) continue;
        Seeds seeds(argv[1], fs::path(argv[i]).stem().string());
        (void)(*engine)->install_region(*region);
        (void)(*engine)->start(seeds);
        while (!(*engine)->finished()) (void)(*engine)->poll({});
        written += seeds.write();
    }
    std::printf("%zu seeds\n", written);
    return written == 0 ? 1 : 0;
}
