// tests/unit/rules/support.h - policies and flow updates in few words.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "rules/evaluator.h"
#include "rules/policy.h"
#include "tests/support/catch.h"

inline egresswatch::rules::Compiled<egresswatch::rules::LoadedPolicy> compile_text(std::string text) {
    const std::vector<egresswatch::rules::SourceFile> files{{"policy.yaml", std::move(text)}};
    return egresswatch::rules::compile_policy(files);
}

inline std::string header() {
    return "policy: egresswatch/v1\n"
           "name: case\n"
           "revision: 1\n"
           "owner: secops@example.org\n"
           "regions:\n"
           "  europe: {groups: [EEA], countries: [GB], as_of: 2026-02-01}\n"
           "home: europe\n";
}

// Header and the text; fails the test with the diagnostics where it has errors.
inline std::shared_ptr<const egresswatch::rules::Policy> policy(std::string_view text) {
    auto loaded = compile_text(header() + std::string(text));
    if (!loaded) {
        std::string said;
        for (const auto& diagnostic : loaded.error()) said += format_diagnostic(diagnostic);
        FAIL(said);
    }
    return loaded->policy;
}

// Packet times of the tests: seconds after this instant, which starts a bucket of every window that divides a
// day.
inline constexpr egresswatch::Timestamp day_zero{
    std::chrono::sys_days(std::chrono::year{2026} / std::chrono::month{3} / std::chrono::day{2})};
inline egresswatch::Timestamp at(std::int64_t seconds) {
    return day_zero + std::chrono::seconds(seconds);
}

// The class of an address under a policy, as the region table would answer it.
inline egresswatch::ClassInfo class_of(const egresswatch::rules::Policy& policy, std::string_view remote,
                                       std::string_view country) {
    using namespace egresswatch;
    const RegionSpec& spec = policy.region_spec();
    const Address address = *Address::parse(remote);
    ClassInfo info;
    info.country = country;
    info.kind = country.empty()                                      ? datapath::KIND_UNKNOWN
                : spec.home_countries.contains(std::string(country)) ? datapath::KIND_HOME
                                                                     : datapath::KIND_OUTSIDE;
    for (const PolicyPrefix& prefix : spec.list_prefixes)
        if (prefix.prefix.contains(address) && (info.lists.empty() || info.lists.back() != prefix.list))
            info.lists.push_back(prefix.list);
    std::sort(info.lists.begin(), info.lists.end());
    info.lists.erase(std::unique(info.lists.begin(), info.lists.end()), info.lists.end());
    return info;
}

// An update of a flow's first bytes: totals and deltas are equal.
struct FlowOf {
    egresswatch::FlowUpdate update;

    explicit FlowOf(std::string_view remote, std::uint16_t port = 443, std::uint8_t l4_proto = 6) {
        using namespace egresswatch;
        const auto local = Address::parse("10.0.0.5")->bytes;
        const auto far = Address::parse(remote)->bytes;
        std::memcpy(update.key.local_addr, local.data(), local.size());
        std::memcpy(update.key.remote_addr, far.data(), far.size());
        update.key.local_port = datapath::host16(49152);
        update.key.remote_port = datapath::host16(port);
        update.key.l4_proto = l4_proto;
        update.key.class_id = 1;
        update.initiator = datapath::INITIATOR_LOCAL;
    }
    FlowOf& out(std::uint64_t bytes, std::uint64_t packets = 1) {
        update.delta.bytes_out = bytes;
        update.delta.packets_out = packets;
        update.total = update.delta;
        return *this;
    }
    FlowOf& seen(egresswatch::Timestamp when) {
        update.first_seen = update.last_seen = when;
        return *this;
    }
    FlowOf& class_id(std::uint16_t id) {
        update.key.class_id = id;
        return *this;
    }
    FlowOf& by_remote() {
        update.initiator = egresswatch::datapath::INITIATOR_REMOTE;
        return *this;
    }
};
