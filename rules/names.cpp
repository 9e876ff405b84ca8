// rules/names.cpp - the only file that knows libpsl.
// SPDX-License-Identifier: Apache-2.0
#include "rules/names.h"

#include <libpsl.h>

#include <array>
#include <cmath>
#include <cstdint>

namespace egresswatch::rules {

namespace {

constexpr std::size_t name_length_max = 253;  // RFC 1035 section 2.3.4

std::string_view last_two_labels(std::string_view name) {
    const std::size_t last = name.rfind('.');
    if (last == std::string_view::npos || last == 0) return name;
    const std::size_t before = name.rfind('.', last - 1);
    return before == std::string_view::npos ? name : name.substr(before + 1);
}

}  // namespace

std::string_view registered_domain(std::string_view name) {
    if (name.size() > name_length_max || name.find('\0') != std::string_view::npos)
        return last_two_labels(name);
    std::array<char, name_length_max + 1> text{};
    name.copy(text.data(), name.size());
    const char* found = psl_registrable_domain(psl_builtin(), text.data());
    return found == nullptr ? last_two_labels(name)
                            : name.substr(static_cast<std::size_t>(found - text.data()));
}

double label_entropy(std::string_view name) {
    const std::string_view below = name.substr(0, name.size() - registered_domain(name).size());
    std::array<std::uint32_t, 256> counts{};
    std::uint32_t all = 0;
    for (const char c : below) {
        if (c == '.') continue;
        ++counts[static_cast<unsigned char>(c)];
        ++all;
    }
    double out = 0;
    for (const std::uint32_t count : counts) {
        if (count == 0) continue;
        const double share = static_cast<double>(count) / all;
        out -= share * std::log2(share);
    }
    return out;
}

}  // namespace egresswatch::rules
