// classifier/region/geo_text.cpp - importers of the text formats: IPFire ranges, RIR statistics, CIDR lists.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>
#include <optional>

#include "classifier/region/geo_import.h"

namespace egresswatch {

namespace {

constexpr bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text;
}

// Calls handle(line number, line without its end).
template <typename Handle>
void for_each_line(std::string_view text, Handle handle) {
    std::uint32_t number = 0;
    while (!text.empty()) {
        const auto end = text.find('\n');
        auto line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        handle(++number, line);
    }
}

template <std::size_t Count>
struct Fields {
    std::array<std::string_view, Count> text;
    std::size_t count = 0;  // may be more than Count: the rest was not kept
};

template <std::size_t Count>
Fields<Count> split(std::string_view line, char separator) {
    Fields<Count> fields;
    while (true) {
        const auto end = line.find(separator);
        if (fields.count < Count) fields.text[fields.count] = line.substr(0, end);
        fields.count++;
        if (end == std::string_view::npos) return fields;
        line.remove_prefix(end + 1);
    }
}

// 1-based column of a part of the line.
std::size_t column_of(std::string_view line, std::string_view part) {
    return static_cast<std::size_t>(part.data() - line.data()) + 1;
}

template <typename Number>
std::optional<Number> decimal(std::string_view text) {
    Number value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::optional<std::uint16_t> code_of_text(std::string_view text) {
    if (text.size() != 2) return std::nullopt;
    if (text == "??") return code_unknown;
    char letters[2];
    for (std::size_t i = 0; i < 2; i++) {
        char c = text[i];
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
        const bool digit = i == 1 && c >= '0' && c <= '9';  // MaxMind's A1, A2
        if ((c < 'A' || c > 'Z') && !digit) return std::nullopt;
        letters[i] = c;
    }
    return code_of_letters(letters[0], letters[1]);
}

// "# Generated: Thu, 25 Jun 2026 04:33:59 GMT" and "# License:   CC BY-SA 4.0" of the IPFire export.
void take_header(GeoImport& import, std::string_view comment) {
    const auto value_after = [&](std::string_view key) -> std::string_view {
        const auto at = comment.find(key);
        return at == std::string_view::npos ? std::string_view{} : trimmed(comment.substr(at + key.size()));
    };
    if (const auto date = value_after("Generated:"); !date.empty() && import.source.date.empty())
        import.source.date = date;
    if (const auto licence = value_after("License:"); !licence.empty() && import.source.licence.empty())
        import.source.licence = licence;
}

template <typename Number>
std::optional<Number> ipfire_address(std::string_view text);

template <>
std::optional<std::uint32_t> ipfire_address(std::string_view text) {
    return decimal<std::uint32_t>(text);
}

template <>
std::optional<Uint128> ipfire_address(std::string_view text) {
    const auto address = Address::parse(text);
    if (!address) return std::nullopt;
    return Family<Uint128>::number_of(*address);
}

template <typename Number>
void import_ipfire_lines(GeoImport& import, std::string_view text, std::vector<GeoRange<Number>>& ranges) {
    constexpr std::string_view form =
        Family<Number>::bits == 32 ? "write FIRST,LAST,CC with decimal IPv4 addresses: 16777216,16777471,AU"
                                   : "write FIRST,LAST,CC with IPv6 addresses: 2001:200::,2001:200::ff,JP";
    for_each_line(text, [&](std::uint32_t number, std::string_view line) {
        if (line.empty()) return;
        if (line.front() == '#') return take_header(import, line);
        const auto fields = split<3>(line, ',');
        if (fields.count != 3) return import.bad(number, 1, "not three fields", form);
        const auto first = ipfire_address<Number>(fields.text[0]);
        const auto last = ipfire_address<Number>(fields.text[1]);
        const auto code = code_of_text(fields.text[2]);
        if (!first) return import.bad(number, 1, "the first address cannot be read", form);
        if (!last)
            return import.bad(number, column_of(line, fields.text[1]), "the last address cannot be read",
                              form);
        if (*last < *first)
            return import.bad(number, column_of(line, fields.text[1]), "the range ends before it begins",
                              "exchange the two addresses");
        if (!code)
            return import.bad(number, column_of(line, fields.text[2]), "not a two-letter code",
                              "write an ISO 3166-1 code, or ?? where the country is not known");
        ranges.push_back({*first, *last, *code, GEO_LENGTH_OF_RANGE, number});
        import.count_code(*code);
    });
}

struct RirLine {
    std::uint32_t number;
    std::string_view line;
    Fields<7> fields;  // registry | cc | type | start | value | date | status
};

void import_rir_ipv4(GeoImport& import, const RirLine& row, std::uint16_t code) {
    const auto& field = row.fields.text;
    const auto start = Address::parse(field[3]);
    const auto count = decimal<std::uint64_t>(field[4]);
    if (!start || !start->is_ipv4())
        return import.bad(row.number, column_of(row.line, field[3]), "not an IPv4 address",
                          "write 192.0.2.0");
    const std::uint64_t room = (std::uint64_t{1} << 32) - start->ipv4();
    if (!count || *count == 0 || *count > room)
        return import.bad(row.number, column_of(row.line, field[4]), "not a number of addresses that fits",
                          "the fifth field of an ipv4 record is the number of addresses: 256");
    import.ranges4.push_back({start->ipv4(), static_cast<std::uint32_t>(start->ipv4() + *count - 1), code,
                              GEO_LENGTH_OF_RANGE, row.number});
    import.count_code(code);
}

void import_rir_ipv6(GeoImport& import, const RirLine& row, std::uint16_t code) {
    const auto& field = row.fields.text;
    const auto start = Address::parse(field[3]);
    const auto length = decimal<std::uint8_t>(field[4]);
    if (!start || start->is_ipv4())
        return import.bad(row.number, column_of(row.line, field[3]), "not an IPv6 address",
                          "write 2001:db8::");
    if (!length || *length > 128)
        return import.bad(row.number, column_of(row.line, field[4]), "not a prefix length",
                          "the fifth field of an ipv6 record is the prefix length: 32");
    const auto prefix = Prefix::containing(*start, *length);
    if (prefix.base != *start)
        return import.bad(row.number, column_of(row.line, field[3]), "address has host bits set",
                          "write " + prefix.base.to_string());
    import.add_prefix(prefix, code, row.number);
}

void import_rir_line(GeoImport& import, const RirLine& row) {
    const auto& field = row.fields.text;
    const bool version_line = !field[0].empty() && field[0].front() >= '0' && field[0].front() <= '9';
    if (version_line && row.fields.count >= 7) {
        if (field[0] != "2" && field[0] != "2.3")
            return import.bad(row.number, 1, "format version " + std::string(field[0]) + " is not known",
                              "version 2 and 2.3 are read");
        import.source.date = field[2];
        return;
    }
    if (row.fields.count == 6 && field[5] == "summary") return;
    if (row.fields.count < 7)
        return import.bad(row.number, 1, "fewer than seven fields",
                          "a record is registry|CC|ipv4|start|count|date|status");
    if (field[2] == "asn") {
        import.source.skipped++;
        return;
    }
    if (field[6] == "available" || field[6] == "reserved") {
        import.source.skipped++;
        return;
    }
    if (field[6] != "allocated" && field[6] != "assigned")
        return import.bad(row.number, column_of(row.line, field[6]), "status is not known",
                          "allocated, assigned, available and reserved are");
    const auto code = field[1].empty() ? std::optional(code_unknown) : code_of_text(field[1]);
    if (!code)
        return import.bad(row.number, column_of(row.line, field[1]), "not a two-letter code",
                          "write an ISO 3166-1 code, or nothing where the country is not known");
    if (field[2] == "ipv4") return import_rir_ipv4(import, row, *code);
    if (field[2] == "ipv6") return import_rir_ipv6(import, row, *code);
    import.bad(row.number, column_of(row.line, field[2]), "record type is not known",
               "ipv4, ipv6 and asn are");
}

std::string_view word_at(std::string_view& rest) {
    rest = trimmed(rest);
    std::size_t end = 0;
    while (end < rest.size() && !is_blank(rest[end]) && rest[end] != ',') end++;
    const auto word = rest.substr(0, end);
    rest.remove_prefix(end);
    rest = trimmed(rest);
    if (!rest.empty() && rest.front() == ',') rest.remove_prefix(1);
    return word;
}

void import_cidr_line(GeoImport& import, std::uint32_t number, std::string_view line) {
    auto rest = line.substr(0, line.find('#'));
    if (trimmed(rest).empty()) return;
    const auto cidr = word_at(rest);
    const auto letters = word_at(rest);
    const auto prefix = Prefix::parse(cidr);
    if (!prefix) {
        switch (prefix.error()) {
            case Prefix::ParseError::not_an_address:
                return import.bad(number, column_of(line, cidr), "not an address", "write 192.0.2.0/24 US");
            case Prefix::ParseError::length_missing:
            case Prefix::ParseError::length_out_of_range:
                return import.bad(number, column_of(line, cidr), "prefix length is missing or out of range",
                                  "0 to 32 for IPv4, 0 to 128 for IPv6");
            case Prefix::ParseError::host_bits_set: {
                const auto slash = cidr.find('/');
                const auto address = Address::parse(cidr.substr(0, slash)).value_or(Address{});
                const auto length = decimal<std::uint8_t>(cidr.substr(slash + 1)).value_or(0);
                return import.bad(number, column_of(line, cidr), "prefix has host bits set",
                                  "write " + Prefix::containing(address, length).to_string());
            }
        }
    }
    std::optional<std::uint16_t> code = import.default_code != 0 ? import.default_code : code_unknown;
    if (!letters.empty()) code = code_of_text(letters);
    if (!code)
        return import.bad(number, column_of(line, letters), "not a two-letter code",
                          "write an ISO 3166-1 code behind the prefix, or nothing");
    if (!trimmed(rest).empty())
        return import.bad(number, column_of(line, trimmed(rest)), "text behind the country code",
                          "put remarks behind a #");
    import.add_prefix(*prefix, *code, number);
}

}  // namespace

void import_ipfire(GeoImport& import, GeoFormat format, std::string_view text) {
    if (format == GeoFormat::ipfire4)
        import_ipfire_lines(import, text, import.ranges4);
    else
        import_ipfire_lines(import, text, import.ranges6);
}

void import_rir(GeoImport& import, std::string_view text) {
    for_each_line(text, [&](std::uint32_t number, std::string_view line) {
        if (trimmed(line).empty() || line.front() == '#') return;
        import_rir_line(import, {number, line, split<7>(line, '|')});
    });
}

void import_cidr(GeoImport& import, std::string_view text) {
    for_each_line(
        text, [&](std::uint32_t number, std::string_view line) { import_cidr_line(import, number, line); });
}

}  // namespace egresswatch
