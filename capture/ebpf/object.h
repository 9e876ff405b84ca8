// capture/ebpf/object.h - the loaded BPF object and the maps that outlive it.
//
// In:       options, a region block, maybe maps of a predecessor.  Out: program fds, map fds.
// Threads:  one.      Owns: the programs (until attached elsewhere), its region map.
// Fails:    OsError with the last lines of libbpf's and the verifier's log.
// Not here: attaching (attach.h), pins (pins.h), reading the tables (drain.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "capture/ebpf/os.h"
#include "classifier/datapath/layout.h"

struct egresswatch_bpf;  // the libbpf skeleton

namespace egresswatch::capture {

// The maps that hold counts: shared by successive objects, pinned, adopted by the next daemon.
struct SharedMaps {
    UniqueFd flows, tags, outers, senders, sender_prog, sections, class_totals, iface_totals, losses;
    UniqueFd samples, sampler_state;  // not pinned: nobody else reads them
    UniqueFd events;  // not pinned: what a dead daemon's ring still held, the next drain finds in the table
};

struct ObjectOptions {
    std::uint32_t flow_slots = 0;  // per CPU
    std::uint32_t ring_bytes = 1 << 20;
    std::uint64_t hash_seed = 0;
    bool track_all = false;
    bool take_samples = false;
    bool look_for_senders = false;   // sender_object.h says who sends
    bool clock_from_tstamp = false;  // tests
};

struct ProgramFacts {
    std::string name;
    std::uint32_t instructions = 0;  // of BPF, as loaded
    std::uint32_t verified_instructions =
        0;                           // that the verifier walked; 0 where the kernel does not say (< 5.16)
    std::uint32_t native_bytes = 0;  // behind the JIT
};

class BpfObject {
public:
    // The programs are verified and the block is in place when this returns. `reuse` may be null. The region
    // capacity is a quarter more than the block, in whole MiB.
    [[nodiscard]] static std::expected<BpfObject, OsError> load(const ObjectOptions& options,
                                                                std::span<const std::byte> block,
                                                                const SharedMaps* reuse);
    BpfObject() = default;

    [[nodiscard]] int program_fd(datapath::direction direction, bool layer2) const noexcept;
    [[nodiscard]] std::expected<SharedMaps, OsError> shared_maps() const;
    [[nodiscard]] std::vector<ProgramFacts> program_facts() const;
    [[nodiscard]] std::size_t region_capacity() const noexcept { return region_capacity_; }
    // A new inner map, filled, swapped in by one update. False: the block does not fit the capacity.
    [[nodiscard]] std::expected<bool, OsError> install_block(std::span<const std::byte> block);
    // Returns when every program run that had begun before has ended: writing to an array-of-maps waits for
    // an RCU grace period (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
    void wait_for_programs() const noexcept;

private:
    struct Destroy {
        void operator()(egresswatch_bpf* skeleton) const noexcept;
    };
    std::unique_ptr<egresswatch_bpf, Destroy> skeleton_;
    UniqueFd inner_;
    std::size_t region_capacity_ = 0;
};

// CPUs that this kernel may ever have: sections of the flow table, values of a per-CPU map's element.
[[nodiscard]] std::uint32_t possible_cpus();

// Sum over CPUs of one element of a per-CPU map whose value is nothing but 64-bit counters.
[[nodiscard]] bool sum_per_cpu(int map_fd, std::uint32_t key, std::span<std::uint64_t> counters) noexcept;

}  // namespace egresswatch::capture
