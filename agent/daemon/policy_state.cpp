// agent/daemon/policy_state.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/policy_state.h"

#include <sys/stat.h>

#include <algorithm>

#include "agent/geo_path.h"
#include "rules/policy_files.h"

namespace egresswatch::daemon {

namespace {

PolicyProblems problem(std::string line) {
    PolicyProblems problems;
    problems.report = line + "\n";
    problems.lines.push_back(std::move(line));
    return problems;
}

PolicyProblems problems_of(const std::vector<rules::Diagnostic>& diagnostics) {
    PolicyProblems problems;
    for (const auto& diagnostic : diagnostics) {
        problems.lines.push_back(rules::format_short(diagnostic));
        problems.report += rules::format_diagnostic(diagnostic);
    }
    problems.report += rules::format_counts(diagnostics) + "\n";
    return problems;
}

FileIdentity identity_of(const std::filesystem::path& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return {};
    return {info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size),
            info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec};
}

std::expected<void, PolicyProblems> open_geo(PolicyState& state, const std::string& geo_file,
                                             const PolicyState* in_force) {
    auto path = find_geo_file(geo_file);
    if (!path) return std::unexpected(problem(path.error()));
    state.geo_path = std::move(*path);
    state.geo_identity = identity_of(state.geo_path);
    if (in_force != nullptr && state.geo_path == in_force->geo_path &&
        state.geo_identity == in_force->geo_identity) {
        state.geo = in_force->geo;
        return {};
    }
    auto geo = GeoData::open(state.geo_path);
    if (!geo) return std::unexpected(problem("geo data: " + geo.error().message));
    state.geo = std::make_shared<const GeoData>(std::move(*geo));
    return {};
}

bool same(const RegionSpec& a, const RegionSpec& b) {
    return a.home_countries == b.home_countries && a.home_prefixes == b.home_prefixes &&
           a.unknown_is_home == b.unknown_is_home && a.list_names == b.list_names &&
           std::ranges::equal(a.list_prefixes, b.list_prefixes,
                              [](const PolicyPrefix& x, const PolicyPrefix& y) {
                                  return x.prefix == y.prefix && x.list == y.list;
                              });
}

std::expected<void, PolicyProblems> compile_table(PolicyState& state, const RegionTable* previous) {
    RegionSpec spec = state.policy->region_spec();
    for (const Address& address : state.host_addresses)
        spec.host_addresses.push_back(Prefix::containing(address, address.is_ipv4() ? 32 : 128));
    auto table = compile_region_table(*state.geo, spec, previous);
    if (!table) return std::unexpected(problem("region table: " + table.error().message));
    state.table = std::move(*table);
    return {};
}

}  // namespace

std::expected<PolicyState, PolicyProblems> build_policy_state(const PolicySources& sources,
                                                              std::vector<Address> host_addresses,
                                                              const RegionTable* previous,
                                                              const PolicyState* in_force, Timestamp now) {
    PolicyState state;
    state.since = now;
    state.host_addresses = std::move(host_addresses);
    auto loaded = rules::load_policy(sources.policy_dir);
    if (!loaded) {
        PolicyProblems problems = problems_of(loaded.error());
        problems.content_hash = rules::content_hash(sources.policy_dir).value_or("");
        return std::unexpected(std::move(problems));
    }
    state.policy = std::move(loaded->policy);
    for (const auto& warning : loaded->warnings) state.warnings.push_back(rules::format_short(warning));
    for (const auto& warning : rules::data_warnings(*state.policy, !sources.asn_file.empty()))
        state.warnings.push_back(rules::format_short(warning));
    if (!rules::has_site(*state.policy, sources.site))
        state.warnings.push_back(
            "the policy has no site \"" + sources.site +
            "\", which egresswatch.yaml says that this host is of: rules and entries of a site leave it out");
    for (const auto& warning : rules::expiry_warnings(*state.policy, now))
        state.warnings.push_back(rules::format_short(warning));
    if (auto opened = open_geo(state, sources.geo_file, in_force); !opened)
        return std::unexpected(opened.error());
    if (!sources.asn_file.empty()) {
        auto asn = AsnData::open(sources.asn_file);
        if (!asn) return std::unexpected(problem("AS data: " + asn.error().message));
        state.asn = std::move(*asn);
    }
    if (in_force != nullptr && state.geo == in_force->geo &&
        state.host_addresses == in_force->host_addresses &&
        same(state.policy->region_spec(), in_force->policy->region_spec())) {
        state.table = in_force->table;
        return state;
    }
    if (auto compiled = compile_table(state, previous); !compiled) return std::unexpected(compiled.error());
    return state;
}

std::expected<PolicyState, PolicyProblems> with_host_addresses(const PolicyState& state,
                                                               std::vector<Address> host_addresses) {
    PolicyState next = state;
    next.host_addresses = std::move(host_addresses);
    if (auto compiled = compile_table(next, state.table.get()); !compiled)
        return std::unexpected(compiled.error());
    return next;
}

}  // namespace egresswatch::daemon
