// capture/ebpf/grace.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/grace.h"

#include <linux/capability.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace egresswatch::capture {
namespace {

void give_up_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
    ::syscall(SYS_capset, &header, none);
}

}  // namespace

GracePeriod::GracePeriod(std::function<void()> wait_for_programs)
    : wait_for_programs_(std::move(wait_for_programs)) {}

GracePeriod::~GracePeriod() {
    if (!helper_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    helper_.join();
}

void GracePeriod::wait() const noexcept {
    // MEMBARRIER_CMD_GLOBAL is synchronize_rcu() where there is more than one CPU
    // (kernel/sched/membarrier.c).
    if (::sysconf(_SC_NPROCESSORS_ONLN) > 1 && ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)
        return;
    wait_for_programs_();
}

void GracePeriod::begin() {
    done_.store(false, std::memory_order_relaxed);
    {
        const std::lock_guard lock(mutex_);
        wanted_ = true;
    }
    if (!helper_.joinable()) helper_ = std::thread([this] { run(); });
    wake_.notify_one();
}

bool GracePeriod::done() const noexcept {
    return done_.load(std::memory_order_acquire);
}

void GracePeriod::run() {
    give_up_capabilities();
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return wanted_ || stopping_; });
        if (stopping_) return;
        wanted_ = false;
        lock.unlock();
        wait();
        done_.store(true, std::memory_order_release);
        lock.lock();
    }
}

}  // namespace egresswatch::capture
