// rules/values.h - the scalars of the policy language: text in, value out, or what is permitted instead.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/address.h"
#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"
#include "rules/policy.h"

namespace egresswatch::rules {

struct ValueError {
    std::string code;  // without "rules/"
    std::string message;
    std::string help;
};
template <typename T>
using Value = std::expected<T, ValueError>;

[[nodiscard]] Value<std::uint64_t> parse_whole(std::string_view text, std::uint64_t min, std::uint64_t max);
[[nodiscard]] Value<double> parse_decimal(std::string_view text, double min, double max);
[[nodiscard]] Value<bool> parse_bool(std::string_view text);                      // true, false: nothing else
[[nodiscard]] Value<std::uint64_t> parse_size(std::string_view text);             // "50 MiB": bytes
[[nodiscard]] Value<std::uint64_t> parse_packets(std::string_view text);          // "5000", "10k"
[[nodiscard]] Value<std::chrono::seconds> parse_duration(std::string_view text);  // "10m", "1h30m"
[[nodiscard]] Value<std::chrono::year_month_day> parse_date(std::string_view text);  // "2026-02-01"
// The first instant at which what expires so is over: of a date the midnight (UTC) that ends it; of
// "2026-12-31T12:00:00Z" that instant.
[[nodiscard]] Value<Timestamp> parse_expiry(std::string_view text);
[[nodiscard]] Value<Country> parse_country(std::string_view text);  // "NO", "IE"
[[nodiscard]] Value<Prefix> parse_prefix(std::string_view text);
[[nodiscard]] Value<PortRange> parse_ports(std::string_view text);        // "443/tcp", "8000-8100/udp", "53"
[[nodiscard]] Value<std::uint8_t> parse_l4_proto(std::string_view text);  // "tcp", "47"
[[nodiscard]] Value<std::uint32_t> parse_asn(std::string_view text);      // "64500", "AS64500"
[[nodiscard]] Value<std::string> parse_domain(std::string_view text);     // "example.org", "*.example.org"
[[nodiscard]] Value<std::string> parse_path(std::string_view text);       // absolute
[[nodiscard]] Value<std::string> parse_id(std::string_view text);         // a-z 0-9 - _ .
[[nodiscard]] Value<std::string> parse_sha256(std::string_view text);     // 64 hex digits; answers lower case
// A regular expression behind "re:", or what is wrong with it: RE2 syntax, bounded in time and memory.
[[nodiscard]] Value<std::shared_ptr<const re2::RE2>> parse_pattern(std::string_view text);
[[nodiscard]] bool is_pattern(std::string_view text) noexcept;  // starts with "re:"
// ">= X", "<= X" or "X..Y", both ends inside; of bytes, of anything, of seconds, of bytes a second, of
// instants (nanoseconds since the epoch).
[[nodiscard]] Value<Range> parse_size_range(std::string_view text);
[[nodiscard]] Value<Range> parse_count_range(std::string_view text);
[[nodiscard]] Value<Range> parse_duration_range(std::string_view text);
[[nodiscard]] Value<Range> parse_rate_range(std::string_view text);
[[nodiscard]] Value<Range> parse_instant_range(std::string_view text);
[[nodiscard]] Value<DaySpan> parse_day_span(std::string_view text);  // "20:00-06:00"
[[nodiscard]] Value<std::string> parse_zone(std::string_view text);  // of the system's time zone database
[[nodiscard]] Value<std::string> parse_tag(std::string_view text);
[[nodiscard]] Value<Level> parse_level_word(std::string_view text);

[[nodiscard]] std::string l4_proto_name(std::uint8_t l4_proto);
[[nodiscard]] std::string to_text(std::chrono::seconds duration);  // "10m", "1h30m"

// Text of the author's in a message: on one line, cut where it is long.
[[nodiscard]] std::string shown(std::string_view text);
[[nodiscard]] std::string in_quotes(std::string_view text);
// The candidate that is nearest to `word`, if it is near enough to be meant; empty otherwise.
[[nodiscard]] std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);
// "a, b or c"
[[nodiscard]] std::string one_of(std::span<const std::string_view> words);

}  // namespace egresswatch::rules
