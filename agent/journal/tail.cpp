// agent/journal/tail.cpp - see tail.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/tail.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <limits>

namespace egresswatch::journal {

void Tail::publish(std::uint64_t seq) {
    const std::lock_guard guard(mutex_);
    if (seq <= visible.load(std::memory_order_relaxed)) return;
    visible.store(seq, std::memory_order_release);
    for (const auto& [id, listener] : listeners_) ::eventfd_write(listener.event_fd, 1);
}

std::uint64_t Tail::add(Listener listener) {
    const std::lock_guard guard(mutex_);
    listeners_.emplace(next_id_, std::move(listener));
    return next_id_++;
}

void Tail::remove(std::uint64_t id) {
    const std::lock_guard guard(mutex_);
    listeners_.erase(id);
}

void Tail::set_delivered(std::uint64_t id, std::uint64_t seq) {
    const std::lock_guard guard(mutex_);
    const auto found = listeners_.find(id);
    if (found != listeners_.end()) found->second.delivered = std::max(found->second.delivered, seq);
}

std::vector<std::string> Tail::behind(std::uint64_t seq) const {
    const std::lock_guard guard(mutex_);
    std::vector<std::string> names;
    for (const auto& [id, listener] : listeners_)
        if (!listener.name.empty() && listener.delivered < seq) names.push_back(listener.name);
    return names;
}

std::uint64_t Tail::delivered_by_all() const {
    const std::lock_guard guard(mutex_);
    std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
    for (const auto& [id, listener] : listeners_)
        if (!listener.name.empty()) least = std::min(least, listener.delivered);
    return least;
}

}  // namespace egresswatch::journal
