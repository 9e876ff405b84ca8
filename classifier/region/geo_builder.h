// classifier/region/geo_builder.h - imports country data of several formats and merges them to GeoData.
// SPDX-License-Identifier: Apache-2.0
//
// In:       files, in order of precedence: the first that knows the country of an address gives it.
// Out:      GeoData. Addresses for which a later source knows another country are marked disputed.
// Fails:    RegionError: every bad line of a file (the first GEO_ERRORS_MAX), file:line:column and cure.
// Not here: the compiled file (geo_data.h).
#pragma once

#include <expected>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "classifier/region/geo_data.h"
#include "classifier/region/region_error.h"

namespace egresswatch {

enum : unsigned { GEO_ERRORS_MAX = 20 };  // bad lines listed per file; the rest is counted

enum class GeoFormat {
    ipfire4,  // "16777216,16777471,AU": first and last address as decimal numbers
    ipfire6,  // "2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP"
    rir,      // delegated-extended statistics of a regional registry, version 2
    cidr,     // "192.0.2.0/24 US" lines; without a code: unknown. '#' starts a comment
    mmdb      // MaxMind DB with country.iso_code, country_code or country as a string
};

struct GeoInput {
    GeoFormat format;
    std::filesystem::path path;
    std::string name;             // empty: the file's name; "ipfire" for the two ipfire formats
    std::string default_country;  // of the lines of a CIDR list that name none; empty: unknown
};

class GeoBuilder {
public:
    GeoBuilder();
    ~GeoBuilder();
    GeoBuilder(GeoBuilder&&) noexcept;
    GeoBuilder& operator=(GeoBuilder&&) noexcept;

    [[nodiscard]] std::expected<void, RegionError> add_file(const GeoInput& input);
    // The text formats, from memory; `path` is what errors call it.
    [[nodiscard]] std::expected<void, RegionError> add_text(const GeoInput& input, std::string_view text);
    [[nodiscard]] std::expected<GeoData, RegionError> finish();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// A compiled geo file or, by its contents, a MaxMind DB, which is imported on the spot.
[[nodiscard]] std::expected<GeoData, RegionError> open_geo_file(const std::filesystem::path& path);

}  // namespace egresswatch
