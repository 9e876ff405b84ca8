// classifier/inspect/name_cache.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/name_cache.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace egresswatch::inspect {

namespace {

std::uint64_t random_seed() {
    std::random_device random;
    return static_cast<std::uint64_t>(random()) << 32 | random();
}

std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

// Keyed: who answers chooses the addresses. Constants are the fraction of pi.
std::size_t NameCache::HashAddress::operator()(const Address& address) const noexcept {
    std::uint64_t words[2];
    std::memcpy(words, address.bytes.data(), sizeof words);
    return fold(fold(words[0] ^ seed ^ 0x243f6a8885a308d3ull, 0x13198a2e03707345ull) ^ words[1],
                seed ^ 0xa4093822299f31d1ull);
}

NameCache::NameCache()
    : by_address_(0, HashAddress{random_seed()}), crowded_(0, HashAddress{random_seed()}) {}

void NameCache::drop(Bindings::iterator which) {
    const auto of_address = by_address_.find(which->address);
    std::erase(of_address->second, which);
    if (of_address->second.empty()) {
        crowded_.erase(which->address);
        by_address_.erase(of_address);
    }
    bindings_.erase(which);
}

void NameCache::learn(std::string_view name, const Address& address, std::uint32_t ttl_s, Timestamp at,
                      bool listed) {
    ++counters_.learned;
    if (const auto denied = by_denied_.find(name); listed && denied != by_denied_.end()) {
        const auto which = denied->second;
        by_denied_.erase(denied);
        denials_.erase(which);
    }
    const Timestamp until = at + std::chrono::seconds(ttl_s) + kept_after_ttl;
    auto& known = by_address_[address];
    const auto same = std::ranges::find_if(known, [&](const auto& binding) { return binding->name == name; });
    if (same != known.end()) {
        const auto which = *same;
        which->until = std::max(which->until, until);
        if (listed) which->listed_until = std::max(which->listed_until, until);
        bindings_.splice(bindings_.end(), bindings_, which);
        known.erase(same);
        known.push_back(which);
        return;
    }
    if (known.size() == names_of_address_max) {
        // One whose time is over, where there is one; else one of a server that does not count.
        auto loser = std::ranges::find_if(known, [&](const auto& binding) { return binding->until <= at; });
        if (loser == known.end()) {
            counters_.evicted++;
            loser =
                std::ranges::find_if(known, [&](const auto& binding) { return binding->listed_until <= at; });
            if (loser == known.end() && !listed) return;
            if (loser == known.end()) {
                loser = known.begin();
                crowded_.insert(address);
            }
        }
        bindings_.erase(*loser);
        known.erase(loser);
    }
    bindings_.push_back({address, std::string(name), until, listed ? until : Timestamp{}});
    known.push_back(std::prev(bindings_.end()));
    if (bindings_.size() <= bindings_max) return;
    counters_.evicted += bindings_.front().until > at ? 1 : 0;
    drop(bindings_.begin());
}

void NameCache::learn_denied(std::string_view name, Timestamp at) {
    ++counters_.denied;
    if (const auto known = by_denied_.find(name); known != by_denied_.end()) {
        known->second->second = at + denied_for;
        denials_.splice(denials_.end(), denials_, known->second);
        return;
    }
    denials_.emplace_back(std::string(name), at + denied_for);
    by_denied_.emplace(denials_.back().first, std::prev(denials_.end()));
    if (denials_.size() <= denied_max) return;
    counters_.evicted += denials_.front().second > at ? 1 : 0;
    by_denied_.erase(denials_.front().first);
    denials_.pop_front();
}

NameCache::Names NameCache::names_of(const Address& address, Timestamp from) const {
    Names out;
    const auto known = by_address_.find(address);
    if (known == by_address_.end()) return out;
    for (const auto& binding : known->second)
        if (binding->until >= from && binding->listed_until < from) out.name[out.count++] = binding->name;
    out.unlisted = out.count;
    for (const auto& binding : known->second)
        if (binding->listed_until >= from) out.name[out.count++] = binding->name;
    return out;
}

bool NameCache::is_denied(std::string_view name, Timestamp at) const {
    const auto known = by_denied_.find(name);
    return known != by_denied_.end() && known->second->second >= at;
}

NameCacheCounters NameCache::counters() const noexcept {
    NameCacheCounters out = counters_;
    out.bindings = bindings_.size();
    return out;
}

}  // namespace egresswatch::inspect
