// classifier/region/geo_data.cpp - search, and the compiled file.
// SPDX-License-Identifier: Apache-2.0
//
// The file: GeoFileHeader, GEO_SECTIONS entries of GeoFileSection, then the sections, each on a 64-byte
// boundary. The checksum is over the whole file with the checksum itself as zeros. Nothing in it tells when
// or where it was made: the same inputs give the same bytes.
#include "classifier/region/geo_data.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "classifier/region/file_io.h"
#include "classifier/region/special.h"
#include "classifier/region/wide_integer.h"

namespace egresswatch {

namespace {

constexpr char file_magic[8] = {'E', 'W', 'G', 'E', 'O', '\r', '\n', '\x1a'};
constexpr std::uint32_t file_version = 1;
enum Section : std::uint32_t { section_sources, section_segments4, section_segments6, section_count };
constexpr std::size_t section_alignment = 64;

struct GeoFileHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t sections;
    std::uint64_t file_bytes;
    std::uint8_t sha256[32];
    std::uint64_t reserved;
};
static_assert(sizeof(GeoFileHeader) == 64);

struct GeoFileSection {
    std::uint32_t kind;
    std::uint32_t record_bytes;
    std::uint64_t offset;  // from the start of the file
    std::uint64_t bytes;
    std::uint64_t records;
};
static_assert(sizeof(GeoFileSection) == 32);
constexpr std::size_t head_bytes = sizeof(GeoFileHeader) + section_count * sizeof(GeoFileSection);

constexpr std::size_t aligned(std::size_t size) {
    return (size + section_alignment - 1) / section_alignment * section_alignment;
}

std::vector<std::byte> write_sources(const std::vector<GeoSource>& sources) {
    ByteWriter writer;
    for (const auto& source : sources) {
        for (const auto* text : {&source.name, &source.format, &source.date, &source.licence, &source.sha256})
            writer.string(*text);
        for (const auto count : {source.records, source.skipped, source.no_country}) writer.number(count);
    }
    return writer.bytes();
}

std::optional<std::vector<GeoSource>> read_sources(std::span<const std::byte> bytes, std::uint64_t count) {
    if (count > GEO_SOURCES_MAX) return std::nullopt;
    ByteReader reader(bytes);
    std::vector<GeoSource> sources(count);
    for (auto& source : sources) {
        for (auto* text : {&source.name, &source.format, &source.date, &source.licence, &source.sha256})
            *text = reader.string();
        for (auto* number : {&source.records, &source.skipped, &source.no_country})
            *number = reader.number<std::uint64_t>();
    }
    if (!reader.ok() || !reader.at_end()) return std::nullopt;
    return sources;
}

std::uint32_t first_of(const GeoSegment4& segment) {
    return segment.first;
}
Uint128 first_of(const GeoSegment6& segment) {
    return static_cast<Uint128>(segment.high) << 64 | segment.low;
}

// Segments must tile the family: start at its first address and ascend strictly.
template <typename Segment>
std::string complaint(std::span<const Segment> segments, std::size_t sources, unsigned family_bits) {
    if (segments.empty() || first_of(segments[0]) != 0) return "does not start at the first address";
    for (std::size_t i = 0; i < segments.size(); i++) {
        const auto& segment = segments[i];
        const unsigned source = segment.source & GEO_SOURCE_MASK;
        if (i > 0 && first_of(segments[i - 1]) >= first_of(segment)) return "is not in ascending order";
        if (source >= sources && source != GEO_NO_SOURCE) return "names a source that is not there";
        if ((source == GEO_NO_SOURCE) != (segment.code == 0)) return "has a country without a source";
        if (segment.length > family_bits && segment.length != GEO_LENGTH_OF_RANGE)
            return "has a prefix length that the family does not have";
    }
    return {};
}

template <typename Number, typename Segment>
GeoRecord find_in(std::span<const Segment> segments, const Address& address) {
    const Number number = Family<Number>::number_of(address);
    const auto after = std::ranges::upper_bound(segments, number, {},
                                                [](const Segment& segment) { return first_of(segment); });
    const Segment& segment = *std::prev(after);
    GeoRecord record;
    if (segment.code == 0) return record;
    const Number first = first_of(segment);
    const Number last = after == segments.end() ? number_max<Number> : first_of(*after) - 1;
    const unsigned length =
        segment.length == GEO_LENGTH_OF_RANGE ? longest_inside(number, first, last) : segment.length;
    record.prefix = Prefix::containing(address, static_cast<std::uint8_t>(length));
    record.country = country_of_code(segment.code).value_or(Country{});
    record.recorded = {static_cast<char>(segment.code & 0xff), static_cast<char>(segment.code >> 8)};
    record.source = segment.source & GEO_SOURCE_MASK;
    record.disputed = (segment.source & GEO_DISPUTED) != 0;
    return record;
}

std::unexpected<RegionError> refuse(const std::filesystem::path& path, const std::string& what) {
    return std::unexpected(RegionError{
        RegionError::Code::corrupt,
        path.string() + ": " + what + "; the file is not used. Build it again with `egresswatch geo build`"});
}

}  // namespace

struct GeoData::Storage {
    std::vector<GeoSource> sources;
    std::vector<GeoSegment4> owned4;
    std::vector<GeoSegment6> owned6;
    MappedFile file;
    std::span<const GeoSegment4> segments4;
    std::span<const GeoSegment6> segments6;
    std::string content_hash;

    // Head (header, section table) and sources of the compiled form, checksum filled in.
    struct Head {
        std::vector<std::byte> bytes;  // head_bytes, then the sources, padded
        Sha256 digest{};
        std::size_t padding4 = 0;  // zeros between the IPv4 and the IPv6 segments
    };
    [[nodiscard]] Head head() const;
};

GeoData::Storage::Head GeoData::Storage::head() const {
    const auto source_bytes = write_sources(sources);
    GeoFileSection table[section_count] = {};
    table[section_sources] = {section_sources, 0, head_bytes, source_bytes.size(), sources.size()};
    const std::size_t offset4 = aligned(head_bytes + source_bytes.size());
    table[section_segments4] = {section_segments4, sizeof(GeoSegment4), offset4, segments4.size_bytes(),
                                segments4.size()};
    const std::size_t offset6 = aligned(offset4 + segments4.size_bytes());
    table[section_segments6] = {section_segments6, sizeof(GeoSegment6), offset6, segments6.size_bytes(),
                                segments6.size()};
    GeoFileHeader header{};
    std::memcpy(header.magic, file_magic, sizeof file_magic);
    header.version = file_version;
    header.sections = section_count;
    header.file_bytes = offset6 + segments6.size_bytes();

    Head head;
    head.padding4 = offset6 - offset4 - segments4.size_bytes();
    head.bytes.resize(offset4);
    std::memcpy(head.bytes.data(), &header, sizeof header);
    std::memcpy(head.bytes.data() + sizeof header, table, sizeof table);
    std::ranges::copy(source_bytes, head.bytes.begin() + head_bytes);
    const std::vector<std::byte> padding(head.padding4);
    head.digest = sha256_of({head.bytes, std::as_bytes(segments4), padding, std::as_bytes(segments6)});
    std::memcpy(head.bytes.data() + offsetof(GeoFileHeader, sha256), head.digest.data(), head.digest.size());
    return head;
}

std::expected<GeoData, RegionError> GeoData::from_parts(std::vector<GeoSource> sources,
                                                        std::vector<GeoSegment4> segments4,
                                                        std::vector<GeoSegment6> segments6) {
    auto storage = std::make_shared<Storage>();
    storage->sources = std::move(sources);
    storage->owned4 = std::move(segments4);
    storage->owned6 = std::move(segments6);
    storage->segments4 = storage->owned4;
    storage->segments6 = storage->owned6;
    std::string wrong = complaint(storage->segments4, storage->sources.size(), 32);
    if (wrong.empty()) wrong = complaint(storage->segments6, storage->sources.size(), 128);
    if (wrong.empty() && storage->sources.size() > GEO_SOURCES_MAX) wrong = "has too many sources";
    if (!wrong.empty())
        return std::unexpected(RegionError{RegionError::Code::corrupt, "geo data in memory " + wrong});
    storage->content_hash = hex_of(storage->head().digest);
    return GeoData(std::move(storage));
}

std::expected<void, RegionError> GeoData::save(const std::filesystem::path& path) const {
    const auto head = storage_->head();
    const std::vector<std::byte> padding(head.padding4);
    return write_file_atomically(
        path, {head.bytes, std::as_bytes(storage_->segments4), padding, std::as_bytes(storage_->segments6)});
}

std::expected<GeoData, RegionError> GeoData::open(const std::filesystem::path& path) {
    auto file = MappedFile::open(path);
    if (!file) return std::unexpected(file.error());
    const auto bytes = file->bytes();
    GeoFileHeader header{};
    if (bytes.size() < head_bytes) return refuse(path, "too short for a compiled geo file");
    std::memcpy(&header, bytes.data(), sizeof header);
    if (std::memcmp(header.magic, file_magic, sizeof file_magic) != 0)
        return refuse(path, "not a compiled geo file");
    if (header.version != file_version)
        return std::unexpected(RegionError{
            RegionError::Code::version, path.string() + ": version " + std::to_string(header.version) +
                                            ", this program reads version " + std::to_string(file_version) +
                                            "; build it again with `egresswatch geo build`"});
    if (header.file_bytes != bytes.size())
        return refuse(path, "is " + std::to_string(bytes.size()) + " bytes long, not " +
                                std::to_string(header.file_bytes));
    Sha256 stated{};
    std::memcpy(stated.data(), header.sha256, stated.size());
    std::memset(header.sha256, 0, sizeof header.sha256);
    if (sha256_of({std::as_bytes(std::span(&header, 1)), bytes.subspan(sizeof header)}) != stated)
        return refuse(path, "checksum does not match");

    GeoFileSection table[section_count];
    std::memcpy(table, bytes.data() + sizeof header, sizeof table);
    constexpr std::size_t record_bytes[section_count] = {0, sizeof(GeoSegment4), sizeof(GeoSegment6)};
    for (std::uint32_t i = 0; i < section_count; i++) {
        const auto& section = table[i];
        const bool inside = section.offset <= bytes.size() && section.bytes <= bytes.size() - section.offset;
        const bool counted = i == section_sources || (section.records <= section.bytes &&
                                                      section.records * record_bytes[i] == section.bytes);
        if (header.sections != section_count || section.kind != i ||
            section.record_bytes != record_bytes[i] || !inside || !counted || section.offset % 8 != 0)
            return refuse(path, "section table is damaged");
    }
    auto storage = std::make_shared<Storage>();
    auto sources = read_sources(bytes.subspan(table[section_sources].offset, table[section_sources].bytes),
                                table[section_sources].records);
    if (!sources) return refuse(path, "list of sources is damaged");
    storage->sources = std::move(*sources);
    storage->segments4 = {
        reinterpret_cast<const GeoSegment4*>(bytes.data() + table[section_segments4].offset),
        table[section_segments4].records};
    storage->segments6 = {
        reinterpret_cast<const GeoSegment6*>(bytes.data() + table[section_segments6].offset),
        table[section_segments6].records};
    std::string wrong = complaint(storage->segments4, storage->sources.size(), 32);
    if (wrong.empty()) wrong = complaint(storage->segments6, storage->sources.size(), 128);
    if (!wrong.empty()) return refuse(path, "a list of segments " + wrong);
    storage->content_hash = hex_of(stated);
    storage->file = std::move(*file);
    return GeoData(std::move(storage));
}

GeoRecord GeoData::find(const Address& address) const {
    const auto [inner, bits_before] = embedded_ipv4(address);
    auto record = inner.is_ipv4() ? find_in<std::uint32_t>(storage_->segments4, inner)
                                  : find_in<Uint128>(storage_->segments6, inner);
    if (bits_before != 0 && record.prefix)
        record.prefix =
            Prefix::containing(address, static_cast<std::uint8_t>(bits_before + record.prefix->length));
    return record;
}

std::span<const GeoSource> GeoData::sources() const noexcept {
    return storage_->sources;
}
std::span<const GeoSegment4> GeoData::segments4() const noexcept {
    return storage_->segments4;
}
std::span<const GeoSegment6> GeoData::segments6() const noexcept {
    return storage_->segments6;
}
const std::string& GeoData::content_hash() const noexcept {
    return storage_->content_hash;
}

}  // namespace egresswatch
