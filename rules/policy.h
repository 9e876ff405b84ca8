// rules/policy.h - a policy as it is in force: compiled, immutable, shared between threads.
// SPDX-License-Identifier: Apache-2.0
//
// In:      *.yaml files of one directory, or one file.  Out: Policy, or every diagnostic of the set at once.
// Threads: loading on the control thread; a loaded policy on any.
// Limits:  rules/limits.h.
// Fails:   diagnostics with place and cure; never a half-loaded policy.
// Not here: counting windows (evaluator.h), the file syntax (schema.h, yaml_reader.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"
#include "rules/diagnostics.h"
#include "rules/finding.h"

namespace egresswatch::rules {

// An answer over fields of which some may not be known. `unknown` never satisfies an allow entry.
enum class Truth : std::uint8_t { no, unknown, yes };

// l4_proto 0: any protocol that has ports.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    std::uint8_t l4_proto = 0;
};

struct NamedSet {  // a value of `list:` or of `region:` that is a name
    std::string name{};
    std::set<Country> countries;
    std::optional<std::uint16_t> prefixes;  // index into RegionSpec::list_names; none: it holds no CIDRs
    bool has_unknown = false;  // it also holds values whose source this version does not have (ASN, domain)
};

// A selection over flow fields: all members that are set must hold. Within one member any value is enough.
struct Match {
    // Decided by the destination class alone: evaluated once a class, not once an update.
    std::uint8_t kinds = 0;         // bit 1 << region_kind; 0 and no region_names: any
    std::vector<NamedSet> regions;  // named regions; beside `kinds`, either is enough
    std::set<Country> countries;    // with country_unknown; both empty: any
    bool country_unknown = false;
    std::vector<NamedSet> lists;
    std::optional<std::uint16_t> prefixes;  // CIDRs written in place: index into RegionSpec::list_names
    // Decided by the flow.
    std::optional<bool> allowed;
    std::optional<datapath::initiator> initiator;
    std::vector<std::uint8_t> l4_protos;
    std::vector<PortRange> ports;  // remote
    std::vector<PortRange> local_ports;
    std::uint16_t tunnels = 0;  // bit 1 << tunnel_kind; 0: any
    // Names of the fields it asks for whose source this version does not have: each is unknown.
    std::vector<std::string> unknown_fields;

    std::string cidr_text, port_text, local_port_text;  // as written, for explanations
};

struct Ceiling {
    std::uint64_t bytes_out = 0;
    std::chrono::seconds per{};
};

struct Expiry {
    Timestamp at{};    // the first instant at which it is over
    std::string text;  // as written
    SourceSpan place;
    std::string source_line;
};

struct AllowEntry {
    std::string id;
    Match match;  // of `to`, `from` and `direction`
    std::optional<Ceiling> ceiling;
    std::string owner, reason, ticket, legal_basis;
    Expiry expires;
    SourceSpan place;
};

enum class GroupBy : std::uint8_t { remote, remote_prefix, country, unknown_field };

struct RuleException {
    Match match;
    std::string owner, ticket, reason;
    Expiry expires;
};

struct Rule {
    std::string id, title;
    std::uint32_t revision = 1;
    Level level = Level::low;
    std::vector<std::string> tags;
    Match when;
    Measure measure = Measure::bytes_out;
    std::chrono::seconds over{};
    std::vector<GroupBy> by;              // without fields of unknown source
    std::vector<std::string> by_unknown;  // those
    std::uint64_t at_least = 0;
    std::chrono::seconds suppress_for{};  // default: `over`
    std::vector<GroupBy> suppress_by;     // default: `by`
    std::vector<RuleException> exceptions;
    bool active = true;  // false: it asks for what this version cannot know, and so can never fire
    // Equal for two rules that count the same things in the same windows: when, window, suppress, exceptions.
    std::string definition;
    SourceSpan place;
};

struct Site {
    std::string name, title;
    Country country;
    std::optional<double> latitude, longitude;
};

struct Region {
    std::string name;
    std::set<Country> countries;  // groups resolved at `as_of`
    std::vector<Prefix> prefixes;
    bool has_asns = false;
};

class Policy {
public:
    std::string name;
    std::uint64_t revision = 0;
    std::string owner;
    std::vector<Site> sites;
    std::vector<Region> regions;
    std::string home;  // name of the home region
    std::vector<AllowEntry> allows;
    std::vector<Rule> rules;
    std::vector<std::string> files;  // in the order in which they were read

    // What the region table has to be compiled from; list indices of Match are indices into it.
    [[nodiscard]] const RegionSpec& region_spec() const noexcept { return region_spec_; }
    // SHA-256, lower-case hex, over the files' names and contents in order.
    [[nodiscard]] const std::string& content_hash() const noexcept { return content_hash_; }
    [[nodiscard]] const Site* find_site(std::string_view site_name) const noexcept;
    // Of a class's lists, the names that the policy's author gave: not the CIDRs written in place.
    [[nodiscard]] std::vector<std::string> named_lists(const ClassInfo& info) const;

private:
    friend class PolicyBuilder;
    RegionSpec region_spec_;
    std::vector<std::uint8_t> list_is_named_;  // index as in region_spec_.list_names
    std::string content_hash_;
};

struct LoadedPolicy {
    std::shared_ptr<const Policy> policy;
    std::vector<Diagnostic> warnings;
};

struct SourceFile {
    std::string name;  // as diagnostics name it
    std::string text;
};

// A directory (its *.yaml, sorted by name) or one file. The error holds warnings too.
[[nodiscard]] Compiled<LoadedPolicy> load_policy(const std::filesystem::path& path);
// The same from memory, files in the order given.
[[nodiscard]] Compiled<LoadedPolicy> compile_policy(std::span<const SourceFile> files);

// What only a date can tell: entries that have expired by `now`, or will within limits::expiry_notice.
[[nodiscard]] std::vector<Diagnostic> expiry_warnings(const Policy& policy, Timestamp now);

}  // namespace egresswatch::rules
