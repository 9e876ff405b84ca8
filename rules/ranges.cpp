// rules/ranges.cpp - the values of values.h that are more than one: ranges, spans of a day, patterns, zones.
// SPDX-License-Identifier: Apache-2.0
#include <re2/re2.h>

#include <algorithm>
#include <charconv>

#include "rules/limits.h"
#include "rules/site_clock.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

std::unexpected<ValueError> bad(std::string code, std::string message, std::string help) {
    return std::unexpected(ValueError{std::move(code), std::move(message), std::move(help)});
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

// `end` reads one end of the range; `example` shows the three forms.
template <typename End>
Value<Range> parse_range(std::string_view text, End end, std::string_view example) {
    const std::string help = "write it as in " + std::string(example);
    const auto refuse = [&](std::string what) { return bad("bad-range", in_quotes(text) + what, help); };
    Range out;
    const std::size_t dots = text.find("..");
    if (text.starts_with(">=") || text.starts_with("<=")) {
        const auto value = end(trimmed(text.substr(2)));
        if (!value) return std::unexpected(value.error());
        (text[0] == '>' ? out.min : out.max) = *value;
        return out;
    }
    if (dots == std::string_view::npos) return refuse(" is not a range");
    const auto low = end(trimmed(text.substr(0, dots)));
    if (!low) return std::unexpected(low.error());
    const auto high = end(trimmed(text.substr(dots + 2)));
    if (!high) return std::unexpected(high.error());
    if (*high < *low) return refuse(" ends before it starts");
    return Range{*low, *high};
}

template <typename T>
Value<std::int64_t> as_end(const Value<T>& value) {
    if (!value) return std::unexpected(value.error());
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return static_cast<std::int64_t>(std::min<std::uint64_t>(*value, most));
}

Value<std::int64_t> rate_end(std::string_view text) {
    if (!text.ends_with("/s"))
        return bad("bad-rate", in_quotes(text) + " is not a rate", "write a size a second, as in 1 MB/s");
    return as_end(parse_size(trimmed(text.substr(0, text.size() - 2))));
}

std::optional<std::uint16_t> minute_of(std::string_view text) {
    unsigned hour = 0, minute = 0;
    const auto read = [](std::string_view digits, unsigned& out) {
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
        return digits.size() == 2 && error == std::errc{} && end == digits.data() + digits.size();
    };
    if (text.size() != 5 || text[2] != ':' || !read(text.substr(0, 2), hour) || !read(text.substr(3), minute))
        return std::nullopt;
    if (minute > 59 || hour * 60 + minute > 24 * 60) return std::nullopt;
    return static_cast<std::uint16_t>(hour * 60 + minute);
}

}  // namespace

Value<Range> parse_size_range(std::string_view text) {
    return parse_range(
        text, [](std::string_view t) { return as_end(parse_size(t)); }, ">= 10 MiB, <= 1 kB or 1 kB..10 kB");
}

Value<Range> parse_count_range(std::string_view text) {
    return parse_range(
        text, [](std::string_view t) { return as_end(parse_packets(t)); }, ">= 100, <= 3 or 10..20");
}

Value<Range> parse_duration_range(std::string_view text) {
    const auto end = [](std::string_view t) -> Value<std::int64_t> {
        const auto value = parse_duration(t);
        if (!value) return std::unexpected(value.error());
        return value->count();
    };
    return parse_range(text, end, ">= 12h, <= 5s or 1m..1h");
}

Value<Range> parse_rate_range(std::string_view text) {
    return parse_range(text, rate_end, ">= 1 MB/s, <= 100 kB/s or 1 kB/s..10 kB/s");
}

Value<Range> parse_instant_range(std::string_view text) {
    // A day at the upper end counts whole, as everywhere; at the lower end from its first moment.
    const auto instant = [](std::string_view t, bool upper) -> Value<std::int64_t> {
        const auto at = parse_expiry(t);
        if (!at) return std::unexpected(at.error());
        const bool day = t.size() <= 10;
        const Timestamp edge = day && !upper ? *at - std::chrono::days(1) : *at;
        return (edge - std::chrono::nanoseconds(day && upper ? 1 : 0)).time_since_epoch().count();
    };
    bool upper = text.starts_with("<=");
    return parse_range(
        text,
        [&](std::string_view t) {
            const auto out = instant(t, upper);
            upper = true;  // of X..Y the second
            return out;
        },
        ">= 2026-12-01, <= 2026-12-31 or 2026-12-01..2026-12-31T12:00:00Z");
}

Value<DaySpan> parse_day_span(std::string_view text) {
    const std::size_t dash = text.find('-');
    const auto from = minute_of(trimmed(text.substr(0, dash)));
    const auto to = dash == std::string_view::npos ? std::nullopt : minute_of(trimmed(text.substr(dash + 1)));
    if (!from || !to || *from == *to || *from == 24 * 60)
        return bad("bad-time-of-day", in_quotes(text) + " is not a span of the day",
                   "write it as in 20:00-06:00: from 00:00 to 24:00, the end is not in it");
    return DaySpan{*from, *to};
}

Value<std::string> parse_sha256(std::string_view text) {
    std::string out;
    for (const char c : text) out += c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c;
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (out.size() == 64 && std::ranges::all_of(out, hex)) return out;
    return bad("bad-sha256", in_quotes(text) + " is not a SHA-256 sum",
               "write its 64 hex digits, as sha256sum prints them");
}

bool is_pattern(std::string_view text) noexcept {
    return text.starts_with("re:");
}

Value<std::shared_ptr<const re2::RE2>> parse_pattern(std::string_view text) {
    if (text.size() > limits::pattern_length_max)
        return bad("bad-pattern", "the regular expression is too long",
                   "write at most " + std::to_string(limits::pattern_length_max) + " bytes");
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(static_cast<std::int64_t>(limits::pattern_memory_max));
    options.set_never_capture(true);
    const std::string_view body = text.substr(3);
    auto out = std::make_shared<const re2::RE2>(re2::StringPiece(body.data(), body.size()), options);
    if (out->ok()) return out;
    return bad("bad-pattern", in_quotes(text) + " is not a regular expression: " + shown(out->error()),
               "write it in RE2 syntax, which has no back references; it has to match the whole value");
}

Value<std::string> parse_zone(std::string_view text) {
    if (SiteClock::knows(text)) return std::string(text);
    return bad("unknown-zone", in_quotes(text) + " is not a time zone of this system",
               "write a name of the time zone database, as in Europe/Dublin, Europe/Oslo or UTC");
}

}  // namespace egresswatch::rules
