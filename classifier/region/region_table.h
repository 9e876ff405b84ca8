// classifier/region/region_table.h - the region block (datapath/region.h), its builder, checker and file.
// SPDX-License-Identifier: Apache-2.0
//
// In:       GeoData and a RegionSpec.      Out: one immutable block that kernel and user space look up in.
// Threads:  immutable, shared by pointer; compile_region_table on any thread.
// Limits:   CLASSES_MAX class ids for the life of a chain of tables, REGION_BLOCKS_MAX blocks per section.
// Cost:     about 22 MiB with a full country database; less than 50 ms to compile.
// Fails:    RegionError; the previous table stays usable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "classifier/address.h"
#include "classifier/datapath/region.h"
#include "classifier/region/geo_data.h"
#include "classifier/region/region_error.h"
#include "classifier/region/region_spec.h"

namespace egresswatch {

// Proves that no lookup in the block can leave it, whatever the address: header, sections, every cell, and
// that every chain of IPv6 blocks ends in a class within REGION_LEVELS6 levels. `block` must be 4-byte
// aligned.
[[nodiscard]] std::expected<void, RegionError> region_validate(std::span<const std::byte> block);

class RegionTable {
public:
    // The block: install it as it is. Its size is a multiple of 64 bytes.
    [[nodiscard]] std::span<const std::byte> block() const noexcept;
    [[nodiscard]] std::uint32_t cells() const noexcept;  // block().size() / 2
    [[nodiscard]] std::uint32_t generation() const noexcept;

    [[nodiscard]] std::uint16_t lookup(const Address& address) const noexcept;
    // A class id that the table does not have is answered as class 0.
    // `lists` are indices into the list_names of the RegionSpec compiled last. A class that only flows from
    // before a reload still carry keeps its kind and country; lists that the policy no longer has are gone.
    [[nodiscard]] const ClassInfo& class_info(std::uint16_t class_id) const noexcept;
    [[nodiscard]] std::size_t class_count() const noexcept;
    // Names of the lists of a class, those included that the policy no longer has.
    [[nodiscard]] std::span<const std::string> class_list_names(std::uint16_t class_id) const noexcept;
    [[nodiscard]] std::span<const std::string> list_names() const noexcept;  // of the RegionSpec
    [[nodiscard]] std::uint32_t narrow_count() const noexcept;
    [[nodiscard]] std::uint32_t wide4_count() const noexcept;
    [[nodiscard]] std::uint32_t wide6_count() const noexcept;

    // By mmap; checksum, region_validate() and the class section are verified before anything is used.
    [[nodiscard]] static std::expected<std::shared_ptr<const RegionTable>, RegionError> load(
        const std::filesystem::path& path);
    // Writes beside `path` and renames.
    [[nodiscard]] std::expected<void, RegionError> save(const std::filesystem::path& path) const;

    RegionTable(const RegionTable&) = delete;
    RegionTable& operator=(const RegionTable&) = delete;
    ~RegionTable();

private:
    struct Storage;
    friend struct RegionTableMaker;
    explicit RegionTable(std::unique_ptr<const Storage> storage);
    std::unique_ptr<const Storage> storage_;
};

// Precedence: the host's own addresses > home CIDRs of the policy > special addresses (special.h) > country
// of the geo data > unknown. Lists add membership and change nothing else. A class is a distinct combination
// of (kind, local kind, country, names of the lists, disputed); ids of `previous` keep their meaning, new
// combinations get new ids. Errors: no class id left; a policy prefix that can never match (inside 2002::/16,
// 64:ff9b::/96: such addresses are classified by the IPv4 address in them); list index out of range.
[[nodiscard]] std::expected<std::shared_ptr<const RegionTable>, RegionError> compile_region_table(
    const GeoData& geo, const RegionSpec& spec, const RegionTable* previous = nullptr);

}  // namespace egresswatch
