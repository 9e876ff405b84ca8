// agent/daemon/service_manager.h - tells systemd where we are (Type=notify, WatchdogSec=). Without systemd
// every call does nothing. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

namespace egresswatch::daemon {

class ServiceManager {
public:
    ServiceManager();  // reads NOTIFY_SOCKET and WATCHDOG_USEC

    void ready(const std::string& status) const;
    void reloading() const;
    void stopping() const;
    void status(const std::string& text) const;
    // Call it from the loop: sends WATCHDOG=1 when half of the interval has gone.
    void alive(std::chrono::steady_clock::time_point now);

private:
    std::chrono::microseconds watchdog_{0};
    std::chrono::steady_clock::time_point last_alive_{};
};

}  // namespace egresswatch::daemon
