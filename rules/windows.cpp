// rules/windows.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/windows.h"

#include <algorithm>
#include <limits>

#include "rules/limits.h"

namespace egresswatch::rules {

Buckets::Buckets(std::chrono::seconds over) noexcept
    : length_(std::max<std::chrono::nanoseconds>(std::chrono::nanoseconds(over) / limits::window_buckets,
                                                 std::chrono::nanoseconds(1))) {}

std::int64_t Buckets::divide(Known& known, std::int64_t since) const noexcept {
    const std::int64_t whole = since / length_.count();
    known.bucket = since % length_.count() < 0 ? whole - 1 : whole;
    known.start = known.bucket * length_.count();
    return known.bucket;
}

Windows::Windows(Config config, WindowBudget& budget)
    : buckets_(config.over), hash_(config.hash), groups_(config.groups_max, budget) {}

void Windows::insert(Group& group, std::int64_t bucket, const Amounts& amounts) {
    if (group.all == nullptr && (group.first == bucket || group.first == Group::no_bucket))
        return insert_only(group, bucket, amounts);
    if (group.all == nullptr) {
        group.all = std::make_unique<std::vector<Cell>>();
        group.all->push_back({group.first, group.sum});
    }
    group.sum += amounts;
    auto at = group.all->end();
    while (at != group.all->begin() && std::prev(at)->bucket >= bucket) --at;
    if (at == group.all->end() || at->bucket != bucket) {
        at = group.all->insert(at, Cell{bucket, {}});
        ++groups_.budget().cells;
    }
    at->amounts += amounts;
    group.first = group.all->front().bucket;
}

void Windows::age(Group& group, std::int64_t oldest) {
    if (group.first == Group::no_bucket || group.first >= oldest) return;
    const std::size_t before = group.cells();
    if (group.all != nullptr) {
        auto keep = group.all->begin();
        for (; keep != group.all->end() && keep->bucket < oldest; ++keep) group.sum -= keep->amounts;
        group.all->erase(group.all->begin(), keep);
        if (!group.all->empty()) group.first = group.all->front().bucket;
        if (group.all->size() <= 1) {
            group.first = group.all->empty() ? Group::no_bucket : group.first;
            group.all.reset();
        }
    } else {
        group.sum = {};
        group.first = Group::no_bucket;
    }
    groups_.budget().cells -= before - group.cells();
}

Windows::Amounts Windows::amounts(const GroupKey& key, Timestamp end) const {
    const auto* found = groups_.find(key, hash_(key));
    if (found == nullptr) return {};
    const Group& group = found->payload;
    const std::int64_t oldest = buckets_.oldest(end);
    if (group.all == nullptr) return group.first < oldest ? Amounts{} : group.sum;
    Amounts out = group.sum;
    for (const Cell& cell : *group.all) {
        if (cell.bucket >= oldest) break;
        out -= cell.amounts;
    }
    return out;
}

void Windows::clear(const GroupKey& key) {
    if (auto* found = groups_.find(key, hash_(key)); found != nullptr) groups_.erase(*found);
}

void Windows::save(StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(groups_.size()));
    groups_.each([&](const auto& slot) {
        const Group& group = slot.payload;
        out.put(slot.key);
        out.put(static_cast<std::uint64_t>(group.cells()));
        if (group.all == nullptr && group.first != Group::no_bucket) out.put(Cell{group.first, group.sum});
        if (group.all != nullptr)
            for (const Cell& cell : *group.all) out.put(cell);
    });
}

// By the order of activity in which they were saved.
void Windows::restore(StateReader& in) {
    const std::uint64_t groups = in.count(sizeof(GroupKey));
    for (std::uint64_t i = 0; i < groups && in.ok(); ++i) {
        const auto key = in.get<GroupKey>();
        const std::uint64_t cells = in.count(sizeof(Cell));
        auto& slot = groups_.find_or_make(key, hash_(key));
        for (std::uint64_t c = 0; c < cells; ++c) {
            const auto cell = in.get<Cell>();
            groups_.touch(slot, cell.bucket);
            insert(slot.payload, cell.bucket, cell.amounts);
        }
        groups_.make_room(slot);
    }
}

DistinctWindows::DistinctWindows(Config config, WindowBudget& budget)
    : buckets_(config.over),
      hash_(config.hash),
      count_max_(config.count_max),
      weigh_once_(config.weigh_once),
      groups_(config.groups_max, budget) {}

DistinctWindows::Count DistinctWindows::add(const GroupKey& key, std::uint64_t hash, std::uint64_t value,
                                            std::uint64_t weight, Timestamp at, Timestamp end) {
    const std::int64_t oldest = buckets_.oldest(end);
    const std::int64_t bucket = buckets_.of(at);
    Count out;
    out.late = bucket < oldest;
    if (out.late) return out;
    auto& slot = groups_.find_or_make(key, hash);
    groups_.touch(slot, bucket);
    std::vector<Seen>& seen = slot.payload.seen;
    auto place = std::ranges::lower_bound(seen, value, {}, &Seen::value);
    if (place != seen.end() && place->value == value) {
        if (place->bucket < oldest) place->weight = 0;
        place->bucket = std::max(place->bucket, bucket);
        if (!weigh_once_ || place->weight == 0) place->weight += weight;
    } else {
        seen.insert(place, {value, bucket, weight});
        ++groups_.budget().cells;
        // What has left the window is looked for only when it could matter.
        if (seen.size() >= count_max_) {
            const std::size_t before = seen.size();
            std::erase_if(seen, [&](const Seen& s) { return s.bucket < oldest; });
            groups_.budget().cells -= before - seen.size();
        }
    }
    out.values = seen.size();
    if (seen.size() >= count_max_) {
        std::int64_t first = bucket;
        double sum = 0;
        for (const Seen& s : seen) {
            first = std::min(first, s.bucket);
            sum += static_cast<double>(s.weight);
        }
        out.start = buckets_.start(first);
        out.mean_weight = sum / static_cast<double>(seen.size());
    }
    groups_.make_room(slot);
    return out;
}

std::uint64_t DistinctWindows::count(const GroupKey& key, Timestamp end) const {
    const auto* found = groups_.find(key, hash_(key));
    if (found == nullptr) return 0;
    const std::int64_t oldest = buckets_.oldest(end);
    return static_cast<std::uint64_t>(
        std::ranges::count_if(found->payload.seen, [&](const Seen& s) { return s.bucket >= oldest; }));
}

void DistinctWindows::clear(const GroupKey& key) {
    if (auto* found = groups_.find(key, hash_(key)); found != nullptr) groups_.erase(*found);
}

void DistinctWindows::save(StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(groups_.size()));
    groups_.each([&](const auto& slot) {
        out.put(slot.key);
        out.put(slot.activity);
        out.put(static_cast<std::uint64_t>(slot.payload.seen.size()));
        for (const Seen& seen : slot.payload.seen) out.put(seen);
    });
}

void DistinctWindows::restore(StateReader& in) {
    const std::uint64_t groups = in.count(sizeof(GroupKey));
    for (std::uint64_t i = 0; i < groups && in.ok(); ++i) {
        const auto key = in.get<GroupKey>();
        const auto activity = in.get<std::int64_t>();
        const std::uint64_t values = in.count(sizeof(Seen));
        auto& slot = groups_.find_or_make(key, hash_(key));
        groups_.touch(slot, activity);
        std::vector<Seen>& seen = slot.payload.seen;
        for (std::uint64_t v = 0; v < values; ++v) seen.push_back(in.get<Seen>());
        std::ranges::sort(seen, {}, &Seen::value);
        groups_.budget().cells += seen.size();
        groups_.make_room(slot);
    }
}

Suppressions::Suppressions(std::size_t entries_max, GroupHash hash)
    : entries_max_(entries_max), entries_(0, hash) {}

bool Suppressions::repeat(const GroupKey& key, Timestamp at) {
    const auto found = entries_.find(key);
    if (found == entries_.end() || at >= found->second.until) return false;
    ++found->second.repeats;
    return true;
}

bool Suppressions::active(const GroupKey& key, Timestamp at) const {
    if (entries_.empty()) return false;
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

void Suppressions::save(StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(by_order_.size()));
    for (const auto& [order, key] : by_order_) {
        const Entry& entry = entries_.find(key)->second;
        out.put(key);
        out.put(entry.until);
        out.put(entry.repeats);
    }
}

void Suppressions::restore(StateReader& in) {
    const std::uint64_t entries = in.count(sizeof(GroupKey));
    for (std::uint64_t i = 0; i < entries && in.ok(); ++i) {
        const auto key = in.get<GroupKey>();
        start(key, in.get<Timestamp>());
        entries_[key].repeats = in.get<std::uint64_t>();
    }
}

}  // namespace egresswatch::rules
