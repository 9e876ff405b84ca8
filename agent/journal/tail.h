// agent/journal/tail.h - what the writing journal and its readers share: how far may be read, who waits, who
// has delivered what. SPDX-License-Identifier: Apache-2.0
//
// Threads: any; `visible` is read without the mutex on every record.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "agent/unique_fd.h"

namespace egresswatch::journal {

struct Tail {
    struct Listener {
        std::string name;   // empty: not part of the delivery account
        int event_fd = -1;  // owned by the reader
        std::uint64_t delivered = 0;
    };

    std::atomic<std::uint64_t> visible{0};

    void publish(std::uint64_t seq);  // never goes back
    std::uint64_t add(Listener listener);
    void remove(std::uint64_t id);
    void set_delivered(std::uint64_t id, std::uint64_t seq);
    // Names of the readers that have not delivered `seq`.
    [[nodiscard]] std::vector<std::string> behind(std::uint64_t seq) const;
    // The smallest number that every named reader has delivered; nullopt-like maximum where there is none.
    [[nodiscard]] std::uint64_t delivered_by_all() const;

private:
    mutable std::mutex mutex_;
    std::uint64_t next_id_ = 1;
    std::map<std::uint64_t, Listener> listeners_;
};

}  // namespace egresswatch::journal
