// agent/daemon/policy_state.h - what is in force: policy, geo data, host addresses, and the table made of
// them. SPDX-License-Identifier: Apache-2.0
//
// Immutable once built: a reload builds another one beside it and swaps a pointer; a build that fails leaves
// everything as it was. Threads: build on any thread.
#pragma once

#include <expected>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "classifier/address.h"
#include "classifier/flow_update.h"
#include "classifier/region/asn_data.h"
#include "classifier/region/geo_data.h"
#include "classifier/region/region_table.h"
#include "rules/policy.h"

namespace egresswatch::daemon {

// Which file it is, and that it is still the same one: a file that was replaced has another.
struct FileIdentity {
    std::uint64_t device = 0, inode = 0, bytes = 0;
    std::int64_t modified_ns = 0;

    bool operator==(const FileIdentity&) const = default;
};

struct PolicyState {
    std::shared_ptr<const rules::Policy> policy;
    std::shared_ptr<const GeoData> geo;
    std::shared_ptr<const AsnData> asn;  // null: not configured
    std::filesystem::path geo_path;
    FileIdentity geo_identity;
    std::vector<Address> host_addresses;
    std::shared_ptr<const RegionTable> table;
    std::vector<std::string> warnings;  // of the policy, one line each
    Timestamp since{};
};

struct PolicySources {
    std::filesystem::path policy_dir;
    std::string geo_file;  // empty: find_geo_file()
    std::string asn_file;  // empty: AS numbers are unknown
    std::string site;      // of this host
};

// Why nothing new came into force.
struct PolicyProblems {
    std::vector<std::string> lines;  // "file:line:column: message", for records and status
    std::string report;              // with source lines and carets, for the log
    std::string content_hash;        // of the policy that was refused; empty where a file cannot be read
};

// The policy anew. `previous` gives class ids that must keep their meaning; may be null. Of `in_force` (may
// be null) the geo data are kept where their file is the same, and the table where nothing that it is made of
// has changed.
[[nodiscard]] std::expected<PolicyState, PolicyProblems> build_policy_state(
    const PolicySources& sources, std::vector<Address> host_addresses, const RegionTable* previous,
    const PolicyState* in_force, Timestamp now);

// The same policy and geo data with other addresses of this host.
[[nodiscard]] std::expected<PolicyState, PolicyProblems> with_host_addresses(
    const PolicyState& state, std::vector<Address> host_addresses);

}  // namespace egresswatch::daemon
