// classifier/region/geo_builder.cpp - makes sources disjoint, one by one, then lays them over each other.
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/geo_builder.h"

#include <algorithm>
#include <utility>

#include "classifier/region/file_io.h"
#include "classifier/region/geo_import.h"

namespace egresswatch {

namespace {

// A segment of either family while it is being built: [first, first of the next).
template <typename Number>
struct Piece {
    Number first = 0;
    std::uint16_t code = 0;
    std::uint8_t length = GEO_LENGTH_OF_RANGE;
    std::uint8_t source = GEO_NO_SOURCE;

    bool same_as(const Piece& other) const {
        return code == other.code && length == other.length && source == other.source;
    }
};
template <typename Number>
using Pieces = std::vector<Piece<Number>>;

template <typename Number>
void append(Pieces<Number>& pieces, Piece<Number> piece) {
    if (!pieces.empty() && pieces.back().first == piece.first) pieces.pop_back();
    const bool gap_again = !pieces.empty() && pieces.back().code == 0 && piece.code == 0;
    if (!gap_again) pieces.push_back(piece);
}

std::string place_of(const GeoImport& import, std::uint32_t line) {
    return line == 0 ? import.label : "line " + std::to_string(line);
}

// Ranges may nest (the innermost wins), but not overlap in part, and not name two countries for one range.
template <typename Number>
class Flatten {
public:
    Flatten(GeoImport& import, std::uint8_t source) : import_(import), source_(source) {}

    Pieces<Number> run(std::vector<GeoRange<Number>> ranges) {
        const auto before = [](const GeoRange<Number>& a, const GeoRange<Number>& b) {
            return a.first != b.first ? a.first < b.first : a.last > b.last;
        };
        if (!std::ranges::is_sorted(ranges, before)) std::ranges::stable_sort(ranges, before);
        pieces_.reserve(2 * ranges.size() + 1);
        append(pieces_, Piece<Number>{});
        for (const auto& range : ranges) {
            close_before(range.first);
            if (!open_.empty() && !fits(range)) continue;
            open_.push_back(&range);
            append(pieces_, piece_of(range, range.first));
        }
        while (!open_.empty()) close_innermost();
        return std::move(pieces_);
    }

private:
    Piece<Number> piece_of(const GeoRange<Number>& range, Number first) const {
        return {first, range.code, range.length, source_};
    }

    bool fits(const GeoRange<Number>& range) {
        const auto& outer = *open_.back();
        if (range.last > outer.last) {
            import_.bad(range.line, 1, "range overlaps a part of that of " + place_of(import_, outer.line),
                        "ranges may lie in each other, or apart");
            return false;
        }
        if (range.first != outer.first || range.last != outer.last) return true;
        if (range.code != outer.code)
            import_.bad(range.line, 1,
                        "same addresses as " + place_of(import_, outer.line) + ", other country",
                        "keep one of the two lines");
        return false;
    }

    void close_before(Number first) {
        while (!open_.empty() && open_.back()->last < first) close_innermost();
    }

    void close_innermost() {
        const Number last = open_.back()->last;
        open_.pop_back();
        if (last == number_max<Number>) return;
        const Number next = last + 1;
        append(pieces_, open_.empty() ? Piece<Number>{next} : piece_of(*open_.back(), next));
    }

    GeoImport& import_;
    const std::uint8_t source_;
    std::vector<const GeoRange<Number>*> open_;
    Pieces<Number> pieces_;
};

std::uint16_t known_code(std::uint16_t code) {
    const auto country = code == 0 ? std::nullopt : country_of_code(code);
    return country ? code_of_letters((*country)[0], (*country)[1]) : std::uint16_t{0};
}

// What the preferred source and the others below it say together.
template <typename Number>
struct Decision {
    Piece<Number> piece;
    bool from_other = false;
};

template <typename Number>
Decision<Number> decide(const Piece<Number>& preferred, const Piece<Number>& other) {
    const auto preferred_country = known_code(preferred.code);
    const auto other_country = known_code(other.code);
    const bool from_other = preferred_country == 0 && (other_country != 0 || preferred.code == 0);
    Decision<Number> decision{from_other ? other : preferred, from_other};
    const bool differ = preferred_country != 0 && other_country != 0 && preferred_country != other_country;
    if (differ || ((preferred.source | other.source) & GEO_DISPUTED) != 0)
        decision.piece.source |= GEO_DISPUTED;
    return decision;
}

// Walks two tilings at once and asks choose(a, b) about every stretch on which both are constant.
template <typename Number, typename Choose>
Pieces<Number> combine(const Pieces<Number>& one, const Pieces<Number>& two, Choose choose) {
    Pieces<Number> combined;
    combined.reserve(one.size() + two.size());
    std::size_t a = 0;
    std::size_t b = 0;
    std::pair<bool, std::size_t> origin{false, static_cast<std::size_t>(-1)};
    while (true) {
        auto [piece, from_two] = choose(one[a], two[b]);
        piece.first = std::max(one[a].first, two[b].first);
        // The same record of the same input goes on: where the other input changes splits nothing.
        const std::pair<bool, std::size_t> from{from_two, from_two ? b : a};
        if (combined.empty() || from != origin || !piece.same_as(combined.back())) append(combined, piece);
        origin = from;
        const bool more_a = a + 1 < one.size();
        const bool more_b = b + 1 < two.size();
        if (!more_a && !more_b) return combined;
        const bool step_a = more_a && (!more_b || one[a + 1].first <= two[b + 1].first);
        const bool step_b = more_b && (!more_a || two[b + 1].first <= one[a + 1].first);
        a += step_a ? 1 : 0;
        b += step_b ? 1 : 0;
    }
}

// Addresses that stand for an IPv4 address are answered by that one: what sources say about them is dropped.
Pieces<Uint128> without_embedded(const Pieces<Uint128>& pieces) {
    constexpr std::uint8_t hole = 0;  // here Piece::source tells a hole from what is kept
    const auto edge = [](Uint128 first, std::uint8_t source) {
        return Piece<Uint128>{first, 0, GEO_LENGTH_OF_RANGE, source};
    };
    const Uint128 mapped = static_cast<Uint128>(0xffffu) << 32;
    const Uint128 nat64 = static_cast<Uint128>(0x0064ff9bu) << 96;
    const Uint128 six_to_four = static_cast<Uint128>(0x2002u) << 112;
    const Uint128 ipv4_space = Uint128{1} << 32;
    const Pieces<Uint128> holes = {edge(0, GEO_NO_SOURCE),
                                   edge(mapped, hole),
                                   edge(mapped + ipv4_space, GEO_NO_SOURCE),
                                   edge(nat64, hole),
                                   edge(nat64 + ipv4_space, GEO_NO_SOURCE),
                                   edge(six_to_four, hole),
                                   edge(six_to_four + (Uint128{1} << 112), GEO_NO_SOURCE)};
    return combine(holes, pieces, [](const Piece<Uint128>& cut, const Piece<Uint128>& piece) {
        return cut.source == hole ? Decision<Uint128>{{}, false} : Decision<Uint128>{piece, true};
    });
}

}  // namespace

void GeoImport::bad(std::uint32_t line, std::size_t column, std::string_view what, std::string_view cure) {
    error_count++;
    if (errors.size() >= GEO_ERRORS_MAX) return;
    std::string place = label + ":";
    if (line != 0) place += std::to_string(line) + ":" + std::to_string(column) + ":";
    errors.push_back(place + " error: " + std::string(what) + "\n  help: " + std::string(cure));
}

void GeoImport::count_code(std::uint16_t code) {
    source.records++;
    if (known_code(code) == 0) source.no_country++;
}

void GeoImport::add_prefix(const Prefix& prefix, std::uint16_t code, std::uint32_t line) {
    count_code(code);
    if (prefix.is_ipv4()) {
        const auto first = prefix.base.ipv4();
        ranges4.push_back({first, prefix_last(first, prefix.length), code, prefix.length, line});
    } else {
        const auto first = Family<Uint128>::number_of(prefix.base);
        ranges6.push_back({first, prefix_last(first, prefix.length), code, prefix.length, line});
    }
}

struct GeoBuilder::Impl {
    std::vector<GeoSource> sources;
    std::vector<Pieces<std::uint32_t>> pieces4;  // one for each source
    std::vector<Pieces<Uint128>> pieces6;

    std::expected<void, RegionError> take(GeoImport import);
};

std::expected<void, RegionError> GeoBuilder::Impl::take(GeoImport import) {
    if (sources.size() >= GEO_SOURCES_MAX)
        return std::unexpected(RegionError{RegionError::Code::limit, "more than 63 geo sources"});
    if (import.error_count == 0 && import.source.records == 0)
        import.bad(0, 0, "no record in the file", "check that the file has the format it is given as");
    const auto index = static_cast<std::uint8_t>(sources.size());
    auto flat4 = Flatten<std::uint32_t>(import, index).run(std::move(import.ranges4));
    auto flat6 = Flatten<Uint128>(import, index).run(std::move(import.ranges6));
    if (import.error_count != 0) {
        std::string message;
        for (const auto& error : import.errors) message += (message.empty() ? "" : "\n") + error;
        if (import.error_count > import.errors.size())
            message += "\n" + import.label + ": " +
                       std::to_string(import.error_count - import.errors.size()) +
                       " more errors are not shown";
        return std::unexpected(RegionError{RegionError::Code::input, message});
    }
    sources.push_back(std::move(import.source));
    pieces4.push_back(std::move(flat4));
    pieces6.push_back(without_embedded(flat6));
    return {};
}

GeoBuilder::GeoBuilder() : impl_(std::make_unique<Impl>()) {}
GeoBuilder::~GeoBuilder() = default;
GeoBuilder::GeoBuilder(GeoBuilder&&) noexcept = default;
GeoBuilder& GeoBuilder::operator=(GeoBuilder&&) noexcept = default;

namespace {

std::string format_name(GeoFormat format) {
    switch (format) {
        case GeoFormat::ipfire4:
            return "ipfire4";
        case GeoFormat::ipfire6:
            return "ipfire6";
        case GeoFormat::rir:
            return "rir";
        case GeoFormat::cidr:
            return "cidr";
        case GeoFormat::mmdb:
            return "mmdb";
    }
    return "?";
}

GeoImport start_import(const GeoInput& input, std::span<const std::byte> bytes) {
    GeoImport import;
    import.label = input.path.string();
    const bool ipfire = input.format == GeoFormat::ipfire4 || input.format == GeoFormat::ipfire6;
    import.source.name = !input.name.empty() ? input.name : ipfire ? "ipfire" : input.path.stem().string();
    import.source.format = format_name(input.format);
    import.source.sha256 = hex_of(sha256_of({bytes}));
    if (input.default_country.size() == 2)
        import.default_code = code_of_letters(input.default_country[0], input.default_country[1]);
    return import;
}

void import_text(GeoImport& import, GeoFormat format, std::string_view text) {
    switch (format) {
        case GeoFormat::ipfire4:
        case GeoFormat::ipfire6:
            return import_ipfire(import, format, text);
        case GeoFormat::rir:
            return import_rir(import, text);
        case GeoFormat::cidr:
            return import_cidr(import, text);
        case GeoFormat::mmdb:
            return import.bad(0, 0, "a MaxMind DB is not text", "give it as a file");
    }
}

}  // namespace

std::expected<void, RegionError> GeoBuilder::add_file(const GeoInput& input) {
    const auto file = MappedFile::open(input.path);
    if (!file) return std::unexpected(file.error());
    auto import = start_import(input, file->bytes());
    if (input.format == GeoFormat::mmdb)
        import_mmdb(import, input.path);
    else
        import_text(import, input.format, file->text());
    return impl_->take(std::move(import));
}

std::expected<void, RegionError> GeoBuilder::add_text(const GeoInput& input, std::string_view text) {
    auto import = start_import(input, std::as_bytes(std::span(text)));
    import_text(import, input.format, text);
    return impl_->take(std::move(import));
}

std::expected<GeoData, RegionError> GeoBuilder::finish() {
    Pieces<std::uint32_t> merged4{Piece<std::uint32_t>{}};
    Pieces<Uint128> merged6{Piece<Uint128>{}};
    for (std::size_t i = impl_->sources.size(); i-- > 0;) {
        merged4 = combine(impl_->pieces4[i], merged4, decide<std::uint32_t>);
        merged6 = combine(impl_->pieces6[i], merged6, decide<Uint128>);
    }
    std::vector<GeoSegment4> segments4;
    segments4.reserve(merged4.size());
    for (const auto& piece : merged4)
        segments4.push_back({piece.first, piece.code, piece.length, piece.source});
    std::vector<GeoSegment6> segments6;
    segments6.reserve(merged6.size());
    for (const auto& piece : merged6)
        segments6.push_back({static_cast<std::uint64_t>(piece.first >> 64),
                             static_cast<std::uint64_t>(piece.first), piece.code, piece.length, piece.source,
                             0});
    return GeoData::from_parts(std::move(impl_->sources), std::move(segments4), std::move(segments6));
}

std::expected<GeoData, RegionError> open_geo_file(const std::filesystem::path& path) {
    const auto file = MappedFile::open(path);
    if (!file) return std::unexpected(file.error());
    // MaxMind DB format specification 2.0: the metadata start behind the last marker in the last 128 KiB.
    constexpr std::size_t metadata_bytes_max = 128 * 1024;
    const auto text = file->text();
    const auto tail = text.substr(text.size() - std::min(text.size(), metadata_bytes_max));
    if (text.starts_with("EWGEO") || tail.find("\xab\xcd\xefMaxMind.com") == std::string_view::npos)
        return GeoData::open(path);
    GeoBuilder builder;
    if (const auto added = builder.add_file({GeoFormat::mmdb, path, {}, {}}); !added)
        return std::unexpected(added.error());
    return builder.finish();
}

}  // namespace egresswatch
