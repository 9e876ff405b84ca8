// rules/value_lint.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/value_lint.h"

#include <algorithm>
#include <array>

#include "classifier/inspect/protocol.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t container_id_digits = 64, short_id_digits = 12;
constexpr std::array<std::string_view, 12> unit_types{"service",   "socket", "device", "mount",
                                                      "automount", "swap",   "target", "path",
                                                      "timer",     "slice",  "scope",  "snapshot"};

ValueError never(std::string_view text, std::string why, std::string help) {
    return {"never-matches", in_quotes(text) + " matches nothing: " + std::move(why), std::move(help)};
}

std::optional<ValueError> odd_app(std::string_view text) {
    std::vector<std::string_view> known;
    for (std::size_t i = 1; i < inspect::protocol_count; ++i)
        known.push_back(inspect::protocol_name(static_cast<inspect::Protocol>(i)));
    if (std::ranges::find(known, text) != known.end()) return std::nullopt;
    std::string small(text);
    std::ranges::transform(small, small.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (small == "https" || small == "ssl")
        return never(text, "that protocol is called tls here", "write tls");
    // Of one name that begins several, all.
    std::vector<std::string_view> longer;
    for (const std::string_view name : known)
        if (small.size() >= 3 && name.starts_with(small) && name != small) longer.push_back(name);
    if (!longer.empty()) return never(text, "no protocol is called so", "write " + one_of(longer));
    const std::string_view near = nearest(small, known);
    return never(text, "no protocol is called so",
                 near.empty() ? "write " + one_of(known) : "write " + std::string(near));
}

// A shell's pattern, where the value is compared as it stands.
std::optional<ValueError> odd_glob(std::string_view text) {
    if (text.find_first_of("*?") == std::string_view::npos) return std::nullopt;
    std::string pattern = "re:";
    for (const char c : text) {
        if (c == '*')
            pattern += ".*";
        else if (c == '?')
            pattern += '.';
        else
            pattern += std::string(c == '.' || c == '+' || c == '(' || c == '[' ? "\\" : "") + c;
    }
    return never(text, "it is compared as it stands, with its " + std::string(text.contains('*') ? "*" : "?"),
                 "write a regular expression, \"" + pattern + "\"");
}

std::optional<ValueError> odd_path(std::string_view text) {
    if (text.ends_with('/'))
        return never(text, "it is a directory", "write whole paths, or \"re:" + std::string(text) + ".*\"");
    if (text.contains("/../") || text.contains("/./") || text.contains("//"))
        return never(text, "the kernel tells paths without . and ..",
                     "write the path as readlink -f prints it");
    if (text.contains(' '))
        return never(text, "an executable is told without its arguments",
                     "write the path alone; if there is a space in it, as a regular expression");
    return std::nullopt;
}

std::optional<ValueError> odd_unit(std::string_view text) {
    const std::size_t dot = text.rfind('.');
    if (dot != std::string_view::npos &&
        std::ranges::find(unit_types, text.substr(dot + 1)) != unit_types.end())
        return std::nullopt;
    return never(text, "units have a type", "write it as in " + std::string(text) + ".service");
}

std::optional<ValueError> odd_cgroup(std::string_view text) {
    if (text.starts_with("/sys/fs/cgroup/"))
        return never(text, "paths are told from the root of the hierarchy on",
                     "write " + std::string(text.substr(std::string_view("/sys/fs/cgroup").size())));
    if (!text.starts_with('/'))
        return never(text, "paths of control groups begin with /", "write /" + std::string(text));
    return std::nullopt;
}

std::optional<ValueError> odd_container(std::string_view text) {
    const bool is_hex = text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    if (!is_hex || text.size() != short_id_digits) return std::nullopt;
    return never(text, "that is the short form of an id",
                 "write all " + std::to_string(container_id_digits) +
                     " digits, or \"re:" + std::string(text) + ".*\"");
}

bool is_name(Field field) {
    return field == Field::domain || field == Field::dns || field == Field::sni || field == Field::http_host;
}

std::optional<ValueError> odd_pattern(Field field, std::string_view pattern) {
    const bool folds = pattern.starts_with("(?i)");
    const bool has_capitals = std::ranges::any_of(pattern, [](char c) { return c >= 'A' && c <= 'Z'; });
    // A backslash makes a class of a capital: \D, \pL.
    if (is_name(field) && has_capitals && !folds && !pattern.contains('\\'))
        return ValueError{"never-matches",
                          "names are compared in small letters: a capital in \"re:" + std::string(pattern) +
                              "\" matches nothing",
                          "write it in small letters"};
    return std::nullopt;
}

}  // namespace

std::optional<ValueError> odd_value(Field field, std::string_view text) {
    if (is_pattern(text)) return odd_pattern(field, text.substr(3));
    switch (field) {
        case Field::app:
            return odd_app(text);
        case Field::executable:
            if (auto glob = odd_glob(text)) return glob;
            return odd_path(text);
        case Field::unit:
            if (auto glob = odd_glob(text)) return glob;
            return odd_unit(text);
        case Field::cgroup:
            if (auto glob = odd_glob(text)) return glob;
            return odd_cgroup(text);
        case Field::container:
            if (auto glob = odd_glob(text)) return glob;
            return odd_container(text);
        case Field::user:
        case Field::interface:
            return odd_glob(text);
        default:
            return std::nullopt;
    }
}

}  // namespace egresswatch::rules
