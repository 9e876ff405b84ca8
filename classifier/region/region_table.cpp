// classifier/region/region_table.cpp - the table as readers see it, and its file.
// SPDX-License-Identifier: Apache-2.0
//
// The file: RegionFileHeader, the block on a 64-byte boundary, then the name sets and the list names. The
// checksum is over the whole file with the checksum itself as zeros.
#include "classifier/region/region_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "classifier/region/region_storage.h"

namespace egresswatch {

namespace {

constexpr char file_magic[8] = {'E', 'W', 'R', 'E', 'G', '\r', '\n', '\x1a'};
constexpr std::uint32_t file_version = 1;

struct RegionFileHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t reserved;
    std::uint64_t file_bytes;
    std::uint64_t block_bytes;  // the block follows this header
    std::uint8_t sha256[32];
};
static_assert(sizeof(RegionFileHeader) == block_alignment);

constexpr std::uint32_t names_max = 1u << 20;  // of sets, and of names in all of them: far above any policy

bool read_names(ByteReader& reader, std::vector<std::string>& names) {
    const auto count = reader.number<std::uint32_t>();
    if (count > names_max) return false;
    for (std::uint32_t i = 0; i < count && reader.ok(); i++) names.push_back(reader.string());
    return reader.ok();
}

void write_names(ByteWriter& writer, std::span<const std::string> names) {
    writer.number(static_cast<std::uint32_t>(names.size()));
    for (const auto& name : names) writer.string(name);
}

std::vector<std::byte> write_tail(const std::vector<NameSet>& sets, const std::vector<std::string>& names) {
    ByteWriter writer;
    writer.number(static_cast<std::uint32_t>(sets.size()));
    for (const auto& set : sets) write_names(writer, set);
    write_names(writer, names);
    return writer.bytes();
}

bool read_tail(std::span<const std::byte> bytes, std::vector<NameSet>& sets,
               std::vector<std::string>& names) {
    ByteReader reader(bytes);
    const auto count = reader.number<std::uint32_t>();
    if (count == 0 || count > names_max) return false;
    for (std::uint32_t i = 0; i < count; i++)
        if (!read_names(reader, sets.emplace_back())) return false;
    return sets[0].empty() && read_names(reader, names) && reader.at_end();
}

ClassInfo info_of(const ClassCells& cells, const NameSet& names, const std::vector<std::string>& list_names) {
    ClassInfo info;
    info.kind = static_cast<datapath::region_kind>(cells.kind_and_local & 0xff);
    info.local = static_cast<datapath::local_kind>(cells.kind_and_local >> 8);
    if (cells.code != 0)
        info.country = {static_cast<char>(cells.code & 0xff), static_cast<char>(cells.code >> 8)};
    for (std::size_t i = 0; i < list_names.size(); i++)
        if (std::ranges::binary_search(names, list_names[i]))
            info.lists.push_back(static_cast<std::uint16_t>(i));
    info.disputed = (cells.flags & ClassCells::flag_disputed) != 0;
    return info;
}

std::unexpected<RegionError> refuse(const std::filesystem::path& path, const std::string& what) {
    return std::unexpected(RegionError{RegionError::Code::corrupt,
                                       path.string() + ": " + what + "; the region table is not used"});
}

}  // namespace

RegionTable::RegionTable(std::unique_ptr<const Storage> storage) : storage_(std::move(storage)) {}
RegionTable::~RegionTable() = default;

std::shared_ptr<const RegionTable> RegionTableMaker::make(std::unique_ptr<Storage> storage) {
    auto& made = *storage;
    std::memcpy(&made.header, made.block.data(), sizeof made.header);
    made.classes.resize(made.header.class_count);
    std::memcpy(static_cast<void*>(made.classes.data()), made.cells() + made.header.classes,
                made.classes.size() * sizeof(ClassCells));
    for (const auto& cells : made.classes) {
        if (cells.name_set >= made.name_sets.size()) return nullptr;
        made.infos.push_back(info_of(cells, made.name_sets[cells.name_set], made.list_names));
    }
    return std::shared_ptr<const RegionTable>(new RegionTable(std::move(storage)));
}

std::span<const std::byte> RegionTable::block() const noexcept {
    return storage_->block;
}
std::uint32_t RegionTable::cells() const noexcept {
    return storage_->header.cells;
}
std::uint32_t RegionTable::generation() const noexcept {
    return storage_->header.generation;
}
std::size_t RegionTable::class_count() const noexcept {
    return storage_->infos.size();
}
std::uint32_t RegionTable::narrow_count() const noexcept {
    return storage_->header.narrow_count;
}
std::uint32_t RegionTable::wide4_count() const noexcept {
    return storage_->header.wide4_count;
}
std::uint32_t RegionTable::wide6_count() const noexcept {
    return storage_->header.wide6_count;
}
std::span<const std::string> RegionTable::list_names() const noexcept {
    return storage_->list_names;
}

const ClassInfo& RegionTable::class_info(std::uint16_t class_id) const noexcept {
    return storage_->infos[class_id < storage_->infos.size() ? class_id : 0];
}

std::span<const std::string> RegionTable::class_list_names(std::uint16_t class_id) const noexcept {
    return storage_->name_sets[storage_->classes[class_id < class_count() ? class_id : 0].name_set];
}

std::uint16_t RegionTable::lookup(const Address& address) const noexcept {
    alignas(4) std::uint8_t bytes[16];  // the datapath reads words
    std::memcpy(bytes, address.bytes.data(), sizeof bytes);
    return static_cast<std::uint16_t>(
        datapath::region_lookup(storage_->cells(), storage_->header.cells, bytes));
}

std::expected<void, RegionError> RegionTable::save(const std::filesystem::path& path) const {
    const auto tail = write_tail(storage_->name_sets, storage_->list_names);
    RegionFileHeader header{};
    std::memcpy(header.magic, file_magic, sizeof file_magic);
    header.version = file_version;
    header.block_bytes = storage_->block.size();
    header.file_bytes = sizeof header + storage_->block.size() + tail.size();
    const auto header_bytes = std::as_bytes(std::span(&header, 1));
    const auto digest = sha256_of({header_bytes, storage_->block, tail});
    std::memcpy(header.sha256, digest.data(), digest.size());
    return write_file_atomically(path, {header_bytes, storage_->block, tail});
}

std::expected<std::shared_ptr<const RegionTable>, RegionError> RegionTable::load(
    const std::filesystem::path& path) {
    auto file = MappedFile::open(path);
    if (!file) return std::unexpected(file.error());
    const auto bytes = file->bytes();
    RegionFileHeader header{};
    if (bytes.size() < sizeof header) return refuse(path, "too short for a region table");
    std::memcpy(&header, bytes.data(), sizeof header);
    if (std::memcmp(header.magic, file_magic, sizeof file_magic) != 0)
        return refuse(path, "not a region table file");
    if (header.version != file_version)
        return std::unexpected(RegionError{
            RegionError::Code::version, path.string() + ": region table of version " +
                                            std::to_string(header.version) + ", this program reads version " +
                                            std::to_string(file_version) + "; compile it again"});
    if (header.file_bytes != bytes.size() || header.block_bytes > bytes.size() - sizeof header)
        return refuse(path, "is cut or longer than it says");
    Sha256 stated{};
    std::memcpy(stated.data(), header.sha256, stated.size());
    std::memset(header.sha256, 0, sizeof header.sha256);
    if (sha256_of({std::as_bytes(std::span(&header, 1)), bytes.subspan(sizeof header)}) != stated)
        return refuse(path, "checksum does not match");
    auto storage = std::make_unique<Storage>();
    storage->block = bytes.subspan(sizeof header, header.block_bytes);
    if (const auto valid = region_validate(storage->block); !valid)
        return refuse(path, valid.error().message);
    if (!read_tail(bytes.subspan(sizeof header + header.block_bytes), storage->name_sets,
                   storage->list_names))
        return refuse(path, "names of the lists are damaged");
    storage->file = std::move(*file);
    auto table = RegionTableMaker::make(std::move(storage));
    if (!table) return refuse(path, "a class names a set of lists that is not there");
    return table;
}

}  // namespace egresswatch
