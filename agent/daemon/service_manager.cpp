// agent/daemon/service_manager.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/service_manager.h"

#include <systemd/sd-daemon.h>
#include <time.h>

#include <cstdint>

namespace egresswatch::daemon {

ServiceManager::ServiceManager() {
    std::uint64_t interval_us = 0;
    if (::sd_watchdog_enabled(0, &interval_us) > 0) watchdog_ = std::chrono::microseconds(interval_us);
}

void ServiceManager::ready(const std::string& status) const {
    ::sd_notify(0, ("READY=1\nSTATUS=" + status).c_str());
}

void ServiceManager::reloading() const {
    // MONOTONIC_USEC= is what Type=notify-reload of systemd 253 asks for beside RELOADING=1.
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto usec =
        static_cast<std::uint64_t>(now.tv_sec) * 1'000'000u + static_cast<std::uint64_t>(now.tv_nsec) / 1000u;
    ::sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec)).c_str());
}

void ServiceManager::stopping() const {
    ::sd_notify(0, "STOPPING=1\nSTATUS=Final drain");
}

void ServiceManager::status(const std::string& text) const {
    ::sd_notify(0, ("STATUS=" + text).c_str());
}

void ServiceManager::alive(std::chrono::steady_clock::time_point now) {
    if (watchdog_.count() == 0 || now - last_alive_ < watchdog_ / 2) return;
    last_alive_ = now;
    ::sd_notify(0, "WATCHDOG=1");
}

}  // namespace egresswatch::daemon
