// tests/fuzz/region_table_fuzz.cpp - damaged blocks, files and imports: refused, or read in bounds and to an
// end. SPDX-License-Identifier: Apache-2.0
//
// The first byte chooses what is fed. A whole block is 655 kB, far more than a fuzzer invents: inputs are
// patches (place, value) to a good one instead. Files get the checksum that belongs to them, so that what is
// behind the checksum is reached.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "classifier/region/file_io.h"
#include "classifier/region/geo_builder.h"
#include "classifier/region/region_table.h"

using namespace egresswatch;

namespace {

void require(bool condition) {
    if (!condition) std::abort();
}

// A file that lives in memory only.
class MemoryFile {
public:
    explicit MemoryFile(std::string_view content) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        require(fd_ >= 0 &&
                ::write(fd_, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
    }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    ~MemoryFile() { ::close(fd_); }
    [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

private:
    int fd_;
};

void mend_checksum(std::string& content, std::size_t digest_at) {
    if (content.size() < digest_at + 32) return;
    std::memset(content.data() + digest_at, 0, 32);
    const auto digest = sha256_of({std::as_bytes(std::span(content))});
    std::memcpy(content.data() + digest_at, digest.data(), digest.size());
}

const RegionTable& good_table() {
    static const auto table = [] {
        GeoBuilder builder;
        require(
            builder
                .add_text(
                    {GeoFormat::cidr, "seed", {}, {}},
                    "9.0.0.0/8 US\n9.1.2.3/32 IE\n2a00::/16 NO\n2a00:1:2:3:4:5:6:7/128 CN\n2a00:2::/33 SG\n")
                .has_value());
        RegionSpec spec;
        spec.home_countries = {"IE", "NO"};
        spec.list_names = {"list"};
        spec.list_prefixes = {{Prefix::parse("9.1.2.0/24").value(), 0}};
        return compile_region_table(builder.finish().value(), spec).value();
    }();
    return *table;
}

std::vector<Address> probes(std::string_view input) {
    std::vector<Address> addresses = {Address::parse("9.1.2.3").value(),
                                      Address::parse("2a00:1:2:3:4:5:6:7").value(),
                                      Address::parse("255.255.255.255").value(), Address{}};
    for (std::size_t at = 0; at + 16 <= input.size() && addresses.size() < 16; at += 16)
        addresses.push_back(Address::from_bytes(reinterpret_cast<const std::uint8_t*>(input.data() + at)));
    return addresses;
}

void look_around(const std::uint16_t* cells, std::uint32_t count, std::string_view input, bool valid) {
    for (const auto& address : probes(input)) {
        alignas(4) std::uint8_t bytes[16];
        std::memcpy(bytes, address.bytes.data(), sizeof bytes);
        const auto id = datapath::region_lookup(cells, count, bytes);
        require(id < datapath::CLASSES_MAX);
        if (valid) require(id < reinterpret_cast<const datapath::region_header*>(cells)->class_count);
        (void)datapath::region_kind_of(cells, count, id);
    }
}

// Six bytes a patch: where (of the header for odd places, of the whole otherwise), and what.
template <typename Apply>
void for_each_patch(std::string_view input, std::size_t size, Apply apply) {
    for (std::size_t at = 0; at + 6 <= input.size(); at += 6) {
        std::uint32_t place;
        std::uint16_t value;
        std::memcpy(&place, input.data() + at, 4);
        std::memcpy(&value, input.data() + at + 4, 2);
        apply((place & 1) != 0 ? (place >> 1) % 32 : (place >> 1) % size, value);
    }
}

void feed_block(std::string_view input) {
    // Exactly as large as it must be: AddressSanitizer sees a read of one byte more.
    static std::vector<std::uint16_t> cells;
    const auto good = good_table().block();
    cells.resize(good.size() / 2);
    if (cells[0] == 0) std::memcpy(cells.data(), good.data(), good.size());
    std::vector<std::pair<std::size_t, std::uint16_t>> undo;
    for_each_patch(input, cells.size(), [&](std::size_t place, std::uint16_t value) {
        undo.emplace_back(place, cells[place]);
        cells[place] = value;
    });
    const bool valid = region_validate(std::as_bytes(std::span(cells))).has_value();
    look_around(cells.data(), static_cast<std::uint32_t>(cells.size()), input, valid);
    for (auto last = undo.rbegin(); last != undo.rend(); ++last) cells[last->first] = last->second;
}

void feed_region_file(std::string_view input) {
    static const std::string good = [] {
        const std::string path = "/tmp/region_table_fuzz." + std::to_string(::getpid());
        require(good_table().save(path).has_value());
        const auto file = MappedFile::open(path);
        ::unlink(path.c_str());
        return std::string(file->text());
    }();
    std::string content = good;
    for_each_patch(input, 512, [&](std::size_t place, std::uint16_t value) {  // head or tail of the file
        const std::size_t at = place < 32 ? 2 * place : content.size() - 2 - place;
        std::memcpy(content.data() + at, &value, 2);
    });
    mend_checksum(content, 32);
    const MemoryFile file(content);
    const auto table = RegionTable::load(file.path());
    if (!table) return;
    for (std::uint16_t id = 0; id < (*table)->class_count(); id++) {
        for (const auto list : (*table)->class_info(id).lists) require(list < (*table)->list_names().size());
        (void)(*table)->class_list_names(id);
    }
    for (const auto& address : probes(input)) (void)(*table)->class_info((*table)->lookup(address));
}

void look_up_geo(const GeoData& geo, std::string_view input) {
    for (const auto& address : probes(input)) {
        const auto record = geo.find(address);
        if (record.prefix) require(record.prefix->contains(address) && record.source < geo.sources().size());
    }
}

void feed_geo_file(std::string_view input) {
    std::string content(input);
    mend_checksum(content, 24);
    const MemoryFile file(content);
    if (const auto geo = GeoData::open(file.path())) look_up_geo(*geo, input);
}

void feed_import(GeoFormat format, std::string_view input) {
    GeoBuilder builder;
    if (!builder.add_text({format, "input", {}, {}}, input)) return;
    const auto geo = builder.finish();
    require(geo.has_value());
    look_up_geo(*geo, input);
    const auto table = compile_region_table(*geo, RegionSpec{});
    require(table.has_value() && region_validate((*table)->block()).has_value());
    for (const auto& address : probes(input))
        require((*table)->class_info((*table)->lookup(address)) == locate(*geo, RegionSpec{}, address).info);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 7) {
        case 0:
            feed_block(input);
            break;
        case 1:
            feed_region_file(input);
            break;
        case 2:
            feed_geo_file(input);
            break;
        case 3:
            feed_import(GeoFormat::ipfire4, input);
            break;
        case 4:
            feed_import(GeoFormat::ipfire6, input);
            break;
        case 5:
            feed_import(GeoFormat::rir, input);
            break;
        default:
            feed_import(GeoFormat::cidr, input);
            break;
    }
    return 0;
}
