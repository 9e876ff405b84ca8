// classifier/region/region_validate.cpp - proves that no lookup can leave a block or fail to end.
// SPDX-License-Identifier: Apache-2.0
//
// The proof for IPv6 levels: a block may only refer to blocks with smaller numbers (the builder makes
// children first), so that there is no cycle, and one pass in ascending order knows the height of every
// block.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "classifier/region/region_storage.h"

namespace egresswatch {

namespace {

using datapath::CLASSES_MAX;

std::unexpected<RegionError> refuse(const std::string& what) {
    return std::unexpected(RegionError{RegionError::Code::corrupt, "region block: " + what});
}

// Sections are whole numbers of lines. A loop of constant length is one that the compiler turns into vector
// instructions at -O2.
constexpr std::size_t line_cells = 64;

// The highest cell: the bound on blocks is one comparison with it.
std::uint16_t highest(std::span<const std::uint16_t> cells) {
    std::array<std::uint16_t, line_cells> top{};
    for (std::size_t i = 0; i < cells.size(); i += line_cells)
        for (std::size_t k = 0; k < line_cells; k++) top[k] = std::max(top[k], cells[i + k]);
    return *std::ranges::max_element(top);
}

// Every cell is a class that exists, or a block below `blocks`.
bool cells_in_bounds(std::span<const std::uint16_t> cells, std::uint32_t classes, std::uint32_t blocks) {
    if (!cells.empty() && highest(cells) >= CLASSES_MAX + blocks) return false;
    if (classes == CLASSES_MAX) return true;
    const auto first_bad = static_cast<std::uint16_t>(classes);
    const auto bad_count = static_cast<std::uint16_t>(CLASSES_MAX - classes);
    std::array<std::uint16_t, line_cells> bad{};
    for (std::size_t i = 0; i < cells.size(); i += line_cells)
        for (std::size_t k = 0; k < line_cells; k++) {
            const auto above =
                static_cast<std::uint16_t>(cells[i + k] - first_bad);  // wraps for good classes
            bad[k] = static_cast<std::uint16_t>(bad[k] | (above < bad_count ? 1 : 0));
        }
    return *std::ranges::max_element(bad) == 0;
}

std::string header_complaint(const datapath::region_header& header, std::size_t block_cells) {
    constexpr std::uint64_t root4_cells = 1u << datapath::REGION_ROOT4_BITS;
    constexpr std::uint64_t narrow_cells = 1u << datapath::REGION_NARROW_BITS;
    constexpr std::uint64_t wide_cells = 1u << datapath::REGION_WIDE_BITS;
    constexpr std::uint64_t root6_cells = 1u << datapath::REGION_ROOT6_BITS;
    if (header.magic != datapath::REGION_MAGIC) return "wrong magic number";
    if (header.version != datapath::REGION_VERSION)
        return "version " + std::to_string(header.version) + ", not " +
               std::to_string(datapath::REGION_VERSION);
    if (header.cells != block_cells) return "size in the header is not that of the block";
    if (header.class_count == 0 || header.class_count > CLASSES_MAX) return "number of classes";
    for (const auto count : {header.narrow_count, header.wide4_count, header.wide6_count})
        if (count > datapath::REGION_BLOCKS_MAX) return "number of blocks";
    // Sections follow each other without a gap, in the order of datapath/region.h.
    std::uint64_t at = sizeof header / sizeof(std::uint16_t);
    const auto section = [&](std::uint32_t start, std::uint64_t cells) {
        const bool right = start == at;
        at += cells;
        return right;
    };
    const bool placed =
        section(header.root4, root4_cells) && section(header.narrow, header.narrow_count * narrow_cells) &&
        section(header.wide4, header.wide4_count * wide_cells) && section(header.root6, root6_cells) &&
        section(header.wide6, header.wide6_count * wide_cells) &&
        section(header.classes, std::uint64_t{header.class_count} * datapath::REGION_CLASS_CELLS);
    constexpr std::uint64_t unit = block_alignment / sizeof(std::uint16_t);
    if (!placed || (at + unit - 1) / unit * unit != block_cells) return "sections are not where they belong";
    if (header.reserved[0] != 0 || header.reserved[1] != 0) return "reserved members are not zero";
    return {};
}

bool letter(unsigned c) {
    return c >= 'A' && c <= 'Z';
}

std::string class_complaint(const ClassCells& cells, std::size_t id) {
    const unsigned kind = cells.kind_and_local & 0xff;
    const unsigned local = cells.kind_and_local >> 8;
    const bool country = letter(cells.code & 0xff) && letter(cells.code >> 8);
    if (kind >= datapath::KIND_COUNT || local > datapath::LOCAL_UNSPECIFIED) return "kind of a class";
    if ((kind == datapath::KIND_LOCAL) != (local != datapath::LOCAL_NONE)) return "local kind of a class";
    if (cells.code != 0 && !country) return "country of a class";
    if (cells.flags > ClassCells::flag_disputed) return "flags of a class";
    if (id == 0 && cells != ClassCells{datapath::KIND_UNKNOWN, 0, 0, 0}) return "class 0 is not unknown";
    return {};
}

}  // namespace

std::expected<void, RegionError> region_validate(std::span<const std::byte> block) {
    if (block.size() < sizeof(datapath::region_header) || block.size() % block_alignment != 0)
        return refuse("size");
    if (reinterpret_cast<std::uintptr_t>(block.data()) % alignof(datapath::region_header) != 0)
        return refuse("not aligned in memory");
    datapath::region_header header{};
    std::memcpy(&header, block.data(), sizeof header);
    const std::span cells(reinterpret_cast<const std::uint16_t*>(block.data()),
                          block.size() / sizeof(std::uint16_t));
    if (auto wrong = header_complaint(header, cells.size()); !wrong.empty()) return refuse(wrong);

    const auto between = [&](std::uint32_t start, std::uint32_t end) {
        return cells.subspan(start, end - start);
    };
    const auto classes = header.class_count;
    const bool four = cells_in_bounds(between(header.root4, header.narrow), classes, header.narrow_count) &&
                      cells_in_bounds(between(header.narrow, header.wide4), classes, header.wide4_count) &&
                      cells_in_bounds(between(header.wide4, header.root6), classes, 0);
    if (!four) return refuse("an IPv4 cell names a class or block that is not there");

    constexpr std::size_t wide_cells = 1u << datapath::REGION_WIDE_BITS;
    std::vector<std::uint8_t> heights(header.wide6_count);  // levels from a block down to its deepest class
    const auto height_below = [&](std::span<const std::uint16_t> level) {
        std::uint8_t height = 0;
        for (const auto cell : level)
            if (cell >= CLASSES_MAX) height = std::max(height, heights[cell - CLASSES_MAX]);
        return height;
    };
    for (std::uint32_t i = 0; i < header.wide6_count; i++) {
        const auto level = cells.subspan(header.wide6 + i * wide_cells, wide_cells);
        if (!cells_in_bounds(level, classes, i))
            return refuse("an IPv6 cell names a class or block that is not there, or a block not before it");
        heights[i] = static_cast<std::uint8_t>(height_below(level) + 1);
        if (heights[i] > datapath::REGION_LEVELS6) return refuse("more IPv6 levels than an address has");
    }
    const auto root6 = between(header.root6, header.wide6);
    if (!cells_in_bounds(root6, classes, header.wide6_count))
        return refuse("an IPv6 cell names a class or block that is not there");

    for (std::size_t id = 0; id < classes; id++) {
        ClassCells found;
        std::memcpy(static_cast<void*>(&found), &cells[header.classes + id * datapath::REGION_CLASS_CELLS],
                    sizeof found);
        if (auto wrong = class_complaint(found, id); !wrong.empty()) return refuse(wrong);
    }
    return {};
}

}  // namespace egresswatch
