// rules/field_table.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/field_table.h"

#include <algorithm>

#include "rules/field_rows.h"

namespace egresswatch::rules {

static_assert([] {
    for (std::size_t i = 0; i < rows::fields.size(); ++i)
        if (rows::fields[i].field != static_cast<Field>(i)) return false;
    return true;
}());

std::span<const FieldInfo> all_fields() noexcept {
    return rows::fields;
}

const FieldInfo& field_info(Field field) noexcept {
    return rows::fields[static_cast<std::size_t>(field)];
}

const FieldInfo* find_field(std::string_view name) noexcept {
    const auto found = std::ranges::find(rows::fields, name, &FieldInfo::name);
    return found == rows::fields.end() ? nullptr : &*found;
}

std::span<const std::string_view> operators_of(const FieldInfo& field) noexcept {
    static constexpr std::array<std::string_view, 1> is{"="};
    static constexpr std::array<std::string_view, 3> range{">=", "<=", ".."};
    static constexpr std::array<std::string_view, 5> names{"=", "in", "*.", "re:", "unknown"};
    static constexpr std::array<std::string_view, 4> texts{"=", "in", "re:", "unknown"};
    static constexpr std::array<std::string_view, 3> values{"=", "in", "unknown"};
    static constexpr std::array<std::string_view, 2> members{"=", "in"};
    static constexpr std::array<std::string_view, 2> cidrs{"CIDR", "in"};
    if ((field.uses & USE_SELECT) == 0) return {};
    switch (field.form) {
        case Form::boolean:
            return is;
        case Form::size_range:
        case Form::count_range:
        case Form::duration_range:
        case Form::rate_range:
        case Form::instant_range:
            return range;
        case Form::cidr_list:
            return cidrs;
        case Form::domain_list:
            return names;
        default:
            break;
    }
    if (field.takes_pattern) return texts;
    return field.takes_unknown ? std::span<const std::string_view>(values) : members;
}

}  // namespace egresswatch::rules
