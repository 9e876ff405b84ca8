// agent/resolvers.h - which name servers' answers count: from the words of people to addresses.
//
// In:      "any", "system", "local", addresses and prefixes; resolv.conf(5) of this machine.
// Out:     inspect::Resolvers.   Threads: any.   Fails: a file that cannot be read names no server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "classifier/address.h"
#include "classifier/inspect/resolvers.h"

namespace egresswatch {

struct ResolverSettings {
    bool any = false;
    bool system = false;  // those that this machine is set up to ask
    bool local = false;   // loopback, private and link-local addresses, and `local_networks`
    std::vector<Prefix> prefixes{};
};

// Adds one word; false where it is none of those above.
[[nodiscard]] bool add_resolver(std::string_view word, ResolverSettings& to);

// The second has whom systemd-resolved asks, where the first names only its own address.
inline constexpr const char* resolver_files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"};

[[nodiscard]] inspect::Resolvers resolvers_of(const ResolverSettings& settings,
                                              std::span<const Prefix> local_networks,
                                              std::span<const char* const> files = resolver_files);

}  // namespace egresswatch
