// capture/ebpf/attribution.h - from the sender that the kernel names to the process: who it is, what file it
// runs.
//
// In:       SenderObject's processes, hashes.   Out: Process, and flow updates in their order.
// Threads:  one, and the hasher's.
// Order:    an update whose process's executable is still being read waits, and all behind it, HOLD_MAX at
// most:
//           a rule that asks for a hash must not be answered "unknown" because a file is read a moment later.
// Limits:   HELD_MAX updates wait; what is beyond goes on without hash, and is counted.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <vector>

#include "capture/ebpf/peer_namespace.h"
#include "capture/ebpf/sender_object.h"
#include "capture/process/process_cache.h"
#include "capture/process/user_names.h"
#include "classifier/datapath/sender.h"
#include "classifier/flow_update.h"

namespace egresswatch::capture {

class Attribution {
public:
    static constexpr std::chrono::milliseconds HOLD_MAX{250};
    static constexpr std::size_t HELD_MAX = 65536;  // about 250 B each

    struct Batch {  // of equal length
        std::vector<FlowUpdate> updates;
        std::vector<datapath::flow_sender> senders;
        void clear() noexcept {
            updates.clear();
            senders.clear();
        }
    };
    struct Config {
        bool hashes = true;
        ArgumentPolicy arguments = ArgumentPolicy::full;
    };
    [[nodiscard]] static std::expected<std::unique_ptr<Attribution>, OsError> start(Config config,
                                                                                    const SharedMaps& maps,
                                                                                    std::uint32_t flow_slots);

    // What became known of processes and files since the last call.
    void read_news();
    [[nodiscard]] const Process* process_of(const datapath::flow_sender& sender);
    [[nodiscard]] const Origin* origin_of(const datapath::flow_sender& sender);
    // Takes `fresh`, and gives back what need not wait (any longer). `all`: nothing waits.
    void admit(Batch& fresh, Batch& ready, bool all);
    [[nodiscard]] bool holds() const noexcept { return !held_.updates.empty(); }
    [[nodiscard]] int process_fd() const noexcept { return object_->fd(); }
    [[nodiscard]] int hash_fd() const noexcept { return hasher_ ? hasher_->fd() : -1; }  // -1: no hashes
    void add_details(EngineDetails& details) const;

private:
    Attribution() = default;
    using Clock = std::chrono::steady_clock;

    Config config_;
    std::unique_ptr<ExecutableHasher> hasher_;
    std::unique_ptr<SenderObject> object_;
    std::unique_ptr<ProcessCache> cache_;
    UserNames users_;
    PeerNamespaces peers_;
    Batch held_;
    Clock::time_point held_since_{};
    std::uint64_t without_hash_ = 0;     // updates that went on while the file was still being read
    std::uint64_t without_details_ = 0;  // processes of which only the id is known
};

}  // namespace egresswatch::capture
