// rules/field_table.h - what a flow can be compared by: one row a field.
// SPDX-License-Identifier: Apache-2.0
//
// The keys of `when` and `match`, the words of `by` and `distinct`, and the table of fields in the manual are
// made from it; so are the JSON Schema and `egresswatch fields`. A field is documented here and nowhere else.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "rules/schema.h"

namespace egresswatch::rules {

enum class Field : std::uint8_t {
    site,
    interface,
    region,
    address_class,
    country,
    asn,
    list,
    disputed,
    remote,
    remote_prefix,
    port,
    local_port,
    l4_proto,
    initiator,
    tunnel,
    allowed,
    domain,
    dns,
    sni,
    http_host,
    hidden,
    app,
    executable,
    sha256,
    user,
    uid,
    cgroup,
    unit,
    container,
    sender,
    bytes_out,
    bytes_in,
    packets_out,
    packets_in,
    duration,
    rate_out,
    rate_in,
    first_seen,
    time_of_day,
    weekday,
    name,
    registered_domain
};

// What can be done with a field: bits.
enum FieldUse : std::uint8_t {
    USE_SELECT = 1,    // a key of `when`, `match`
    USE_GROUP = 2,     // a word of `by`
    USE_DISTINCT = 4,  // a word of `distinct`
};

struct FieldInfo {
    Field field;
    std::string_view name;
    Form form;               // of its values in a selection
    std::uint8_t uses;       // FieldUse
    Source source;           // what has to be there for it to be known
    bool takes_unknown;      // `unknown` may be written: holds where the value is not known
    bool takes_pattern;      // values may be regular expressions: re:...
    std::string_view since;  // language version
    std::string_view doc;
    std::span<const std::string_view> words{};  // permitted, where the form is a word
};

[[nodiscard]] std::span<const FieldInfo> all_fields() noexcept;
[[nodiscard]] const FieldInfo& field_info(Field field) noexcept;
[[nodiscard]] const FieldInfo* find_field(std::string_view name) noexcept;
// "=", "in", "CIDR", "range", "domain", "re:", "unknown": how the field is compared.
[[nodiscard]] std::span<const std::string_view> operators_of(const FieldInfo& field) noexcept;

}  // namespace egresswatch::rules
