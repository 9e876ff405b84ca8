// rules/schema.h - the policy language as tables: one row a key.
// SPDX-License-Identifier: Apache-2.0
//
// The reader checks a file against them, the hints for unknown keys come from them, and the tables of
// egresswatch-rules(5) are printed from them (tests/unit/rules/policy_test.cpp compares): what is documented
// is what is accepted.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace egresswatch::rules {

// The form of a value. "list" forms take one value or a list of them.
enum class Form : std::uint8_t {
    text,  // any text of one line
    id,    // parse_id
    integer,
    count,  // from 0 on
    decimal,
    country,
    date,    // of a calendar day
    expiry,  // a day or an instant
    size,    // bytes with a unit; packets without
    duration,
    level,
    version,  // ">=1.0"
    word,     // one of Key::words
    boolean,
    text_list,
    id_list,
    word_list,
    country_list,
    cidr_list,
    asn_list,
    domain_list,
    path_list,
    port_list,
    protocol_list,
    number_list,
    hash_list,         // SHA-256 in hex
    time_of_day_list,  // "20:00-06:00"
    tag_list,
    size_range,  // ">= 10 MiB", "<= 1 kB", "1 kB..1 MiB"
    count_range,
    duration_range,
    rate_range,  // of bytes a second: ">= 1 MB/s"
    instant_range,
    zone,           // of the time zone database: "Europe/Dublin"
    mapping,        // of Key::inner
    fragment,       // a mapping of some keys of the entry that is changed
    mapping_list,   // a list of mappings of Key::inner
    named_mappings  // names chosen by the author, each with a mapping of Key::inner
};

enum class Need : std::uint8_t { optional, required };

// Where a value comes from. Without its source it is unknown.
enum class Source : std::uint8_t {
    given,     // packets, geo data, the policy: always there
    asn_data,  // AS data, where they are loaded
    names,     // payload: not in this version
    process    // the sender's socket: not in this version
};

struct Mapping;

struct Key {
    std::string_view name;
    Form form = Form::text;
    Need need = Need::optional;
    std::string_view doc;
    std::span<const std::string_view> words{};  // permitted, where the form is a word
    const Mapping* inner = nullptr;
    Source source = Source::given;
    bool takes_unknown = false;  // `unknown` may stand among the values
    bool takes_pattern = false;  // so may regular expressions: re:...
};

struct Mapping {
    std::string_view name;   // "rule", as messages call it
    std::string_view title;  // of its section in the manual
    std::span<const Key> keys;

    [[nodiscard]] const Key* find(std::string_view key) const noexcept;
};

// A key that authors of other rule languages reach for, and what it is called here.
struct Renamed {
    std::string_view mapping;
    std::string_view wrong;
    std::string_view right;
};

namespace schema {
extern const Mapping policy, site, region, list, allow, to, from, ceiling, rule, override_entry, when, window,
    upload_ratio, periodic, long_lived, first_contact, sequence, suppress, exception, match;
}

[[nodiscard]] std::span<const Mapping* const> all_mappings() noexcept;  // in the order of the manual
[[nodiscard]] std::span<const Renamed> renamed_keys() noexcept;
[[nodiscard]] std::string_view form_name(Form form) noexcept;  // "size", "list of countries"
[[nodiscard]] bool takes_list(Form form) noexcept;

// The key tables in mdoc, for docs/man/egresswatch-rules.5, and the table of fields.
[[nodiscard]] std::string manual_tables();
[[nodiscard]] std::string manual_fields();

}  // namespace egresswatch::rules
