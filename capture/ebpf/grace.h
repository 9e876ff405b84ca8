// capture/ebpf/grace.h - waits for an RCU grace period without blocking the engine's thread.
//
// tc programs run inside an RCU read-side section. When a grace period that began after a slot was marked
// CLOSING is over, no program run that still saw the slot live goes on: its counters are final.
// Threads:  one helper, made at the first begin(), with every capability given up.
// Cost:     8 to 20 ms of waiting on an idle machine; membarrier(2), or a write to an array-of-maps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace egresswatch::capture {

class GracePeriod {
public:
    // `wait_for_programs` blocks for a grace period where membarrier cannot (nohz_full, one CPU).
    explicit GracePeriod(std::function<void()> wait_for_programs);
    ~GracePeriod();
    GracePeriod(const GracePeriod&) = delete;
    GracePeriod& operator=(const GracePeriod&) = delete;

    void begin();                              // only when none is under way
    [[nodiscard]] bool done() const noexcept;  // the one begun last is over
    void wait() const noexcept;                // a whole one, on this thread

private:
    void run();
    std::function<void()> wait_for_programs_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool wanted_ = false;
    bool stopping_ = false;
    std::atomic<bool> done_{true};
    std::thread helper_;
};

}  // namespace egresswatch::capture
