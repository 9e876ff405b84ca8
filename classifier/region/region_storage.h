// classifier/region/region_storage.h - what a RegionTable owns. Internal to the folder.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "classifier/region/file_io.h"
#include "classifier/region/page_array.h"
#include "classifier/region/region_overlay.h"
#include "classifier/region/region_table.h"

namespace egresswatch {

// The four cells of a class in the block (datapath/region.h).
struct ClassCells {
    std::uint16_t kind_and_local = 0;
    std::uint16_t code = 0;  // 0: no country
    std::uint16_t name_set = 0;
    std::uint16_t flags = 0;

    static constexpr std::uint16_t flag_disputed = 1;
    auto operator<=>(const ClassCells&) const = default;
};
static_assert(sizeof(ClassCells) == datapath::REGION_CLASS_CELLS * sizeof(std::uint16_t));

inline constexpr std::size_t block_alignment = 64;  // bytes; also what the size is rounded up to

struct RegionTable::Storage {
    PageArray<std::uint16_t> owned;  // either this holds the block, or the file does
    MappedFile file;
    std::span<const std::byte> block;
    datapath::region_header header{};
    std::vector<NameSet> name_sets;       // by ClassCells::name_set
    std::vector<std::string> list_names;  // of the spec compiled last
    std::vector<ClassCells> classes;
    std::vector<ClassInfo> infos;

    [[nodiscard]] const std::uint16_t* cells() const noexcept {
        return reinterpret_cast<const std::uint16_t*>(block.data());
    }
};

// The one door to a table's storage.
struct RegionTableMaker {
    using Storage = RegionTable::Storage;
    // `storage` has its block, name_sets and list_names; the block is valid. Fails where a class names a set
    // that is not there.
    [[nodiscard]] static std::shared_ptr<const RegionTable> make(std::unique_ptr<Storage> storage);
    [[nodiscard]] static const Storage& storage_of(const RegionTable& table) { return *table.storage_; }
};

}  // namespace egresswatch
