// agent/daemon/policy_state.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/policy_state.h"

#include "agent/geo_path.h"

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
                                                              const RegionTable* previous, Timestamp now) {
    PolicyState state;
    state.since = now;
    state.host_addresses = std::move(host_addresses);
    auto loaded = rules::load_policy(sources.policy_dir);
    if (!loaded) return std::unexpected(problems_of(loaded.error()));
    state.policy = std::move(loaded->policy);
    for (const auto& warning : loaded->warnings) state.warnings.push_back(rules::format_short(warning));
    for (const auto& warning : rules::data_warnings(*state.policy, false))
        state.warnings.push_back(rules::format_short(warning));
    for (const auto& warning : rules::expiry_warnings(*state.policy, now))
        state.warnings.push_back(rules::format_short(warning));

    auto path = find_geo_file(sources.geo_file);
    if (!path) return std::unexpected(problem(path.error()));
    auto geo = GeoData::open(*path);
    if (!geo) return std::unexpected(problem("geo data: " + geo.error().message));
    state.geo_path = std::move(*path);
    state.geo = std::make_shared<const GeoData>(std::move(*geo));
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
