// classifier/region/geo_import.h - what the importers of one file hand to GeoBuilder. Internal to the folder.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/region/geo_builder.h"
#include "classifier/region/wide_integer.h"

namespace egresswatch {

template <typename Number>
struct GeoRange {
    Number first = 0;
    Number last = 0;
    std::uint16_t code = 0;
    std::uint8_t length = GEO_LENGTH_OF_RANGE;
    std::uint32_t line = 0;  // 0: the format has no lines
};

struct GeoImport {
    std::string label;  // the file, as errors call it
    std::uint16_t default_code = 0;
    GeoSource source;
    std::vector<GeoRange<std::uint32_t>> ranges4;
    std::vector<GeoRange<Uint128>> ranges6;
    std::vector<std::string> errors;  // the first GEO_ERRORS_MAX
    std::size_t error_count = 0;

    void bad(std::uint32_t line, std::size_t column, std::string_view what, std::string_view cure);
    void add_prefix(const Prefix& prefix, std::uint16_t code, std::uint32_t line);
    void count_code(std::uint16_t code);
};

inline constexpr std::uint16_t code_unknown = '?' | '?' << 8;

void import_ipfire(GeoImport& import, GeoFormat format, std::string_view text);
void import_rir(GeoImport& import, std::string_view text);
void import_cidr(GeoImport& import, std::string_view text);
void import_mmdb(GeoImport& import, const std::filesystem::path& path);

}  // namespace egresswatch
