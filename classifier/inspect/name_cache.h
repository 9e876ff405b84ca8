// classifier/inspect/name_cache.h - which names the resolver has given to which addresses.
//
// In:      answers of DNS, as read_bindings() reports them: the name that was asked, the address at the end
// of
//          its aliases, a time to live; whether the server is one whose answers count (resolvers.h).
// Out:     the names of an address at a time; names that were said not to exist.
// Clock:   packet time. A name holds from its answer until `kept_after_ttl` beyond its time to live: programs
//          keep addresses longer than they may (connection pools, Java's own cache).
//          What other servers say is kept beside, and counts only for what it says of itself.
// Limits:  bindings_max (address, name) pairs, names_of_address_max of one address, denied_max names that do
//          not exist. What is beyond pushes out what was answered longest ago, and is counted.
// Memory:  a binding about 200 B: 7 MB when full.
// Threads: one owner.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "classifier/address.h"
#include "classifier/flow_update.h"

namespace egresswatch::inspect {

struct NameCacheCounters {
    std::uint64_t learned = 0;  // answers, repeated ones too
    std::uint64_t denied = 0;   // negative answers
    std::uint64_t evicted = 0;  // names that went before their time, negative answers too
    std::size_t bindings = 0;   // now
};

class NameCache {
public:
    static constexpr std::size_t bindings_max = 32768;
    static constexpr std::size_t names_of_address_max = 16;
    static constexpr std::size_t denied_max = 4096;
    static constexpr std::chrono::minutes kept_after_ttl{10};
    // RFC 2308 section 5: three hours at the most, commonly far less; the record that says so is not read.
    static constexpr std::chrono::minutes denied_for{5};

    // Those of servers that do not count first; of either kind the newest answer last.
    struct Names {
        std::array<std::string_view, names_of_address_max> name{};
        std::size_t count = 0;
        std::size_t unlisted = 0;  // so many of them, the first ones, no server that counts has said
    };

    NameCache();
    // What a server that does not count says pushes no name of one that does from the address.
    void learn(std::string_view name, const Address& address, std::uint32_t ttl_s, Timestamp at, bool listed);
    void learn_denied(std::string_view name, Timestamp at);

    // Names that hold at some time from `from` on. Valid until the next learn().
    [[nodiscard]] Names names_of(const Address& address, Timestamp from) const;
    // A name of the address had to give way before its time: it may be called what is not here.
    [[nodiscard]] bool is_crowded(const Address& address) const { return crowded_.contains(address); }
    [[nodiscard]] bool is_denied(std::string_view name, Timestamp at) const;
    [[nodiscard]] bool empty() const noexcept { return by_address_.empty(); }
    [[nodiscard]] NameCacheCounters counters() const noexcept;

private:
    struct Binding {
        Address address;
        std::string name;
        Timestamp until{};
        Timestamp listed_until{};  // by servers that count
    };
    using Bindings = std::list<Binding>;
    struct HashAddress {
        std::uint64_t seed;
        std::size_t operator()(const Address& address) const noexcept;
    };
    void drop(Bindings::iterator which);

    Bindings bindings_;  // the newest answer last
    std::unordered_map<Address, std::vector<Bindings::iterator>, HashAddress> by_address_;
    std::unordered_set<Address, HashAddress> crowded_;  // of by_address_
    std::list<std::pair<std::string, Timestamp>> denials_;
    std::unordered_map<std::string_view, std::list<std::pair<std::string, Timestamp>>::iterator> by_denied_;
    NameCacheCounters counters_;
};

}  // namespace egresswatch::inspect
