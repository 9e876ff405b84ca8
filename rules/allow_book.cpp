// rules/allow_book.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/allow_book.h"

#include <string_view>
#include <unordered_map>

namespace egresswatch::rules {

namespace {

bool same_ceiling(const AllowEntry& a, const AllowEntry& b) {
    return a.ceiling && b.ceiling && a.ceiling->bytes_out == b.ceiling->bytes_out &&
           a.ceiling->per == b.ceiling->per;
}

}  // namespace

void AllowBook::install(const Policy* before, const Policy& next) {
    std::vector<AllowState> states(next.allows.size());
    std::unordered_map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < states_.size(); ++i) by_id.emplace(before->allows[i].id, i);
    for (std::size_t i = 0; i < states.size(); ++i) {
        const AllowEntry& entry = next.allows[i];
        AllowState& state = states[i];
        if (const auto known = by_id.find(entry.id); known != by_id.end()) {
            const AllowEntry& old = before->allows[known->second];
            state = std::move(states_[known->second]);
            if (!same_ceiling(old, entry)) {
                state.volume.reset();
                state.over = false;
            }
            if (old.expires.at != entry.expires.at) state.told_soon = state.told_end = false;
        }
        if (entry.ceiling && !state.volume)
            state.volume = std::make_unique<Windows>(Windows::Config{entry.ceiling->per, 1, hash_}, *budget_);
    }
    states_ = std::move(states);
    next_end_ = Timestamp::min();
}

bool AllowBook::add(const AllowEntry& entry, std::size_t index, std::uint64_t bytes, Timestamp at,
                    Timestamp reached) {
    const Windows::Sum sum = states_[index].volume->add({}, bytes, false, at, reached);
    // Later than the window: it can no longer be counted, and is not held against the entry.
    return sum.late ? used(index, reached) <= entry.ceiling->bytes_out
                    : sum.value <= entry.ceiling->bytes_out;
}

std::uint64_t AllowBook::used(std::size_t index, Timestamp reached) const {
    const AllowState& state = states_[index];
    return state.volume ? state.volume->value({}, reached) : 0;
}

void AllowBook::plan_next(const Policy& policy, Timestamp reached) {
    next_end_ = Timestamp::max();
    for (std::size_t i = 0; i < states_.size(); ++i) {
        const Timestamp end = policy.allows[i].expires.at;
        const Timestamp notice = end - limits::expiry_notice;
        for (const Timestamp when : {notice, end})
            if (when > reached) next_end_ = std::min(next_end_, when);
    }
}

void AllowBook::save(const Policy& policy, StateWriter& out) const {
    out.put(static_cast<std::uint64_t>(states_.size()));
    for (std::size_t i = 0; i < states_.size(); ++i) {
        const AllowState& state = states_[i];
        const AllowEntry& entry = policy.allows[i];
        out.text(entry.id);
        const std::size_t part = out.begin_part();
        out.put(entry.expires.at);
        out.put(entry.ceiling ? entry.ceiling->bytes_out : 0);
        out.put(entry.ceiling ? entry.ceiling->per : std::chrono::seconds{});
        out.put(static_cast<std::uint8_t>((state.told_soon ? 1 : 0) | (state.told_end ? 2 : 0) |
                                          (state.over ? 4 : 0) | (state.last_match ? 8 : 0) |
                                          (state.since ? 16 : 0)));
        out.put(state.matched);
        out.put(state.last_match.value_or(Timestamp{}));
        out.put(state.since.value_or(Timestamp{}));
        if (state.volume) state.volume->save(out);
        out.end_part(part);
    }
}

void AllowBook::restore(const Policy& policy, StateReader& in) {
    std::unordered_map<std::string_view, std::size_t> by_id;
    for (std::size_t i = 0; i < states_.size(); ++i) by_id.emplace(policy.allows[i].id, i);
    const std::uint64_t entries = in.count(12);
    for (std::uint64_t i = 0; i < entries && in.ok(); ++i) {
        const auto known = by_id.find(in.text());
        StateReader part = in.part();
        if (known == by_id.end()) continue;
        const AllowEntry& entry = policy.allows[known->second];
        AllowState& state = states_[known->second];
        const bool same_end = part.get<Timestamp>() == entry.expires.at;
        const auto bytes = part.get<std::uint64_t>();
        const auto per = part.get<std::chrono::seconds>();
        const auto bits = part.get<std::uint8_t>();
        state.matched = part.get<std::uint64_t>();
        const auto last = part.get<Timestamp>();
        const auto since = part.get<Timestamp>();
        if ((bits & 8) != 0) state.last_match = last;
        if ((bits & 16) != 0) state.since = since;
        if (same_end) {
            state.told_soon = (bits & 1) != 0;
            state.told_end = (bits & 2) != 0;
        }
        if (!state.volume || bytes != entry.ceiling->bytes_out || per != entry.ceiling->per) continue;
        state.over = (bits & 4) != 0;
        state.volume->restore(part);
    }
}

}  // namespace egresswatch::rules
