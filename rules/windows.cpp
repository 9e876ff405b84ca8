// rules/windows.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/windows.h"

#include <algorithm>
#include <limits>

#include "rules/limits.h"

namespace egresswatch::rules {

Windows::Windows(Config config, WindowBudget& budget)
    : bucket_(std::max<std::chrono::nanoseconds>(
          std::chrono::nanoseconds(config.over) / limits::window_buckets, std::chrono::nanoseconds(1))),
      groups_max_(config.groups_max),
      budget_(budget),
      groups_(0, GroupHash{config.seed}) {}

Windows::~Windows() {
    budget_.groups -= groups_.size();
    for (const auto& [key, group] : groups_) budget_.cells -= group.cells.size();
}

std::int64_t Windows::bucket_of(Timestamp at) const noexcept {
    const std::int64_t since = at.time_since_epoch().count();
    const std::int64_t whole = since / bucket_.count();
    return since % bucket_.count() < 0 ? whole - 1 : whole;
}

Windows::Sum Windows::add(const GroupKey& key, std::uint64_t amount, bool new_flow, Timestamp at,
                          Timestamp end) {
    const std::int64_t head = bucket_of(end);
    const std::int64_t oldest = head - static_cast<std::int64_t>(limits::window_buckets);
    const std::int64_t bucket = bucket_of(at);
    if (bucket < oldest) return {.late = true};
    Group& group = find_or_make(key);
    // Order of activity by buckets: what was active in this bucket already stays where it is, which saves the
    // cache misses of its neighbours.
    if (bucket > group.newest) {
        group.newest = bucket;
        unlink(group);
        link_newest(group);
    }
    age(group, oldest);
    insert(group, bucket, amount, new_flow);
    make_room(group);
    const std::chrono::nanoseconds start(group.cells.front().bucket * bucket_.count());
    return {false, group.value, group.flows, Timestamp(start)};
}

void Windows::insert(Group& group, std::int64_t bucket, std::uint64_t amount, bool new_flow) {
    auto at = group.cells.end();
    while (at != group.cells.begin() && std::prev(at)->bucket >= bucket) --at;
    if (at == group.cells.end() || at->bucket != bucket) {
        at = group.cells.insert(at, Cell{bucket, 0, 0});
        ++budget_.cells;
    }
    at->value += amount;
    group.value += amount;
    at->flows += new_flow ? 1 : 0;
    group.flows += new_flow ? 1 : 0;
}

std::uint64_t Windows::value(const GroupKey& key, Timestamp end) const {
    const auto found = groups_.find(key);
    if (found == groups_.end()) return 0;
    const std::int64_t oldest = bucket_of(end) - static_cast<std::int64_t>(limits::window_buckets);
    std::uint64_t out = found->second.value;
    for (const Cell& cell : found->second.cells) {
        if (cell.bucket >= oldest) break;
        out -= cell.value;
    }
    return out;
}

void Windows::clear(const GroupKey& key) {
    if (const auto found = groups_.find(key); found != groups_.end()) erase(found->second);
}

void Windows::drop_empty(Timestamp end, std::size_t steps) {
    const std::int64_t oldest = bucket_of(end) - static_cast<std::int64_t>(limits::window_buckets);
    while (oldest_ != nullptr && steps-- > 0 && oldest_->newest < oldest) erase(*oldest_);
}

void Windows::age(Group& group, std::int64_t oldest) {
    auto keep = group.cells.begin();
    for (; keep != group.cells.end() && keep->bucket < oldest; ++keep) {
        group.value -= keep->value;
        group.flows -= keep->flows;
    }
    budget_.cells -= static_cast<std::size_t>(keep - group.cells.begin());
    group.cells.erase(group.cells.begin(), keep);
}

void Windows::unlink(Group& group) noexcept {
    (group.older != nullptr ? group.older->newer : oldest_) = group.newer;
    (group.newer != nullptr ? group.newer->older : newest_) = group.older;
    group.older = group.newer = nullptr;
}

void Windows::link_newest(Group& group) noexcept {
    group.older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = &group;
    newest_ = &group;
}

void Windows::erase(Group& group) {
    unlink(group);
    budget_.cells -= group.cells.size();
    --budget_.groups;
    groups_.erase(groups_.find(*group.key));
}

Windows::Group& Windows::find_or_make(const GroupKey& key) {
    const auto [at, is_new] = groups_.try_emplace(key);
    if (is_new) {
        at->second.key = &at->first;
        at->second.newest = std::numeric_limits<std::int64_t>::min();
        link_newest(at->second);
        ++budget_.groups;
    }
    return at->second;
}

// A rule never evicts the group that it is adding to: each rule has at least one, whatever the others hold.
void Windows::make_room(const Group& keep) {
    while (oldest_ != &keep && (groups_.size() > groups_max_ || budget_.groups > budget_.groups_max ||
                                budget_.cells > budget_.cells_max)) {
        erase(*oldest_);
        ++evicted_;
    }
}

Suppressions::Suppressions(std::size_t entries_max, std::uint64_t seed)
    : entries_max_(entries_max), entries_(0, GroupHash{seed}) {}

bool Suppressions::repeat(const GroupKey& key, Timestamp at) {
    const auto found = entries_.find(key);
    if (found == entries_.end() || at >= found->second.until) return false;
    ++found->second.repeats;
    return true;
}

bool Suppressions::active(const GroupKey& key, Timestamp at) const {
    const auto found = entries_.find(key);
    return found != entries_.end() && at < found->second.until;
}

std::uint64_t Suppressions::start(const GroupKey& key, Timestamp until) {
    Entry& entry = entries_[key];
    const std::uint64_t repeats = entry.repeats;
    by_order_.erase(entry.order);
    entry = {until, 0, ++next_order_};
    by_order_.emplace(entry.order, key);
    while (entries_.size() > entries_max_) {
        entries_.erase(by_order_.begin()->second);
        by_order_.erase(by_order_.begin());
        ++evicted_;
    }
    return repeats;
}

// Repeats that were not told yet keep their entry: the next finding of the group tells them.
void Suppressions::drop_ended(Timestamp at, std::size_t steps) {
    for (auto next = by_order_.begin(); next != by_order_.end() && steps-- > 0;) {
        const auto found = entries_.find(next->second);
        if (found->second.until > at) break;
        if (found->second.repeats > 0) {
            ++next;
            continue;
        }
        entries_.erase(found);
        next = by_order_.erase(next);
    }
}

}  // namespace egresswatch::rules
