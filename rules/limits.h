// rules/limits.h - every bound of the policy language and of the windows, and what happens at it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace egresswatch::rules::limits {

// Reading. Beyond any of them the file is refused with a diagnostic that names the limit.
inline constexpr std::size_t file_bytes_max = 4u << 20;  // one policy file
inline constexpr std::size_t files_max = 256;            // *.yaml in a policy directory
inline constexpr std::size_t yaml_depth_max = 24;        // nested collections; the language needs 6
inline constexpr std::size_t yaml_nodes_max = 400'000;   // values in one file, each use of an alias counted
inline constexpr std::size_t diagnostics_max = 200;      // per load; the rest is counted in one line

// Compiling.
inline constexpr std::size_t entries_max = 10'000;      // each: rules, allow entries, lists, regions, sites
inline constexpr std::size_t list_items_max = 100'000;  // values of one list
inline constexpr std::size_t id_length_max = 64;        // ids and names
// Lists of prefixes that get classes of the region table, whose CLASSES_MAX is for all combinations with
// countries; lists beyond are looked up in rules/ alone, and totals per class do not tell them apart.
inline constexpr std::size_t lists_in_classes_max = 256;
inline constexpr std::size_t pattern_length_max = 512;        // a regular expression
inline constexpr std::size_t pattern_memory_max = 256 << 10;  // of one: RE2's max_mem
inline constexpr std::size_t patterns_max = 1'000;            // of a policy: at most 250 MiB
inline constexpr std::size_t nesting_max = 8;                 // all, any and not inside each other
inline constexpr std::size_t text_length_max = 512;  // titles, reasons, owners: a syslog message carries them

// Windows. `over` is cut into this many buckets; a sum covers `over` and at most one bucket more.
inline constexpr unsigned window_buckets = 60;
inline constexpr std::chrono::seconds window_over_min{1};
inline constexpr std::chrono::seconds window_over_max{90 * 86400};
// At any of these the group with the oldest activity of the rule that needs room is evicted, and counted.
// About 120 bytes a group (230 where it keeps intervals), 70 more where it has several buckets, and 32 a
// bucket of those or a distinct value in use: at most 15 MiB a rule, and 110 MiB in all; beside these three
// or four pages a rule that has a group.
inline constexpr std::size_t window_groups_max = 65'536;         // groups of one rule
inline constexpr std::size_t window_groups_total_max = 262'144;  // groups of all rules
inline constexpr std::size_t window_cells_total_max = 2u << 20;  // buckets and values in use, all groups
inline constexpr std::uint64_t distinct_max = 4'096;             // `at_least` of distinct values
inline constexpr std::uint64_t periods_min = 4;                  // `at_least` of intervals
inline constexpr std::uint64_t periods_max = 32;                 // that are looked at
// Windows at least this long are saved, and survive a restart.
inline constexpr std::chrono::seconds kept_over_min{3600};
// An allow entry that has covered nothing for this long is told in status.
inline constexpr std::chrono::days unused_after{30};
inline constexpr std::size_t suppressions_max = 65'536;  // suppressed groups of one rule
// Of one address, name and allow entry a contradiction of names is told once in so long; so many are
// remembered.
inline constexpr std::chrono::hours contradiction_quiet{1};
inline constexpr std::size_t contradictions_max = 4'096;

// remote_prefix: the network of the remote address.
inline constexpr std::uint8_t remote_prefix_length4 = 24;
inline constexpr std::uint8_t remote_prefix_length6 = 48;

// `egresswatch check` warns this long before an entry expires.
inline constexpr std::chrono::days expiry_notice{14};

}  // namespace egresswatch::rules::limits
