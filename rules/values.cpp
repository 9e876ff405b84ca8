// rules/values.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "rules/limits.h"
#include "rules/region_groups.h"

namespace egresswatch::rules {

namespace {

using namespace std::string_literals;

std::unexpected<ValueError> bad(std::string code, std::string message, std::string help) {
    return std::unexpected(ValueError{std::move(code), std::move(message), std::move(help)});
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_lower(char c) {
    return c >= 'a' && c <= 'z';
}
char to_lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
std::string lower(std::string_view text) {
    std::string out(text);
    std::ranges::transform(out, out.begin(), to_lower);
    return out;
}
std::string upper(std::string_view text) {
    std::string out(text);
    std::ranges::transform(out, out.begin(),
                           [](char c) { return is_lower(c) ? static_cast<char>(c - 32) : c; });
    return out;
}
std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

template <typename T>
bool whole(std::string_view text, T& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

struct Unit {
    std::string_view name;
    std::uint64_t factor;
};
constexpr std::array size_units{
    Unit{"B", 1},
    Unit{"kB", 1000},
    Unit{"MB", 1000'000},
    Unit{"GB", 1000'000'000},
    Unit{"TB", 1000'000'000'000},
    Unit{"KiB", 1ull << 10},
    Unit{"MiB", 1ull << 20},
    Unit{"GiB", 1ull << 30},
    Unit{"TiB", 1ull << 40},
};
constexpr std::array duration_units{Unit{"w", 604'800}, Unit{"d", 86'400}, Unit{"h", 3'600}, Unit{"m", 60},
                                    Unit{"s", 1}};

constexpr std::string_view size_help =
    "write a number and a unit: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, "
    "GiB, TiB (powers of 1024), as in 50 MiB";
constexpr std::string_view duration_help = "write numbers with units s, m, h, d or w, as in 10m, 1h30m or 7d";

// "1.5" times factor, exactly: at most nine digits behind the point.
std::expected<std::uint64_t, std::string> scaled(std::string_view number, std::uint64_t factor) {
    const std::size_t point = number.find('.');
    std::uint64_t units = 0;
    const std::string_view integral = number.substr(0, point);
    if (!whole(integral, units)) return std::unexpected("is not a number"s);
    unsigned __int128 total = static_cast<unsigned __int128>(units) * factor;
    if (point != std::string_view::npos) {
        const std::string_view fraction = number.substr(point + 1);
        std::uint64_t parts = 0;
        if (fraction.size() > 9 || !whole(fraction, parts)) return std::unexpected("is not a number"s);
        std::uint64_t scale = 1;
        for (std::size_t i = 0; i < fraction.size(); ++i) scale *= 10;
        total += static_cast<unsigned __int128>(parts) * factor / scale;
    }
    if (total > std::numeric_limits<std::int64_t>::max()) return std::unexpected("is too big"s);
    return static_cast<std::uint64_t>(total);
}

struct Protocol {
    std::string_view name;
    std::uint8_t number;
    bool has_ports;
};
// IANA protocol numbers.
constexpr std::array protocols{
    Protocol{"tcp", 6, true},   Protocol{"udp", 17, true},     Protocol{"sctp", 132, true},
    Protocol{"dccp", 33, true}, Protocol{"icmp", 1, false},    Protocol{"icmpv6", 58, false},
    Protocol{"gre", 47, false}, Protocol{"esp", 50, false},    Protocol{"ah", 51, false},
    Protocol{"igmp", 2, false}, Protocol{"udplite", 136, true}};

constexpr std::array<std::string_view, 4> levels{"low", "medium", "high", "critical"};

}  // namespace

std::string_view level_name(Level level) noexcept {
    return levels[static_cast<std::size_t>(level)];
}

std::string_view measure_name(Measure measure) noexcept {
    constexpr std::array<std::string_view, 5> names{"bytes_out", "packets_out", "bytes_in", "packets_in",
                                                    "flows"};
    return names[static_cast<std::size_t>(measure)];
}

std::string_view rule_kind_name(RuleKind kind) noexcept {
    constexpr std::array<std::string_view, 7> names{"sum",        "distinct",      "upload_ratio", "periodic",
                                                    "long_lived", "first_contact", "sequence"};
    return names[static_cast<std::size_t>(kind)];
}

std::size_t Rule::groups_max() const noexcept {
    return kind == RuleKind::long_lived ? 0 : limits::window_groups_max;
}

Value<std::uint64_t> parse_whole(std::string_view text, std::uint64_t min, std::uint64_t max) {
    std::uint64_t value = 0;
    const std::string permitted =
        "write a whole number from " + std::to_string(min) + " to " + std::to_string(max);
    if (!whole(text, value))
        return bad("not-a-number", in_quotes(text) + " is not a whole number", permitted);
    if (value < min || value > max)
        return bad("out-of-range", std::string(text) + " is out of range", permitted);
    return value;
}

Value<double> parse_decimal(std::string_view text, double min, double max) {
    double value = 0;
    const std::string permitted = "write a number from " + std::to_string(static_cast<int>(min)) + " to " +
                                  std::to_string(static_cast<int>(max));
    if (!whole(text, value) || !std::isfinite(value))
        return bad("not-a-number", in_quotes(text) + " is not a number", permitted);
    if (value < min || value > max)
        return bad("out-of-range", std::string(text) + " is out of range", permitted);
    return value;
}

Value<bool> parse_bool(std::string_view text) {
    if (text == "true") return true;
    if (text == "false") return false;
    return bad("not-a-boolean", in_quotes(text) + " is neither true nor false", "write true or false");
}

Value<std::uint64_t> parse_size(std::string_view text) {
    std::size_t end = 0;
    while (end < text.size() && (is_digit(text[end]) || text[end] == '.')) ++end;
    const std::string_view number = text.substr(0, end);
    const std::string_view unit = trim(text.substr(end));
    if (number.empty()) return bad("bad-size", in_quotes(text) + " is not a size", std::string(size_help));
    if (unit.empty())
        return bad("bad-size", "the size " + in_quotes(text) + " has no unit", std::string(size_help));
    const auto found = std::ranges::find(size_units, unit, &Unit::name);
    if (found == size_units.end()) {
        for (const Unit& known : size_units)
            if (lower(known.name) == lower(unit))
                return bad("bad-size", in_quotes(unit) + " is not a unit of size",
                           "write " + std::string(number) + " " + std::string(known.name));
        return bad("bad-size", in_quotes(unit) + " is not a unit of size", std::string(size_help));
    }
    const auto bytes = scaled(number, found->factor);
    if (!bytes) return bad("bad-size", in_quotes(text) + " " + bytes.error(), std::string(size_help));
    return *bytes;
}

Value<std::uint64_t> parse_packets(std::string_view text) {
    std::uint64_t factor = 1;
    std::string_view number = text;
    if (text.ends_with('k') || text.ends_with('M')) {
        factor = text.back() == 'k' ? 1000 : 1000'000;
        number = trim(text.substr(0, text.size() - 1));
    }
    const auto packets = scaled(number, factor);
    if (!packets)
        return bad("bad-count", in_quotes(text) + " is not a number",
                   "this counts packets, flows or values: write a number, as in 5000 or 10k");
    return *packets;
}

Value<std::chrono::seconds> parse_duration(std::string_view text) {
    std::uint64_t total = 0;
    std::size_t at = 0;
    std::uint64_t previous = std::numeric_limits<std::uint64_t>::max();
    const auto refuse = [&](std::string_view what) {
        return bad("bad-duration", in_quotes(text) + std::string(what), std::string(duration_help));
    };
    if (text.empty()) return refuse(" is not a duration");
    while (at < text.size()) {
        std::size_t end = at;
        while (end < text.size() && is_digit(text[end])) ++end;
        std::uint64_t number = 0;
        if (!whole(text.substr(at, end - at), number)) return refuse(" is not a duration");
        while (end < text.size() && text[end] == ' ') ++end;
        if (end == text.size()) return refuse(" has no unit");
        const auto unit = std::ranges::find(duration_units, text.substr(end, 1), &Unit::name);
        if (unit == duration_units.end() || unit->factor >= previous) return refuse(" is not a duration");
        if (number > 1'000'000'000) return refuse(" is too long");
        total += number * unit->factor;
        previous = unit->factor;
        at = end + 1;
    }
    return std::chrono::seconds(total);
}

Value<std::chrono::year_month_day> parse_date(std::string_view text) {
    const auto refuse = [&](std::string_view what) {
        return bad("bad-date", in_quotes(text) + std::string(what), "write year-month-day, as in 2027-06-30");
    };
    int y = 0;
    unsigned m = 0, d = 0;
    if (text.size() != 10 || text[4] != '-' || text[7] != '-' || !is_digit(text[0]) ||
        !whole(text.substr(0, 4), y) || !whole(text.substr(5, 2), m) || !whole(text.substr(8, 2), d))
        return refuse(" is not a date");
    const std::chrono::year_month_day date{std::chrono::year{y}, std::chrono::month{m}, std::chrono::day{d}};
    if (!date.ok()) return refuse(" is not a day of the calendar");
    // Timestamps are nanoseconds in 64 bits: 1677 to 2262.
    if (y < 1950 || y > 2200) return refuse(" is out of range (1950 to 2200)");
    return date;
}

Value<Timestamp> parse_expiry(std::string_view text) {
    if (text.size() <= 10) {
        const auto date = parse_date(text);
        if (!date) return std::unexpected(date.error());
        return Timestamp(std::chrono::sys_days(*date) + std::chrono::days(1));
    }
    const auto refuse = [&] {
        return bad("bad-date", in_quotes(text) + " is not a date",
                   "write a day, as in 2027-06-30 (its last minute still counts, UTC), or an instant, as in "
                   "2027-06-30T12:00:00Z");
    };
    unsigned h = 0, m = 0, s = 0;
    const auto date = parse_date(text.substr(0, 10));
    if (!date || text.size() != 20 || text[10] != 'T' || text[13] != ':' || text[16] != ':' ||
        text[19] != 'Z' || !whole(text.substr(11, 2), h) || !whole(text.substr(14, 2), m) ||
        !whole(text.substr(17, 2), s) || h > 23 || m > 59 || s > 59)
        return refuse();
    return Timestamp(std::chrono::sys_days(*date) + std::chrono::hours(h) + std::chrono::minutes(m) +
                     std::chrono::seconds(s));
}

Value<Country> parse_country(std::string_view text) {
    if (is_country_code(text)) return Country(text);
    const std::string code = upper(text);
    std::string help = "write the two capital letters of ISO 3166-1, as in IE";
    if (text == "unknown")
        help = "only `when` and `match` of rules take unknown: no allow entry covers it";
    else if (code == "FALSE" || code == "OFF")
        help = "this looks like the YAML 1.1 reading of NO: write \"NO\" for Norway";
    else if (is_country_code(code))
        help = "write " + code;
    else if (code == "UK")
        help = "write GB: the ISO 3166-1 code of the United Kingdom";
    else if (code == "EL")
        help = "write GR: the ISO 3166-1 code of Greece";
    else if (find_region_group(code) != nullptr)
        help = code + " is a group of countries: name it under `groups` of a region";
    return bad("unknown-country", in_quotes(text) + " is not a country code", std::move(help));
}

Value<Prefix> parse_prefix(std::string_view text) {
    const auto prefix = Prefix::parse(text);
    if (prefix) return *prefix;
    const std::string_view address_text = text.substr(0, text.find('/'));
    switch (prefix.error()) {
        case Prefix::ParseError::host_bits_set: {
            unsigned length = 0;
            const auto address = Address::parse(address_text);
            const std::string_view length_text = text.substr(text.find('/') + 1);
            if (!address || !whole(length_text, length)) break;
            return bad("host-bits-set", "prefix " + std::string(text) + " has host bits set",
                       "write " +
                           Prefix::containing(*address, static_cast<std::uint8_t>(length)).to_string() +
                           ", or " + Prefix::containing(*address, 128).to_string() + " for the one host");
        }
        case Prefix::ParseError::length_out_of_range:
            return bad("bad-prefix", "the length of " + in_quotes(text) + " is out of range",
                       "0 to 32 for IPv4, 0 to 128 for IPv6");
        case Prefix::ParseError::length_missing:
            return bad("bad-prefix", in_quotes(text) + " has no prefix length",
                       "write it behind the slash, as in 192.0.2.0/24");
        case Prefix::ParseError::not_an_address:
            break;
    }
    return bad("bad-prefix", in_quotes(text) + " is not an address or prefix",
               "write it as in 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32");
}

Value<PortRange> parse_ports(std::string_view text) {
    const auto refuse = [&](std::string message) {
        return bad("bad-port", std::move(message),
                   "write it as in 443/tcp, 8000-8100/tcp, or 53 for any protocol");
    };
    PortRange out;
    const std::size_t slash = text.find('/');
    if (slash != std::string_view::npos) {
        const std::string_view left = text.substr(0, slash), right = text.substr(slash + 1);
        if (std::ranges::find(protocols, left, &Protocol::name) != protocols.end())
            return bad("bad-port", in_quotes(text) + " names the protocol first",
                       "write " + std::string(right) + "/" + std::string(left));
        const auto proto = parse_l4_proto(right);
        if (!proto)
            return bad("bad-port", proto.error().message,
                       proto.error().help.size() > 20
                           ? "write it as in 443/tcp, or 53 for any protocol"
                           : "write " + std::string(left) + "/" + proto.error().help.substr(sizeof "write"));
        const auto known = std::ranges::find(protocols, *proto, &Protocol::number);
        if (known == protocols.end() || !known->has_ports)
            return refuse("protocol " + l4_proto_name(*proto) + " has no ports");
        out.l4_proto = *proto;
    }
    const std::string_view range = text.substr(0, slash);
    const std::size_t dash = range.find('-');
    if (!whole(range.substr(0, dash), out.first)) return refuse(in_quotes(text) + " is not a port");
    out.last = out.first;
    if (dash != std::string_view::npos && !whole(range.substr(dash + 1), out.last))
        return refuse(in_quotes(text) + " is not a range of ports");
    if (out.last < out.first) return refuse("the range " + in_quotes(text) + " ends before it starts");
    if (out.first == 0) return refuse("port 0 is no port");
    return out;
}

Value<std::uint8_t> parse_l4_proto(std::string_view text) {
    const auto found = std::ranges::find(protocols, text, &Protocol::name);
    if (found != protocols.end()) return found->number;
    std::uint8_t number = 0;
    if (whole(text, number)) return number;
    std::vector<std::string_view> names;
    for (const Protocol& protocol : protocols) names.push_back(protocol.name);
    const std::string small = lower(text);
    const std::string_view near = nearest(small, names);
    return bad(
        "unknown-protocol", in_quotes(text) + " is not a protocol",
        near.empty() ? "write " + one_of(names) + ", or the IANA number" : "write " + std::string(near));
}

Value<std::uint32_t> parse_asn(std::string_view text) {
    std::string_view number = text;
    if (number.starts_with("AS")) number.remove_prefix(2);
    std::uint32_t asn = 0;
    if (!whole(number, asn) || asn == 0)
        return bad("bad-asn", in_quotes(text) + " is not an AS number",
                   "write a number from 1 to 4294967295, as in 64500");
    return asn;
}

Value<std::string> parse_domain(std::string_view text) {
    const auto refuse = [&](std::string_view what) {
        return bad("bad-domain", in_quotes(text) + std::string(what),
                   "write a name as in example.org, or *.example.org for every name below it but not itself");
    };
    if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
        return bad("bad-domain", in_quotes(text) + " has letters that DNS does not carry",
                   "write the name as it is asked for, xn--..., which `idn2 NAME` prints");
    if (text.contains('/') || text.contains(':'))
        return bad("bad-domain", in_quotes(text) + " is not a domain name",
                   "write the name alone, without scheme, port and path");
    if (text.size() > 1 && text.ends_with('.'))
        return bad("bad-domain", in_quotes(text) + " ends in a dot", "write it without");
    std::string_view name = text;
    if (name.starts_with("*.")) name.remove_prefix(2);
    if (name.empty() || name.size() > 253) return refuse(" is not a domain name");  // RFC 1035 section 2.3.4
    if (name.find('*') != std::string_view::npos) return refuse(": a * may only be the whole first label");
    std::size_t label = 0;
    bool dotted = false;
    for (std::size_t at = 0; at <= name.size(); ++at) {
        if (at < name.size() && name[at] != '.') {
            const char c = to_lower(name[at]);
            if (!is_lower(c) && !is_digit(c) && c != '-' && c != '_') return refuse(" is not a domain name");
            ++label;
            continue;
        }
        if (label == 0 || label > 63) return refuse(" is not a domain name");
        dotted |= at < name.size();
        label = 0;
    }
    if (!dotted) return refuse(" has only one label");
    return lower(text);
}

Value<std::string> parse_path(std::string_view text) {
    if (text.size() < 2 || text[0] != '/' || text.size() > 4096)
        return bad("bad-path", in_quotes(text) + " is not an absolute path",
                   "write the whole path, as in /usr/bin/restic");
    return std::string(text);
}

Value<std::string> parse_id(std::string_view text) {
    const bool well_formed =
        !text.empty() && text.size() <= limits::id_length_max &&
        std::ranges::all_of(
            text, [](char c) { return is_lower(c) || is_digit(c) || c == '-' || c == '_' || c == '.'; }) &&
        (is_lower(text[0]) || is_digit(text[0]));
    if (well_formed) return std::string(text);
    return bad("bad-id", in_quotes(text) + " cannot be a name",
               "write small letters, digits, - _ or ., at most " + std::to_string(limits::id_length_max) +
                   " of them, as in bulk-to-outside");
}

Value<std::string> parse_tag(std::string_view text) {
    const bool well_formed =
        !text.empty() && text.size() <= limits::id_length_max && std::ranges::all_of(text, [](char c) {
            return is_lower(to_lower(c)) || is_digit(c) || c == '-' || c == '_' || c == '.' || c == ':' ||
                   c == '/';
        });
    if (!well_formed)
        return bad("bad-tag", in_quotes(text) + " cannot be a tag",
                   "write letters, digits and - _ . : /, as in attack.t1041");
    // MITRE ATT&CK: T and four digits, a sub-technique is three digits more.
    if (text.starts_with("attack.")) {
        const std::string_view technique = text.substr(7);
        const auto digits = [](std::string_view part) { return std::ranges::all_of(part, is_digit); };
        const bool known_form =
            technique.size() >= 5 && technique[0] == 't' && digits(technique.substr(1, 4)) &&
            (technique.size() == 5 ||
             (technique.size() == 9 && technique[5] == '.' && digits(technique.substr(6))));
        if (!known_form)
            return bad(
                "bad-tag", in_quotes(text) + " is not an ATT&CK technique",
                "write attack.t and four digits, a sub-technique behind a point, as in attack.t1567.002");
    }
    return std::string(text);
}

Value<Level> parse_level_word(std::string_view text) {
    const auto found = std::ranges::find(levels, text);
    if (found != levels.end()) return static_cast<Level>(found - levels.begin());
    const std::string small = lower(text);
    const std::string_view near = nearest(small, levels);
    return bad("unknown-word", in_quotes(text) + " is not a level",
               near.empty() ? "write " + one_of(levels) : "write " + std::string(near));
}

std::string shown(std::string_view text) {
    constexpr std::size_t shown_max = 60;
    std::size_t end = std::min(text.size(), shown_max);
    while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    std::string out;
    for (const char c : text.substr(0, end)) {
        const auto byte = static_cast<unsigned char>(c);
        out += byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    return out + (end < text.size() ? "..." : "");
}

std::string in_quotes(std::string_view text) {
    return "\"" + shown(text) + "\"";
}

std::string l4_proto_name(std::uint8_t l4_proto) {
    const auto found = std::ranges::find(protocols, l4_proto, &Protocol::number);
    return found == protocols.end() ? std::to_string(l4_proto) : std::string(found->name);
}

std::string to_text(std::chrono::seconds duration) {
    std::string out;
    auto rest = static_cast<std::uint64_t>(duration.count());
    for (const Unit& unit : duration_units) {
        if (unit.name == "w" || rest < unit.factor) continue;
        out += std::to_string(rest / unit.factor) + std::string(unit.name);
        rest %= unit.factor;
    }
    return out.empty() ? "0s" : out;
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
    constexpr std::size_t word_max = 64;
    if (word.empty() || word.size() > word_max) return {};
    std::string_view best;
    std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
    for (const std::string_view candidate : candidates) {
        if (candidate.size() > word_max) continue;
        // Optimal string alignment: insert, delete, replace, or swap two neighbours.
        std::array<std::array<std::size_t, word_max + 1>, 3> row{};
        std::iota(row[0].begin(), row[0].end(), std::size_t{0});
        for (std::size_t i = 1; i <= word.size(); ++i) {
            auto& now = row[i % 3];
            const auto& before = row[(i + 2) % 3];
            const auto& twice = row[(i + 1) % 3];
            now[0] = i;
            for (std::size_t j = 1; j <= candidate.size(); ++j) {
                const std::size_t change = word[i - 1] == candidate[j - 1] ? 0 : 1;
                now[j] = std::min({before[j] + 1, now[j - 1] + 1, before[j - 1] + change});
                if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1])
                    now[j] = std::min(now[j], twice[j - 2] + 1);
            }
        }
        // Half a word, or one with an ending, is near however long the rest is: allow, allowed.
        const bool part = word.size() >= 4 && (candidate.starts_with(word) || word.starts_with(candidate));
        const std::size_t distance = part ? 1 : row[word.size() % 3][candidate.size()];
        if (distance < best_distance) {
            best_distance = distance;
            best = candidate;
        }
    }
    return best;
}

std::string one_of(std::span<const std::string_view> words) {
    std::string out;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (i > 0) out += i + 1 == words.size() ? " or " : ", ";
        out += words[i];
    }
    return out;
}

}  // namespace egresswatch::rules
