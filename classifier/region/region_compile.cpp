// classifier/region/region_compile.cpp - geo data and policy to the flat block of datapath/region.h.
// SPDX-License-Identifier: Apache-2.0
//
// Three passes, each linear: the tilings of geo data and overlay are walked together and give runs of one
// class; the runs, in order of address, fill the levels of the trie, children before parents; equal blocks
// are found by hash and kept once.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <unordered_map>

#include "classifier/region/region_overlay.h"
#include "classifier/region/region_storage.h"
#include "classifier/region/special.h"

namespace egresswatch {

namespace {

using datapath::CLASSES_MAX;

constexpr std::size_t narrow_cells = 1u << datapath::REGION_NARROW_BITS;
constexpr std::size_t wide_cells = 1u << datapath::REGION_WIDE_BITS;
constexpr std::size_t root4_cells = 1u << datapath::REGION_ROOT4_BITS;
constexpr std::size_t root6_cells = 1u << datapath::REGION_ROOT6_BITS;

// Gives class ids. Those of a previous table stay what they mean; new meanings are appended.
class ClassBook {
public:
    ClassBook(const RegionSpec& spec, const RegionOverlay& overlay,
              const RegionTableMaker::Storage* previous);

    // The class of addresses for which geo data say `code`, `disputed` and the overlay says `state`.
    std::uint16_t class_of(std::uint32_t state, std::uint16_t code, bool disputed) {
        if (state == 0) {
            auto& cached = plain_[code | (disputed ? 0x10000u : 0u)];
            if (cached == not_cached) cached = id_of(cells_of(0, code, disputed));
            return cached;
        }
        const std::uint64_t key = std::uint64_t{state} << 17 | (disputed ? 0x10000u : 0u) | code;
        const auto [found, fresh] = overlaid_.try_emplace(key, std::uint16_t{0});
        if (fresh) found->second = id_of(cells_of(state, code, disputed));
        return found->second;
    }

    [[nodiscard]] std::size_t wanted() const noexcept { return wanted_; }
    [[nodiscard]] const std::vector<ClassCells>& classes() const noexcept { return classes_; }
    [[nodiscard]] std::vector<NameSet>& name_sets() noexcept { return name_sets_; }

private:
    static constexpr std::uint16_t not_cached = 0xffff;

    ClassCells cells_of(std::uint32_t state, std::uint16_t code, bool disputed);
    std::uint16_t id_of(const ClassCells& cells);
    std::uint16_t intern(const NameSet& names);

    const RegionSpec& spec_;
    const RegionOverlay& overlay_;
    std::vector<NameSet> name_sets_;
    std::map<NameSet, std::uint16_t> set_ids_;
    std::vector<std::optional<std::uint16_t>> own_set_;  // by name set of the overlay
    std::vector<ClassCells> classes_;
    std::map<ClassCells, std::uint16_t> ids_;
    std::size_t wanted_ = 0;  // classes that there would be without CLASSES_MAX
    std::vector<std::uint16_t> plain_ = std::vector<std::uint16_t>(0x20000, not_cached);
    std::unordered_map<std::uint64_t, std::uint16_t> overlaid_;
};

ClassBook::ClassBook(const RegionSpec& spec, const RegionOverlay& overlay,
                     const RegionTableMaker::Storage* previous)
    : spec_(spec), overlay_(overlay) {
    own_set_.resize(overlay.name_sets.size());
    if (previous == nullptr) {
        intern({});
        id_of({datapath::KIND_UNKNOWN, 0, 0, 0});
        return;
    }
    // Sets and classes keep their numbers: the old class cells mean the same in the new table.
    name_sets_ = previous->name_sets;
    for (std::size_t i = 0; i < name_sets_.size(); i++)
        set_ids_.try_emplace(name_sets_[i], static_cast<std::uint16_t>(i));
    classes_ = previous->classes;
    for (std::size_t i = 0; i < classes_.size(); i++)
        ids_.try_emplace(classes_[i], static_cast<std::uint16_t>(i));
    wanted_ = classes_.size();
}

// A set is interned when a class has it: CLASSES_MAX classes bound the sets too, and what would not fit in 16
// bits is part of a table that is refused.
std::uint16_t ClassBook::intern(const NameSet& names) {
    if (name_sets_.size() == 0xffff) return 0;
    const auto [found, fresh] = set_ids_.try_emplace(names, static_cast<std::uint16_t>(name_sets_.size()));
    if (fresh) name_sets_.push_back(names);
    return found->second;
}

std::uint16_t ClassBook::id_of(const ClassCells& cells) {
    const auto [found, fresh] = ids_.try_emplace(cells, static_cast<std::uint16_t>(classes_.size()));
    if (!fresh) return found->second;
    wanted_++;
    if (classes_.size() == CLASSES_MAX) return found->second = 0;
    classes_.push_back(cells);
    return found->second;
}

ClassCells ClassBook::cells_of(std::uint32_t state, std::uint16_t code, bool disputed) {
    const auto& said = overlay_.states[state];
    ClassCells cells;
    auto& set = own_set_[said.name_set];
    if (!set) set = intern(overlay_.name_sets[said.name_set]);
    cells.name_set = *set;
    datapath::region_kind kind = datapath::KIND_UNKNOWN;
    datapath::local_kind local = datapath::LOCAL_NONE;
    if (said.host) {
        kind = datapath::KIND_LOCAL;
        local = datapath::LOCAL_HOST;
    } else if (said.special >= 0) {
        const auto& special = special_prefixes()[static_cast<std::size_t>(said.special)];
        kind = said.home ? datapath::KIND_HOME : special.kind;
        local = said.home ? datapath::LOCAL_NONE : special.local;
    } else {
        const auto country = code == 0 ? std::nullopt : country_of_code(code);
        if (country) cells.code = code_of_letters((*country)[0], (*country)[1]);
        const bool is_home =
            said.home || (country ? spec_.home_countries.contains(*country) : spec_.unknown_is_home);
        kind = is_home ? datapath::KIND_HOME : country ? datapath::KIND_OUTSIDE : datapath::KIND_UNKNOWN;
        cells.flags = disputed ? ClassCells::flag_disputed : std::uint16_t{0};
    }
    cells.kind_and_local = static_cast<std::uint16_t>(kind | local << 8);
    return cells;
}

// Addresses from `first` up to the next run's are of one class.
template <typename Number>
struct Run {
    Number first = 0;
    std::uint16_t class_id = 0;
};

std::uint32_t first_of(const GeoSegment4& segment) {
    return segment.first;
}
Uint128 first_of(const GeoSegment6& segment) {
    return static_cast<Uint128>(segment.high) << 64 | segment.low;
}

template <typename Number, typename Segment>
PageArray<Run<Number>> make_runs(std::span<const Segment> geo,
                                 const std::vector<OverlayPiece<Number>>& overlay, ClassBook& book) {
    PageArray<Run<Number>> runs(geo.size() + overlay.size());
    std::size_t g = 0;
    std::size_t o = 0;
    Number first = 0;
    while (true) {
        const auto& segment = geo[g];
        const auto class_id =
            book.class_of(overlay[o].state, segment.code, (segment.source & GEO_DISPUTED) != 0);
        if (runs.empty() || runs.back().class_id != class_id) runs.push_back({first, class_id});
        const bool more_geo = g + 1 < geo.size();
        const bool more_overlay = o + 1 < overlay.size();
        if (!more_geo && !more_overlay) return runs;
        const Number next_geo = more_geo ? first_of(geo[g + 1]) : number_max<Number>;
        const Number next_overlay = more_overlay ? overlay[o + 1].first : number_max<Number>;
        first = std::min(next_geo, next_overlay);
        if (more_geo && next_geo == first) g++;
        if (more_overlay && next_overlay == first) o++;
    }
}

// Blocks of one section, each kept once.
template <std::size_t Cells>
class BlockStore {
public:
    // The cell value that names the block.
    std::uint16_t intern(const std::uint16_t* cells) {
        const std::uint64_t hash = hash_of(cells);
        for (std::size_t i = hash & (slots - 1);; i = (i + 1) & (slots - 1)) {
            auto& slot = slots_[i];
            if (slot.block == 0) {
                if (count_ == datapath::REGION_BLOCKS_MAX) return overflow();
                cells_.append({cells, Cells});
                slot = {static_cast<std::uint32_t>(hash >> 32), ++count_};
                return cell_of(count_ - 1);
            }
            const std::uint32_t block = slot.block - 1;
            if (slot.tag == static_cast<std::uint32_t>(hash >> 32) &&
                std::memcmp(cells_.data() + block * Cells, cells, Cells * sizeof *cells) == 0)
                return cell_of(block);
        }
    }
    [[nodiscard]] std::span<const std::uint16_t> cells() const noexcept { return cells_.view(); }
    [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
    [[nodiscard]] bool overflowed() const noexcept { return overflowed_; }

private:
    static constexpr std::size_t slots = 1u << 17;  // at most half full
    static_assert(slots >= 2 * datapath::REGION_BLOCKS_MAX);
    struct Slot {
        std::uint32_t tag = 0;    // upper half of the hash
        std::uint32_t block = 0;  // number + 1; 0: free
    };

    static std::uint16_t cell_of(std::uint32_t block) {
        return static_cast<std::uint16_t>(CLASSES_MAX + block);
    }

    std::uint16_t overflow() {
        overflowed_ = true;
        return 0;
    }

    // Four independent lanes of multiply and rotate: the multiplier is the odd number nearest 2^64 / golden
    // ratio (Knuth, TAOCP volume 3, section 6.4).
    static std::uint64_t hash_of(const std::uint16_t* cells) {
        constexpr std::uint64_t multiplier = 0x9e3779b97f4a7c15u;
        std::uint64_t lanes[4] = {1, 2, 3, 4};
        for (std::size_t i = 0; i < Cells; i += 16)
            for (std::size_t lane = 0; lane < 4; lane++) {
                std::uint64_t word;
                std::memcpy(&word, cells + i + 4 * lane, sizeof word);
                lanes[lane] = (lanes[lane] ^ word) * multiplier;
                lanes[lane] ^= lanes[lane] >> 29;
            }
        std::uint64_t hash = 0;
        for (const auto lane : lanes) {
            hash = (hash ^ lane) * multiplier;
            hash ^= hash >> 32;
        }
        return hash;
    }

    std::vector<Slot> slots_ = std::vector<Slot>(slots);
    PageArray<std::uint16_t> cells_{datapath::REGION_BLOCKS_MAX * Cells};
    std::uint32_t count_ = 0;
    bool overflowed_ = false;
};

// Most runs are a few cells long: they are written fill_step cells at a time, over their end, and the next
// run overwrites what was too much. A level therefore has fill_step more cells than it needs.
constexpr std::size_t fill_step = 16;

template <std::size_t Cells>
using Level = std::array<std::uint16_t, Cells + fill_step>;

// Fills levels of the trie from runs, in ascending order of address.
template <typename Number>
class Filler {
public:
    explicit Filler(const PageArray<Run<Number>>& runs) : runs_(runs) {}

    // cells[i], i < count, covers 2^shift addresses from base + i * 2^shift. Where a cell is cut by a run's
    // edge, child(first address) gives its value.
    template <typename Child>
    void fill(std::uint16_t* cells, std::size_t count, Number base, unsigned shift, Child child) {
        const Number low_bits = (Number{1} << shift) - 1;
        for (std::size_t i = 0; i < count;) {
            const Number start = base + (static_cast<Number>(i) << shift);
            while (at_ + 1 < runs_.size() && runs_[at_ + 1].first <= start) at_++;
            const Number last = at_ + 1 < runs_.size() ? runs_[at_ + 1].first - 1 : number_max<Number>;
            const Number span = last - start;
            const Number whole = (span >> shift) + ((span & low_bits) == low_bits ? 1 : 0);
            if (whole == 0) {
                cells[i] = child(start);
                i++;
                continue;
            }
            const std::size_t end = whole < count - i ? i + static_cast<std::size_t>(whole) : count;
            for (std::size_t k = i; k < end; k += fill_step)
                std::fill_n(cells + k, fill_step, runs_[at_].class_id);
            i = end;
        }
    }

private:
    const PageArray<Run<Number>>& runs_;
    std::size_t at_ = 0;
};

struct Trie4 {
    std::vector<std::uint16_t> root = std::vector<std::uint16_t>(root4_cells + fill_step);
    BlockStore<narrow_cells> narrow;
    BlockStore<wide_cells> wide;

    explicit Trie4(const PageArray<Run<std::uint32_t>>& runs) {
        Filler<std::uint32_t> filler(runs);
        constexpr unsigned narrow_shift = 32 - datapath::REGION_ROOT4_BITS - datapath::REGION_NARROW_BITS;
        const auto no_child = [](std::uint32_t) {
            return std::uint16_t{0};
        };  // a single address is never cut
        const auto make_wide = [&](std::uint32_t base) {
            Level<wide_cells> cells;
            filler.fill(cells.data(), wide_cells, base, 0, no_child);
            return wide.intern(cells.data());
        };
        const auto make_narrow = [&](std::uint32_t base) {
            Level<narrow_cells> cells;
            filler.fill(cells.data(), narrow_cells, base, narrow_shift, make_wide);
            return narrow.intern(cells.data());
        };
        filler.fill(root.data(), root4_cells, 0, 32 - datapath::REGION_ROOT4_BITS, make_narrow);
        root.resize(root4_cells);
    }
};

struct Trie6 {
    std::vector<std::uint16_t> root = std::vector<std::uint16_t>(root6_cells + fill_step);
    BlockStore<wide_cells> wide;

    explicit Trie6(const PageArray<Run<Uint128>>& runs) : filler_(runs) {
        constexpr unsigned shift = 128 - datapath::REGION_ROOT6_BITS;
        filler_.fill(root.data(), root6_cells, 0, shift,
                     [&](Uint128 base) { return make_wide(base, shift); });
        root.resize(root6_cells);
    }

private:
    // A block of 256 cells for the 2^width addresses from base. Recursion ends: a single address is never
    // cut.
    std::uint16_t make_wide(Uint128 base, unsigned width) {
        Level<wide_cells> cells;
        const unsigned shift = width - datapath::REGION_WIDE_BITS;
        filler_.fill(cells.data(), wide_cells, base, shift,
                     [&](Uint128 first) { return make_wide(first, shift); });
        return wide.intern(cells.data());
    }

    Filler<Uint128> filler_;
};

std::unique_ptr<RegionTableMaker::Storage> assemble(const Trie4& four, const Trie6& six,
                                                    const std::vector<ClassCells>& classes,
                                                    std::uint32_t generation) {
    datapath::region_header header{};
    header.magic = datapath::REGION_MAGIC;
    header.version = datapath::REGION_VERSION;
    header.generation = generation;
    header.narrow_count = four.narrow.count();
    header.wide4_count = four.wide.count();
    header.wide6_count = six.wide.count();
    header.class_count = static_cast<std::uint32_t>(classes.size());
    std::size_t at = sizeof header / sizeof(std::uint16_t);
    const auto place = [&](std::uint32_t& start, std::size_t cells) {
        start = static_cast<std::uint32_t>(at);
        at += cells;
    };
    place(header.root4, four.root.size());
    place(header.narrow, four.narrow.cells().size());
    place(header.wide4, four.wide.cells().size());
    place(header.root6, six.root.size());
    place(header.wide6, six.wide.cells().size());
    place(header.classes, classes.size() * datapath::REGION_CLASS_CELLS);
    constexpr std::size_t unit = block_alignment / sizeof(std::uint16_t);
    const std::size_t cells = (at + unit - 1) / unit * unit;
    header.cells = static_cast<std::uint32_t>(cells);

    auto storage = std::make_unique<RegionTableMaker::Storage>();
    PageArray<std::uint16_t> block(cells);
    block.append({reinterpret_cast<const std::uint16_t*>(&header), sizeof header / sizeof(std::uint16_t)});
    block.append(four.root);
    block.append(four.narrow.cells());
    block.append(four.wide.cells());
    block.append(six.root);
    block.append(six.wide.cells());
    block.append({reinterpret_cast<const std::uint16_t*>(classes.data()),
                  classes.size() * datapath::REGION_CLASS_CELLS});
    block.append_zeros(cells - at);
    storage->owned = std::move(block);
    storage->block = std::as_bytes(storage->owned.view());
    return storage;
}

std::unexpected<RegionError> too_many(const std::string& what) {
    return std::unexpected(RegionError{RegionError::Code::limit, what});
}

}  // namespace

std::expected<std::shared_ptr<const RegionTable>, RegionError> compile_region_table(
    const GeoData& geo, const RegionSpec& spec, const RegionTable* previous) {
    auto overlay = make_overlay(spec);
    if (!overlay) return std::unexpected(overlay.error());
    const auto* before = previous != nullptr ? &RegionTableMaker::storage_of(*previous) : nullptr;
    ClassBook book(spec, *overlay, before);
    const auto runs4 = make_runs<std::uint32_t>(geo.segments4(), overlay->pieces4, book);
    const auto runs6 = make_runs<Uint128>(geo.segments6(), overlay->pieces6, book);
    if (book.wanted() > CLASSES_MAX)
        return too_many(
            "the policy needs " + std::to_string(book.wanted()) + " destination classes (" +
            std::to_string(before ? before->classes.size() : 0) +
            " of them from before the reload), the limit is " + std::to_string(CLASSES_MAX) +
            "; merge lists that overlap country borders, or restart the daemon after `egresswatch detach`");
    const Trie4 four(runs4);
    const Trie6 six(runs6);
    if (four.narrow.overflowed() || four.wide.overflowed() || six.wide.overflowed())
        return too_many("geo data and policy need more than " + std::to_string(datapath::REGION_BLOCKS_MAX) +
                        " distinct blocks of one level; drop the longest prefixes from the policy's lists");
    auto storage = assemble(four, six, book.classes(), before ? before->header.generation + 1 : 1);
    storage->name_sets = std::move(book.name_sets());
    storage->list_names = spec.list_names;
    return RegionTableMaker::make(std::move(storage));
}

}  // namespace egresswatch
