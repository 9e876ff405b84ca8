// capture/ebpf/sender_object.h - the programs that find out who sends: loaded over the engine's maps,
// attached to the root of the cgroups.
//
// In:       the engine's maps.   Out: `senders` is filled; processes, through a callback.
// Threads:  one.
// Owns:     its programs, links and socket storage. Nothing is pinned but its entry in `sender_prog`: when
// the
//           daemon dies the cgroup hooks go with it, flows go on being looked at, and the next daemon begins
//           anew.
// Fails:    where the kernel does not let it in (no BTF, no cgroup v2): the engine counts without it, and
// says why. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "capture/ebpf/object.h"
#include "capture/process/command_line.h"
#include "capture/process/process.h"

namespace egresswatch::capture {

class ProcessCache;
class UserNames;

// Where cgroup v2 is mounted, by the text of /proc/self/mountinfo; empty: nowhere.
[[nodiscard]] std::string cgroup2_mount(std::string_view mountinfo);

class SenderObject {
public:
    // `flow_slots`: as of the maps. The programs are attached and told to the tc programs when this returns.
    [[nodiscard]] static std::expected<std::unique_ptr<SenderObject>, OsError> load(const SharedMaps& maps,
                                                                                    std::uint32_t flow_slots);
    ~SenderObject();
    SenderObject(const SenderObject&) = delete;
    SenderObject& operator=(const SenderObject&) = delete;

    // Gives the sockets that there are already to the processes that hold them.
    [[nodiscard]] std::expected<void, OsError> look_for_older_sockets();
    [[nodiscard]] int fd() const noexcept;  // readable when the kernel tells of processes
    // Hands what the kernel told of processes to the cache.
    void read_processes(ProcessCache& cache, UserNames& users, ArgumentPolicy policy);
    // The next use of the network by that process tells of it again.
    void forget(std::uint32_t pid) noexcept;
    [[nodiscard]] std::uint64_t lost() const noexcept;  // process events that found no room

private:
    struct State;
    explicit SenderObject(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::capture
