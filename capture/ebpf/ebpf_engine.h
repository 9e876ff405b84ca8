// capture/ebpf/ebpf_engine.h - the engine of a host: tc programs on its interfaces, counters in the kernel.
//
// In:       packets of the hooked interfaces, in the kernel.   Out: flow updates, totals, interface status.
// Threads:  one owner thread (engine.h); one helper thread that waits for RCU grace periods and has no
//           capability.
// Owns:     the pins under `pin_dir`: maps and links live on when the process dies, and are adopted by the
// next. Limits:   flow_slots_per_cpu, ring_bytes, IFACE_SLOTS, region capacity (grows by reloading the
// programs). Needs:    CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON; CAP_SYS_ADMIN once if the bpffs must be mounted.
// Fails:    OsError with libbpf's and the verifier's own words; nothing half attached stays behind by
// start(). SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "capture/engine.h"
#include "capture/process/command_line.h"
#include "capture/senders.h"

namespace egresswatch::capture {

enum class AttachMode { automatic, tcx, clsact };  // automatic: tcx, and clsact where the kernel has no tcx

inline constexpr const char* PIN_DIR_DEFAULT = "/sys/fs/bpf/egresswatch";

struct EbpfConfig {
    // Names, glob patterns ("veth*"), or "all-physical": Ethernet devices that no software driver made
    // (no IFLA_LINKINFO kind). Patterns never match the loopback; its name does.
    std::vector<std::string> interfaces{"all-physical"};
    std::string pin_dir = PIN_DIR_DEFAULT;  // on a bpffs; one daemon each
    std::uint32_t flow_slots_per_cpu = 0;  // a power of two, 64 .. 2^22; 0: 2^18 over all CPUs, 8192 at least
    std::uint32_t ring_bytes = 1 << 20;    // a power of two, whole pages
    bool sample_payload = false;           // hands the payload of the first packets of a flow to the sink
    bool track_all = false;                // home and local flows get entries too
    AttachMode attach = AttachMode::automatic;
    bool senders = true;  // find out which process sends; where the kernel refuses, details() says why
    bool hashes = true;   // SHA-256 of their executables
    ArgumentPolicy arguments = ArgumentPolicy::masked;
    std::chrono::milliseconds drain_interval{1000};
    std::chrono::milliseconds idle_timeout{60'000};   // a slot without packets for so long is freed
    std::chrono::milliseconds closed_timeout{5'000};  // the same after FIN both ways or RST
};

// What start() found under the pin directory.
struct Adoption {
    bool adopted = false;              // maps of a predecessor were taken over: counters go on
    std::uint64_t flows = 0;           // live entries found
    std::uint64_t hooks_replaced = 0;  // hooks that had counted on and got the new program
};

// Life: make(), install_region() (loads the programs, adopts or makes the maps), start(), poll()..., stop().
// Destroyed without stop(), it leaves hooks and pins in place, as a crash does.
class EbpfEngine final : public Engine, public SenderSource {
public:
    [[nodiscard]] static std::expected<std::unique_ptr<EbpfEngine>, OsError> make(EbpfConfig config);
    ~EbpfEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "ebpf"; }
    [[nodiscard]] std::expected<void, OsError> start(FlowSink& sink) override;
    [[nodiscard]] std::expected<void, OsError> poll(std::chrono::milliseconds timeout) override;
    void stop() noexcept override;
    [[nodiscard]] std::expected<void, OsError> install_region(const RegionTable& table) override;
    void notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept override;
    [[nodiscard]] TotalsSnapshot totals() const override;
    // "samples.taken", "samples.limited", "samples.full", "samples.unplaced" with sample_payload; bytes out
    // by what is known of their sender; the state of attribution.
    [[nodiscard]] EngineDetails details() const override;
    [[nodiscard]] datapath::flow_sender sender_of(const FlowUpdate& update) const noexcept override;
    [[nodiscard]] datapath::flow_sender sender_of(const datapath::flow_key& key) const noexcept override;
    [[nodiscard]] const Process* process_of(const datapath::flow_sender& sender) override;
    [[nodiscard]] const Origin* origin_of(const datapath::flow_sender& sender) override;

    [[nodiscard]] const Adoption& adoption() const noexcept;

private:
    struct State;
    explicit EbpfEngine(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::capture
