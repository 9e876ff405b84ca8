// agent/observation.h - what leaves this host and no allow entry covers, added up by destination: the
// material of `egresswatch learn`. SPDX-License-Identifier: Apache-2.0
//
// In:      flows, from an engine, a capture or the journal.   Out: groups, largest first.
// Threads: one.
// Limits:  groups_max groups and addresses_max addresses in each; what finds no group is in not_grouped().
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"

namespace egresswatch {

struct ObservedGroup {
    Prefix prefix;        // /24 of IPv4, /48 of IPv6: the network of the remote address
    std::string country;  // "unknown" where no source knows
    std::uint8_t l4_proto = 0;
    std::uint16_t port = 0;  // of the service: remote where this host connects; 0: none
    bool remote_connects = false;
    std::string process;  // executable of the sender; empty: unknown

    std::uint64_t flows = 0;
    std::uint64_t bytes_out = 0;
    std::uint64_t bytes_in = 0;
    std::set<Address> addresses;  // remote ones; at most addresses_max
    bool more_addresses = false;
    Timestamp first{};
    Timestamp last{};
};

class Observation {
public:
    static constexpr std::size_t groups_max = 65'536;
    static constexpr std::size_t addresses_max = 64;

    struct Flow {
        Address remote;
        std::string country;
        std::uint8_t l4_proto = 0;
        std::uint16_t remote_port = 0;
        std::uint16_t local_port = 0;
        bool remote_connects = false;
        std::string process;
        bool tunnelled = false;
        bool is_new = true;  // not counted before: a flow's further news add volume only
        std::uint64_t bytes_out = 0;
        std::uint64_t bytes_in = 0;
        Timestamp first{};
        Timestamp last{};
    };
    [[nodiscard]] static Flow flow_of(const FlowUpdate& update, const ClassInfo& info,
                                      const FlowCounters& counters);

    void add(const Flow& flow);
    [[nodiscard]] std::uint64_t not_grouped() const noexcept { return not_grouped_; }
    // Flows in tunnels: in no group, since an entry for what is inside would not cover the tunnel's far end.
    [[nodiscard]] std::uint64_t tunnelled() const noexcept { return tunnelled_; }
    // By bytes out, the largest first.
    [[nodiscard]] std::vector<ObservedGroup> groups() const;

    [[nodiscard]] nlohmann::ordered_json to_json() const;
    // Of another process: nothing where it is not of this form.
    [[nodiscard]] static std::optional<Observation> from_json(const nlohmann::json& json);

private:
    std::map<std::string, ObservedGroup> groups_;  // by what makes a group, as text
    std::uint64_t not_grouped_ = 0;
    std::uint64_t tunnelled_ = 0;
};

}  // namespace egresswatch
