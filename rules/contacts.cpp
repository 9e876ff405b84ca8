// rules/contacts.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/contacts.h"

#include <algorithm>

namespace egresswatch::rules {

namespace {

std::uint32_t median_of(std::uint32_t* values, std::size_t count) {
    std::nth_element(values, values + count / 2, values + count);
    return values[count / 2];
}

}  // namespace

Periods::Periods(std::chrono::milliseconds gap, std::size_t groups_max, GroupHash hash, WindowBudget& budget)
    : gap_(gap), hash_(hash), groups_(groups_max, budget) {}

std::optional<Periods::Found> Periods::add(const GroupKey& key, std::uint64_t hash, Timestamp at) {
    auto& slot = groups_.find_or_make(key, hash);
    Group& group = slot.payload;
    const bool first = slot.is_new();
    const std::chrono::nanoseconds since = first ? std::chrono::nanoseconds{} : at - group.last;
    if (since < std::chrono::nanoseconds(0)) return std::nullopt;  // late: it belongs to a contact before
    group.last = at;
    groups_.touch(slot, std::chrono::floor<std::chrono::seconds>(at).time_since_epoch().count());
    groups_.make_room(slot);
    if (first || since < gap_) return std::nullopt;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
    group.ms[group.next] = static_cast<std::uint32_t>(std::min<std::int64_t>(ms, 0xffffffff));
    group.next = (group.next + 1) % intervals_max;
    group.count = std::min<std::uint32_t>(group.count + 1, intervals_max);
    return statistic(group);
}

Periods::Found Periods::statistic(const Group& group) {
    std::array<std::uint32_t, intervals_max> values = group.ms;
    const std::size_t count = group.count;
    const std::uint32_t median = median_of(values.data(), count);
    for (std::size_t i = 0; i < count; ++i)
        values[i] = values[i] > median ? values[i] - median : median - values[i];
    const std::uint32_t deviation = median_of(values.data(), count);
    return {count, median / 1000.0, median == 0 ? 0.0 : static_cast<double>(deviation) / median};
}

std::optional<Periods::Found> Periods::find(const GroupKey& key) const {
    const auto* found = groups_.find(key, hash_(key));
    if (found == nullptr || found->payload.count == 0) return std::nullopt;
    return statistic(found->payload);
}

void Periods::clear(const GroupKey& key) {
    if (auto* found = groups_.find(key, hash_(key)); found != nullptr) groups_.erase(*found);
}

void Periods::drop_silent(Timestamp end, std::chrono::seconds silent, std::size_t steps) {
    groups_.drop_before(std::chrono::floor<std::chrono::seconds>(end - silent).time_since_epoch().count(),
                        steps);
}

void Periods::save(StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(groups_.size()));
    groups_.each([&](const auto& slot) {
        out.put(slot.key);
        out.put(slot.payload.last);
        out.put(slot.payload.next);
        out.put(slot.payload.count);
        for (std::size_t i = 0; i < slot.payload.count; ++i) out.put(slot.payload.ms[i]);
    });
}

void Periods::restore(StateReader& in) {
    const std::uint64_t groups = in.count(sizeof(GroupKey));
    for (std::uint64_t i = 0; i < groups && in.ok(); ++i) {
        const auto key = in.get<GroupKey>();
        auto& slot = groups_.find_or_make(key, hash_(key));
        Group& group = slot.payload;
        group.last = in.get<Timestamp>();
        group.next = in.get<std::uint32_t>() % intervals_max;
        group.count = std::min<std::uint32_t>(in.get<std::uint32_t>(), intervals_max);
        for (std::size_t at = 0; at < group.count; ++at) group.ms[at] = in.get<std::uint32_t>();
        groups_.touch(slot, std::chrono::floor<std::chrono::seconds>(group.last).time_since_epoch().count());
        groups_.make_room(slot);
    }
}

LastSeen::LastSeen(std::size_t groups_max, GroupHash hash, WindowBudget& budget)
    : hash_(hash), groups_(groups_max, budget) {}

std::int64_t LastSeen::activity_of(Timestamp at) noexcept {
    return std::chrono::floor<std::chrono::seconds>(at).time_since_epoch().count();
}

std::optional<Timestamp> LastSeen::see(const GroupKey& key, std::uint64_t hash, Timestamp at) {
    auto& slot = groups_.find_or_make(key, hash);
    const bool first = slot.is_new();
    const Timestamp before = slot.payload.last;
    slot.payload.last = first ? at : std::max(before, at);
    groups_.touch(slot, activity_of(at));
    groups_.make_room(slot);
    if (first) return std::nullopt;
    return before;
}

std::optional<Timestamp> LastSeen::find(const GroupKey& key) const {
    const auto* found = groups_.find(key, hash_(key));
    if (found == nullptr) return std::nullopt;
    return found->payload.last;
}

void LastSeen::erase(const GroupKey& key) {
    if (auto* found = groups_.find(key, hash_(key)); found != nullptr) groups_.erase(*found);
}

void LastSeen::drop_before(Timestamp when, std::size_t steps) {
    groups_.drop_before(activity_of(when), steps);
}

void LastSeen::save(StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(groups_.size()));
    groups_.each([&](const auto& slot) {
        out.put(slot.key);
        out.put(slot.payload.last);
    });
}

void LastSeen::restore(StateReader& in) {
    const std::uint64_t groups = in.count(sizeof(GroupKey));
    for (std::uint64_t i = 0; i < groups && in.ok(); ++i) {
        const auto key = in.get<GroupKey>();
        const auto last = in.get<Timestamp>();
        see(key, hash_(key), last);
    }
}

}  // namespace egresswatch::rules
