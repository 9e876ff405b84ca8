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
#include <limits>
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
#include "rules/field_table.h"
#include "rules/finding.h"
#include "rules/prefix_index.h"

namespace re2 {
class RE2;
}

namespace egresswatch::rules {

// An answer over fields of which some may not be known. `unknown` never satisfies an allow entry.
enum class Truth : std::uint8_t { no, unknown, yes };

// l4_proto 0: any protocol that has ports.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    std::uint8_t l4_proto = 0;
};

// Both ends inside.
struct Range {
    std::int64_t min = std::numeric_limits<std::int64_t>::min();
    std::int64_t max = std::numeric_limits<std::int64_t>::max();
};

struct DaySpan {  // minutes of the day; `to` is not in it; to < from: over midnight
    std::uint16_t from = 0;
    std::uint16_t to = 0;
};

struct DomainName {
    std::string name;    // small letters, without "*."
    bool below = false;  // *.name: every name below it and not itself
    bool operator==(const DomainName&) const = default;
};

// A set of prefixes: a list of the region table, which the class of an address names, or one of
// prefix_index().
struct PrefixSet {
    std::optional<std::uint16_t> list;  // index into RegionSpec::list_names
    std::optional<std::uint32_t> place_set;
};

struct NamedSet {  // a value of `list:` or of `region:` that is a name
    std::string name{};
    std::set<Country> countries;
    PrefixSet prefixes;  // neither: it holds no CIDRs
    std::vector<std::uint32_t> asns;
    std::vector<DomainName> domains;
    std::vector<std::string> executables;
};

// What one key of a selection asks for: any of its values is enough. Only the members that its field uses are
// set.
struct Predicate {
    Field field{};
    bool unknown = false;       // `unknown` is one of the values
    bool takes_hidden = false;  // the whole condition says of `hidden` what it takes
    std::uint32_t bits =
        0;  // 1 << region_kind, local_kind + 8, tunnel_kind, initiator, weekday, sender_outcome; 1: true
    std::vector<NamedSet> sets;
    std::vector<Country> countries;
    PrefixSet prefixes;
    std::vector<Prefix> cidrs;  // of `prefixes`, where they are written in place
    std::vector<PortRange> ports;
    std::vector<std::uint32_t> numbers;  // protocols, AS numbers, user ids
    std::vector<std::string> texts;
    std::vector<DomainName> domains;
    std::vector<std::shared_ptr<const re2::RE2>> patterns;
    std::vector<Range> ranges;
    std::vector<DaySpan> spans;
    std::string text;  // the values as written, for explanations and for comparing
};

// All predicates must hold, all of `all`, one of `any` if there are any, none of `none`.
struct Condition {
    std::vector<Predicate> predicates;  // those that the class of the address decides come first
    std::size_t flow_from = 0;          // index of the first that it does not
    std::vector<Condition> all, any, none;

    [[nodiscard]] const Predicate* find(Field field) const noexcept;  // of its own predicates
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
    Condition match;  // of `to`, `from`, `when` and `direction`
    std::optional<Ceiling> ceiling;
    std::string owner, reason, ticket, legal_basis;
    Expiry expires;
    SourceSpan place;
};

struct RuleException {
    Condition match;
    std::string owner, ticket, reason;
    Expiry expires;
};

enum class RuleKind : std::uint8_t {
    sum,
    distinct,
    upload_ratio,
    periodic,
    long_lived,
    first_contact,
    sequence
};
[[nodiscard]] std::string_view rule_kind_name(RuleKind kind) noexcept;  // "sum", "distinct", ...

struct Rule {
    std::string id, title;
    std::uint32_t revision = 1;
    Level level = Level::low;
    std::vector<std::string> tags;
    bool test = false;  // `status: test`
    RuleKind kind = RuleKind::sum;
    Condition when;
    Measure measure = Measure::bytes_out;  // sum
    Field distinct{};                      // distinct
    std::string measure_text;              // as findings name what is counted
    std::chrono::seconds over{};           // of a sequence: `within`; first contact: `forget`
    std::vector<Field> by;
    std::uint64_t at_least = 0;  // in the unit of measure_text
    std::uint64_t floor = 0;     // upload_ratio: bytes out below which nothing is compared
    std::optional<std::uint64_t> bytes_each_at_most;  // distinct: mean bytes out for each value
    std::optional<double> entropy_at_least;           // distinct names: mean entropy of their labels
    double jitter_at_most = 0;                        // periodic
    Range every{};                                    // periodic: seconds
    std::chrono::seconds learn{}, forget{};           // first_contact
    std::size_t first = 0, then = 0;                  // sequence: index of rules
    bool counts_inbound = false;                      // looks at updates that send nothing, too
    bool counts_names = false;                        // is fed by Evaluator::observe()
    std::chrono::seconds suppress_for{};              // default: `over`
    std::vector<Field> suppress_by;                   // default: `by`
    std::vector<RuleException> exceptions;
    // Equal for two rules that count the same things in the same windows: when, window, suppress, exceptions.
    std::string definition;
    SourceSpan place;

    [[nodiscard]] std::size_t groups_max() const noexcept;  // that it remembers at the most
};

struct Site {
    std::string name, title;
    Country country;
    std::string timezone;  // empty: UTC
    std::optional<double> latitude, longitude;
};

struct Region {
    std::string name;
    std::set<Country> countries;  // groups resolved at `as_of`
    std::vector<Prefix> prefixes;
    std::vector<std::uint32_t> asns;
};

struct List {
    std::string name;
    NamedSet set;                  // executables too
    std::vector<Prefix> prefixes;  // of set.prefixes
};

class Policy {
public:
    std::string name;
    std::uint64_t revision = 0;
    std::string owner;
    std::vector<Site> sites;
    std::vector<Region> regions;
    std::string home;  // name of the home region
    std::vector<List> lists;
    std::vector<AllowEntry> allows;
    std::vector<Rule> rules;
    std::vector<std::string> files;  // in the order in which they were read

    // What the region table has to be compiled from; PrefixSet::list is an index into it.
    [[nodiscard]] const RegionSpec& region_spec() const noexcept { return region_spec_; }
    // SHA-256, lower-case hex, over the files' names and contents in order.
    [[nodiscard]] const std::string& content_hash() const noexcept { return content_hash_; }
    [[nodiscard]] const Site* find_site(std::string_view site_name) const noexcept;
    // The sets of prefixes that are not in the region table.
    [[nodiscard]] const PrefixIndex& prefix_index() const noexcept { return prefix_index_; }
    // The named lists that contain an address: of the class, and of the place in prefix_index().
    [[nodiscard]] std::vector<std::string> named_lists(const ClassInfo& info, PrefixIndex::Place place) const;

    // The first place that asks for an AS number: without AS data it is unknown.
    [[nodiscard]] const std::optional<Diagnostic>& asks_for_asn() const noexcept { return asks_for_asn_; }

private:
    friend class PolicyBuilder;
    RegionSpec region_spec_;
    std::vector<std::uint8_t> list_is_named_;  // index as in region_spec_.list_names
    PrefixIndex prefix_index_;
    std::optional<Diagnostic> asks_for_asn_;
    std::vector<std::string> place_set_names_;  // index: set of prefix_index_; empty: written in place
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

// What only the loaded data can tell: values that stay unknown without them.
// Whether a host of that site is one that the policy knows; true where it names no sites.
[[nodiscard]] bool has_site(const Policy& policy, std::string_view site);
[[nodiscard]] std::vector<Diagnostic> data_warnings(const Policy& policy, bool has_asn_data);
// What only a date can tell: entries that have expired by `now`, or will within limits::expiry_notice.
[[nodiscard]] std::vector<Diagnostic> expiry_warnings(const Policy& policy, Timestamp now);

}  // namespace egresswatch::rules
