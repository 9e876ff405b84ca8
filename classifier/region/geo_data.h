// classifier/region/geo_data.h - which country an address is registered in, and who says so.
// SPDX-License-Identifier: Apache-2.0
//
// In:       a compiled geo file (.ewgeo), or what GeoBuilder (geo_builder.h) made of the import files.
// Out:      segments sorted by first address that tile the whole of IPv4 and of IPv6, without gap or overlap.
// Threads:  immutable; share it freely.
// Limits:   GEO_SOURCES_MAX.       Cost: 8 B per IPv4 and 24 B per IPv6 segment, mapped from the file.
// Fails:    RegionError; a file whose checksum, section table or order is wrong is refused whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "classifier/address.h"
#include "classifier/region/region_error.h"
#include "classifier/region/region_spec.h"

namespace egresswatch {

enum : std::uint8_t {
    GEO_SOURCES_MAX = 63,  // six bits of GeoSegment::source; the last value means: no source
    GEO_NO_SOURCE = 63,
    GEO_DISPUTED = 0x80,         // bit of GeoSegment::source: the sources name different countries
    GEO_LENGTH_OF_RANGE = 0xff,  // the source gave a range: the matched prefix is the largest inside it
    GEO_SOURCE_MASK = 0x3f
};

// What one source (or several) says about the addresses from `first` up to the next segment's.
struct GeoSegment4 {
    std::uint32_t first = 0;  // host order
    std::uint16_t code = 0;   // two letters as the source wrote them, first one in the low byte; 0: no record
    std::uint8_t length = GEO_LENGTH_OF_RANGE;  // of the prefix that matched
    std::uint8_t source = GEO_NO_SOURCE;
};
static_assert(sizeof(GeoSegment4) == 8);

struct GeoSegment6 {
    std::uint64_t high = 0;  // first address, host order
    std::uint64_t low = 0;
    std::uint16_t code = 0;
    std::uint8_t length = GEO_LENGTH_OF_RANGE;
    std::uint8_t source = GEO_NO_SOURCE;
    std::uint32_t unused = 0;
};
static_assert(sizeof(GeoSegment6) == 24);

struct GeoSource {
    std::string name;              // what `geo lookup` prints as `source`: "ipfire", "mmdb:DBIP-Country-Lite"
    std::string format;            // "ipfire", "mmdb", "rir", "cidr"
    std::string date;              // of the data as the file states it; empty where it does not
    std::string licence;           // as the file states it; empty where it does not
    std::string sha256;            // of the input file, hex
    std::uint64_t records = 0;     // lines or networks taken over
    std::uint64_t skipped = 0;     // lines that the format lets us skip (other record types, reserved space)
    std::uint64_t no_country = 0;  // records whose code is not a country: "??", EU, AP: unknown
};

// A country code as ISO 3166-1 assigns it, plus XK. UK is read as GB. Anything else is nullopt: unknown.
[[nodiscard]] std::optional<Country> country_of_code(std::uint16_t code);
[[nodiscard]] std::uint16_t code_of_letters(char first, char second) noexcept;

// What geo data say about one address. An address that stands for an IPv4 address (mapped, NAT64, 6to4:
// datapath/region.h) is answered for that one; `prefix` is in the form of the address asked.
struct GeoRecord {
    std::optional<Prefix> prefix;  // none: no source has a record
    Country country;               // empty: unknown
    std::string recorded;          // the code as the source wrote it ("EU", "??", "UK"); empty: no record
    std::uint8_t source = GEO_NO_SOURCE;  // index into sources()
    bool disputed = false;
};

class GeoData {
public:
    // A compiled file. Checksum and order of the whole file are verified: about 10 ms for a country database.
    [[nodiscard]] static std::expected<GeoData, RegionError> open(const std::filesystem::path& path);
    // Takes parts that already tile both families; GeoBuilder makes such. Refuses any others.
    [[nodiscard]] static std::expected<GeoData, RegionError> from_parts(std::vector<GeoSource> sources,
                                                                        std::vector<GeoSegment4> segments4,
                                                                        std::vector<GeoSegment6> segments6);
    // Writes beside `path` and renames: a reader sees the old file or the new one.
    [[nodiscard]] std::expected<void, RegionError> save(const std::filesystem::path& path) const;

    [[nodiscard]] GeoRecord find(const Address& address) const;
    [[nodiscard]] std::span<const GeoSource> sources() const noexcept;
    [[nodiscard]] std::span<const GeoSegment4> segments4() const noexcept;
    [[nodiscard]] std::span<const GeoSegment6> segments6() const noexcept;
    // SHA-256 of the compiled form, hex: names the data in coverage and policy records.
    [[nodiscard]] const std::string& content_hash() const noexcept;

private:
    struct Storage;
    explicit GeoData(std::shared_ptr<const Storage> storage) : storage_(std::move(storage)) {}
    std::shared_ptr<const Storage> storage_;
};

// The answer of `egresswatch geo lookup`: geo data, special addresses and a policy together, by search and
// not by the region table (which a test compares with it).
struct GeoAnswer {
    Address address;
    std::optional<Prefix> prefix;  // that decided kind or country; none: nothing knows the address
    ClassInfo info;
    std::string source;    // "policy", "rfc6890", the name of a geo source, "none"
    std::string recorded;  // as GeoRecord::recorded
};
[[nodiscard]] GeoAnswer locate(const GeoData& geo, const RegionSpec& spec, const Address& address);

}  // namespace egresswatch
