// tests/unit/classifier/region_file_test.cpp - a damaged or hostile file is refused, or does no harm.
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "classifier/region/file_io.h"
#include "tests/unit/classifier/region_naive.h"

using namespace egresswatch;
using namespace egresswatch::test;

namespace {

constexpr std::size_t geo_digest_at = 24;     // of GeoFileHeader
constexpr std::size_t region_digest_at = 32;  // of RegionFileHeader

std::string read_all(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_all(const std::filesystem::path& path, std::string_view content) {
    std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

// What someone who damages a file on purpose would do.
void mend_checksum(std::string& content, std::size_t digest_at) {
    std::memset(content.data() + digest_at, 0, 32);
    const auto digest = sha256_of({std::as_bytes(std::span(content))});
    std::memcpy(content.data() + digest_at, digest.data(), digest.size());
}

// A copy of a block that ends where unmapped memory begins: a read behind it kills the test.
class GuardedBlock {
public:
    explicit GuardedBlock(std::span<const std::byte> block) : size_(block.size()) {
        const std::size_t page = 4096;
        mapped_ = (size_ + page - 1) / page * page + page;
        base_ = static_cast<std::byte*>(
            ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ::mprotect(base_ + mapped_ - page, page, PROT_NONE);
        begin_ = base_ + mapped_ - page - size_;
        std::memcpy(begin_, block.data(), size_);
    }
    GuardedBlock(const GuardedBlock&) = delete;
    GuardedBlock& operator=(const GuardedBlock&) = delete;
    ~GuardedBlock() { ::munmap(base_, mapped_); }

    [[nodiscard]] std::span<const std::byte> bytes() const { return {begin_, size_}; }
    [[nodiscard]] std::uint16_t* cells() { return reinterpret_cast<std::uint16_t*>(begin_); }
    [[nodiscard]] std::uint32_t cell_count() const { return static_cast<std::uint32_t>(size_ / 2); }
    [[nodiscard]] datapath::region_header& header() {
        return *reinterpret_cast<datapath::region_header*>(begin_);
    }

    // Lookups that reach every level; sums what they answer so that they are not left out.
    std::uint64_t look_around() {
        std::uint64_t sum = 0;
        for (const auto* text : {"0.0.0.0", "9.1.2.3", "9.1.2.4", "9.255.255.255", "203.0.113.1",
                                 "255.255.255.255", "::", "::1", "2a00::1", "2a00:1:2:3:4:5:6:7",
                                 "2a00:ffff::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}) {
            alignas(4) std::uint8_t address[16];
            std::memcpy(address, addr(text).bytes.data(), 16);
            const auto id = datapath::region_lookup(cells(), cell_count(), address);
            sum += id + datapath::region_kind_of(cells(), cell_count(), id);
        }
        return sum;
    }

private:
    std::size_t size_;
    std::size_t mapped_ = 0;
    std::byte* base_ = nullptr;
    std::byte* begin_ = nullptr;
};

GeoData small_geo() {
    return geo_from("9.0.0.0/8 US\n9.1.2.3/32 IE\n2a00::/16 NO\n2a00:1:2:3:4:5:6:7/128 CN\n8.0.0.0/8\n");
}

std::shared_ptr<const RegionTable> small_table() {
    RegionSpec spec;
    spec.home_countries = {"IE"};
    spec.list_names = {"one", "two"};
    spec.list_prefixes = {{cidr("9.1.2.4/32"), 0}, {cidr("9.1.2.0/24"), 1}};
    return compiled(small_geo(), spec);
}

}  // namespace

TEST_CASE("a compiled geo file gives back what was saved, and the same input the same bytes",
          "[classifier][geo]") {
    const TestFolder folder;
    const auto geo = small_geo();
    REQUIRE(geo.save(folder / "a"));
    REQUIRE(small_geo().save(folder / "b"));
    CHECK(read_all(folder / "a") == read_all(folder / "b"));
    const auto loaded = GeoData::open(folder / "a");
    if (!loaded) FAIL(loaded.error().message);
    CHECK(loaded->content_hash() == geo.content_hash());
    CHECK(loaded->sources()[0].sha256 == geo.sources()[0].sha256);
    CHECK(loaded->find(addr("9.1.2.3")).country == "IE");
    CHECK(loaded->find(addr("2a00:1:2:3:4:5:6:7")).prefix->to_string() == "2a00:1:2:3:4:5:6:7/128");
}

TEST_CASE("a geo file with any byte changed or cut anywhere is refused", "[classifier][geo]") {
    const TestFolder folder;
    REQUIRE(small_geo().save(folder / "good"));
    const auto good = read_all(folder / "good");
    const auto path = folder / "bad";
    std::size_t accepted = 0;
    for (std::size_t at = 0; at < good.size(); at++) {
        auto bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
        write_all(path, bad);
        accepted += GeoData::open(path) ? 1 : 0;
        write_all(path, std::string_view(good).substr(0, at));
        accepted += GeoData::open(path) ? 1 : 0;
    }
    CHECK(accepted == 0);
    write_all(path, good + "x");
    CHECK_FALSE(GeoData::open(path).has_value());
    CHECK(GeoData::open(folder / "missing").error().code == RegionError::Code::io);
}

TEST_CASE("a geo file damaged on purpose, checksum and all, is refused or answers in bounds",
          "[classifier][geo]") {
    const TestFolder folder;
    REQUIRE(small_geo().save(folder / "good"));
    const auto good = read_all(folder / "good");
    const auto path = folder / "bad";
    std::size_t refused = 0;
    for (std::size_t at = 0; at < good.size(); at++)
        for (const char value : {'\0', '\x01', '\x7f', '\xff'}) {
            if (at >= geo_digest_at && at < geo_digest_at + 32) continue;
            auto bad = good;
            bad[at] = value;
            mend_checksum(bad, geo_digest_at);
            write_all(path, bad);
            const auto geo = GeoData::open(path);
            refused += geo ? 0 : 1;
            if (!geo) continue;
            for (const char* text : {"0.0.0.0", "9.1.2.3", "255.255.255.255", "::", "2a00::1", "ffff::"}) {
                const auto record = geo->find(addr(text));
                if (record.source != GEO_NO_SOURCE) REQUIRE(record.source < geo->sources().size());
            }
        }
    CHECK(refused > good.size());
}

TEST_CASE("a region table gives back what was saved", "[classifier][region]") {
    const TestFolder folder;
    const auto table = small_table();
    REQUIRE(table->save(folder / "table"));
    const auto loaded = RegionTable::load(folder / "table");
    if (!loaded) FAIL(loaded.error().message);
    CHECK(std::ranges::equal((*loaded)->block(), table->block()));
    CHECK((*loaded)->block().size() % 64 == 0);
    CHECK(std::ranges::equal((*loaded)->list_names(), table->list_names()));
    REQUIRE((*loaded)->class_count() == table->class_count());
    for (std::uint16_t id = 0; id < table->class_count(); id++)
        CHECK((*loaded)->class_info(id) == table->class_info(id));
    CHECK(table->class_info(60000) == table->class_info(0));
    CHECK(table->class_info(table->lookup(addr("9.1.2.4"))).lists == std::vector<std::uint16_t>{0, 1});
    // Ids go on from a loaded table as from one in memory.
    CHECK(compiled(small_geo(), RegionSpec{}, loaded->get())->class_count() ==
          compiled(small_geo(), RegionSpec{}, table.get())->class_count());
}

TEST_CASE("a region file that is cut or has a byte changed is refused", "[classifier][region]") {
    const TestFolder folder;
    REQUIRE(small_table()->save(folder / "good"));
    const auto good = read_all(folder / "good");
    const auto path = folder / "bad";
    std::vector<std::size_t> places;  // the head, the tail, and a sample of what lies between
    for (std::size_t at = 0; at < 192; at++) places.push_back(at);
    for (std::size_t at = 192; at < good.size() - 256; at += 9973) places.push_back(at);
    for (std::size_t at = good.size() - 256; at < good.size(); at++) places.push_back(at);
    std::size_t accepted = 0;
    auto bad = good;
    for (const auto at : places) {
        bad[at] = static_cast<char>(bad[at] ^ 0x10);
        write_all(path, bad);
        accepted += RegionTable::load(path) ? 1 : 0;
        bad[at] = good[at];
        write_all(path, std::string_view(good).substr(0, at));
        accepted += RegionTable::load(path) ? 1 : 0;
    }
    CHECK(accepted == 0);
}

TEST_CASE("a region file damaged on purpose is refused or answers in bounds", "[classifier][region]") {
    const TestFolder folder;
    REQUIRE(small_table()->save(folder / "good"));
    auto bad = read_all(folder / "good");
    const auto good = bad;
    const auto path = folder / "bad";
    for (std::size_t at = good.size() - 300; at < good.size(); at++) {  // classes, sets, names
        bad[at] = static_cast<char>(bad[at] ^ 0x41);
        mend_checksum(bad, region_digest_at);
        write_all(path, bad);
        const auto table = RegionTable::load(path);
        bad = good;
        if (!table) continue;
        for (std::uint16_t id = 0; id < (*table)->class_count(); id++) {
            for (const auto list : (*table)->class_info(id).lists)
                REQUIRE(list < (*table)->list_names().size());
            (void)(*table)->class_list_names(id);
        }
    }
}

TEST_CASE("a block whose header was changed is refused, and read in bounds even where it was not checked",
          "[classifier][region]") {
    const auto table = small_table();
    GuardedBlock block(table->block());
    REQUIRE(region_validate(block.bytes()));
    auto* words = reinterpret_cast<std::uint32_t*>(block.cells());
    constexpr std::size_t generation_word = 3;  // any number is right
    std::uint64_t sum = 0;
    for (std::size_t word = 0; word < 16; word++)
        for (const std::uint32_t value : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xfffffff0u, 0xffffffffu}) {
            const auto saved = words[word];
            words[word] = value;
            if (value != saved && word != generation_word) {
                INFO("word " << word << " value " << value);
                REQUIRE_FALSE(region_validate(block.bytes()).has_value());
            }
            sum += block.look_around();
            words[word] = saved;
        }
    CHECK(sum != 0);
}

TEST_CASE("a block with a cell that names nothing is refused, and read in bounds all the same",
          "[classifier][region]") {
    const auto table = small_table();
    GuardedBlock block(table->block());
    const auto& header = block.header();
    const auto classes = static_cast<std::uint16_t>(header.class_count);
    const auto refuses = [&](std::uint32_t at, std::uint16_t value) {
        const auto saved = block.cells()[at];
        block.cells()[at] = value;
        const bool refused = !region_validate(block.bytes()).has_value();
        (void)block.look_around();
        block.cells()[at] = saved;
        return refused;
    };
    const auto cell = [](std::uint32_t number) {
        return static_cast<std::uint16_t>(datapath::CLASSES_MAX + number);
    };
    for (const auto section : {header.root4, header.narrow, header.wide4, header.root6, header.wide6}) {
        CHECK(refuses(section, classes));
        CHECK(refuses(section, datapath::CLASSES_MAX - 1));
        CHECK(refuses(section, 0xffff));
        CHECK_FALSE(refuses(section, static_cast<std::uint16_t>(classes - 1)));
    }
    CHECK(refuses(header.narrow - 1, cell(header.narrow_count)));
    CHECK_FALSE(refuses(header.narrow - 1, cell(header.narrow_count - 1)));
    CHECK(refuses(header.wide4 - 1, cell(header.wide4_count)));
    CHECK(refuses(header.root6 - 1, cell(0)));  // below the last IPv4 level is nothing
    CHECK(refuses(header.wide6 - 1, cell(header.wide6_count)));
    // Cycles: a block that names itself, and one that names a later one.
    CHECK(refuses(header.wide6, cell(0)));
    CHECK(refuses(header.wide6, cell(header.wide6_count - 1)));
    CHECK(refuses(header.wide6 + 256, cell(1)));
    // The chain of 2a00:1:2:3:4:5:6:7/128 has every level there is: one more is too deep.
    const auto deepest = header.wide6_count;
    std::size_t too_deep = 0;
    for (std::uint32_t i = 1; i < deepest; i++)
        too_deep += refuses(header.wide6 + 256 * i + 200, cell(i - 1)) ? 1 : 0;
    CHECK(too_deep >= 1);
}

TEST_CASE("damage at random places never lets a lookup leave the block", "[classifier][region]") {
    const auto table = small_table();
    GuardedBlock block(table->block());
    std::mt19937_64 random(17);
    std::uint64_t sum = 0;
    for (int round = 0; round < 3000; round++) {
        const auto at = round % 2 == 0 ? random() % block.cell_count() : random() % 32;
        const auto saved = block.cells()[at];
        block.cells()[at] = static_cast<std::uint16_t>(random());
        sum += block.look_around();
        block.cells()[at] = saved;
    }
    CHECK(sum != 0);
}

TEST_CASE("a block of the wrong size or alignment is refused", "[classifier][region]") {
    const auto table = small_table();
    const auto block = table->block();
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{63}, std::size_t{64}, block.size() - 64, block.size() - 1})
        CHECK_FALSE(region_validate(block.first(size)).has_value());
    std::vector<std::byte> shifted(block.size() + 8);
    std::memcpy(shifted.data() + 2, block.data(), block.size());
    CHECK_FALSE(region_validate(std::span<const std::byte>(shifted).subspan(2, block.size())).has_value());
}
