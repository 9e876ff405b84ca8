// tests/unit/classifier/region_import_test.cpp - importers, precedence of sources, MaxMind DB.
// SPDX-License-Identifier: Apache-2.0
#include <maxminddb.h>
#include <netinet/in.h>

#include <cstring>

#include "classifier/region/geo_diff.h"
#include "tests/support/mmdb_writer.h"
#include "tests/unit/classifier/region_naive.h"

using namespace egresswatch;
using namespace egresswatch::test;

namespace {

std::string error_of(GeoFormat format, std::string_view text) {
    GeoBuilder builder;
    const auto added = builder.add_text({format, "file", {}, {}}, text);
    return added ? std::string() : added.error().message;
}

Country country_at(const GeoData& geo, const char* text) {
    return geo.find(addr(text)).country;
}

}  // namespace

TEST_CASE("IPFire ranges give countries, date and licence; codes that are no country are unknown",
          "[classifier][geo]") {
    const auto geo = geo_from(
        "# Generated: Thu, 25 Jun 2026 04:33:59 GMT\r\n# License:   CC BY-SA 4.0\n\n"
        "16777216,16777471,AU\n16777472,16777727,??\n16777728,16777729,EU\n16777730,16777731,UK\r\n",
        GeoFormat::ipfire4);
    CHECK(geo.sources()[0].date == "Thu, 25 Jun 2026 04:33:59 GMT");
    CHECK(geo.sources()[0].licence == "CC BY-SA 4.0");
    CHECK(geo.sources()[0].records == 4);
    CHECK(geo.sources()[0].no_country == 2);
    CHECK(country_at(geo, "1.0.0.0") == "AU");
    CHECK(country_at(geo, "1.0.0.255") == "AU");
    CHECK(country_at(geo, "1.0.1.0").empty());
    CHECK(geo.find(addr("1.0.1.0")).recorded == "??");
    CHECK(geo.find(addr("1.0.2.0")).recorded == "EU");
    CHECK(country_at(geo, "1.0.2.2") == "GB");
    CHECK_FALSE(geo.find(addr("0.255.255.255")).prefix.has_value());
    CHECK_FALSE(geo.find(addr("1.0.2.4")).prefix.has_value());
    CHECK(geo.find(addr("1.0.0.9")).prefix->to_string() == "1.0.0.0/24");
}

TEST_CASE("a range that is no prefix is answered by the largest prefix inside it", "[classifier][geo]") {
    const auto geo = geo_from("16777215,16777474,AU\n", GeoFormat::ipfire4);  // 0.255.255.255 to 1.0.1.2
    CHECK(geo.find(addr("0.255.255.255")).prefix->to_string() == "0.255.255.255/32");
    CHECK(geo.find(addr("1.0.0.200")).prefix->to_string() == "1.0.0.0/24");
    CHECK(geo.find(addr("1.0.1.1")).prefix->to_string() == "1.0.1.0/31");
    CHECK(geo.find(addr("1.0.1.2")).prefix->to_string() == "1.0.1.2/32");
    CHECK(geo_from("0,4294967295,AU\n", GeoFormat::ipfire4).find(addr("9.9.9.9")).prefix->to_string() ==
          "0.0.0.0/0");
    const auto six = geo_from("2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n", GeoFormat::ipfire6);
    CHECK(six.find(addr("2001:200:1::")).prefix->to_string() == "2001:200::/32");
}

TEST_CASE("every bad line is told with its place and what to write", "[classifier][geo]") {
    CHECK(error_of(GeoFormat::ipfire4, "1,2,US\n3,2,US\nx,4,US\n5,6\n7,8,usa\n") ==
          "file:2:3: error: the range ends before it begins\n  help: exchange the two addresses\n"
          "file:3:1: error: the first address cannot be read\n  help: write FIRST,LAST,CC with decimal IPv4 "
          "addresses: 16777216,16777471,AU\n"
          "file:4:1: error: not three fields\n  help: write FIRST,LAST,CC with decimal IPv4 addresses: "
          "16777216,16777471,AU\n"
          "file:5:5: error: not a two-letter code\n  help: write an ISO 3166-1 code, or ?? where the country "
          "is "
          "not known");
    CHECK(error_of(GeoFormat::cidr, "9.0.0.0/8 US\n 9.1.2.3/16 US\n") ==
          "file:2:2: error: prefix has host bits set\n  help: write 9.1.0.0/16");
    CHECK(error_of(GeoFormat::cidr, "9.0.0.0/33 US\n").find("file:1:1: error: prefix length") == 0);
    CHECK(error_of(GeoFormat::cidr, "9.0.0.0/8 US extra\n").find("file:1:14: error: text behind") == 0);
    CHECK(error_of(GeoFormat::cidr, "9.0.0.0/8 US\n9.0.0.0/8 DE\n")
              .find("file:2:1: error: same addresses as line 1") == 0);
    CHECK(error_of(GeoFormat::ipfire4, "1,9,US\n5,12,DE\n")
              .find("file:2:1: error: range overlaps a part of that of line 1") == 0);
    CHECK(error_of(GeoFormat::cidr, "# nothing\n").find("file: error: no record") == 0);
    CHECK(error_of(GeoFormat::ipfire6, "4294967296,4294967297,US\n").find("file:1:1: error:") == 0);
    std::string many;
    for (int i = 0; i < 30; i++) many += "bad\n";
    CHECK(error_of(GeoFormat::cidr, many).find("file: 10 more errors are not shown") != std::string::npos);
    CHECK(error_of(GeoFormat::cidr, "9.0.0.0/8 US\n9.0.0.0/8 US\n\n9.1.0.0/16,de # remark\n").empty());
}

TEST_CASE("RIR statistics: allocations are taken, other record types are skipped and counted",
          "[classifier][geo]") {
    const auto geo = geo_from(
        "2|ripencc|20260624|5|19830705|20260623|+0200\n"
        "ripencc|*|ipv4|*|2|summary\n"
        "ripencc|NO|ipv4|9.0.0.0|768|20000101|allocated|abc\n"
        "ripencc|IE|ipv6|2a00:1::|32|20000101|assigned|abc\n"
        "ripencc|IE|asn|64500|1|20000101|allocated|abc\n"
        "ripencc||ipv4|9.1.0.0|256||available|\n"
        "ripencc|EU|ipv4|9.2.0.0|256|20000101|allocated|abc\n",
        GeoFormat::rir);
    CHECK(geo.sources()[0].date == "20260624");
    CHECK(geo.sources()[0].records == 3);
    CHECK(geo.sources()[0].skipped == 2);
    CHECK(country_at(geo, "9.0.2.255") == "NO");
    CHECK_FALSE(geo.find(addr("9.0.3.0")).prefix.has_value());
    CHECK(geo.find(addr("9.0.2.1")).prefix->to_string() == "9.0.2.0/24");
    CHECK(country_at(geo, "2a00:1:ffff::1") == "IE");
    CHECK(country_at(geo, "9.2.0.1").empty());
    CHECK(error_of(GeoFormat::rir, "r|NO|ipv4|9.0.0.0|0|2000|allocated|a\n")
              .find("file:1:19: error: not a number") == 0);
    CHECK(error_of(GeoFormat::rir, "r|NO|ipv4|255.0.0.0|4294967295|2000|allocated|a\n").find("fits") !=
          std::string::npos);
    CHECK(error_of(GeoFormat::rir, "r|NO|ipv6|2a00::1|32|2000|allocated|a\n").find("write 2a00::") !=
          std::string::npos);
    CHECK(error_of(GeoFormat::rir, "r|NO|ipv5|2a00::|32|2000|allocated|a\n").find("file:1:6:") == 0);
}

TEST_CASE("a CIDR list may name its country once for all", "[classifier][geo]") {
    GeoBuilder builder;
    REQUIRE(builder.add_text({GeoFormat::cidr, "se.zone", {}, "SE"}, "9.0.0.0/8\n9.1.0.0/16 NO\n"));
    const auto geo = builder.finish().value();
    CHECK(country_at(geo, "9.0.0.1") == "SE");
    CHECK(country_at(geo, "9.1.0.1") == "NO");
    CHECK(geo.find(addr("9.2.0.1")).prefix->to_string() == "9.0.0.0/8");
}

TEST_CASE("the first source that knows the country gives it; where another differs it is disputed",
          "[classifier][geo]") {
    GeoBuilder builder;
    REQUIRE(builder.add_text({GeoFormat::cidr, "a", "a", {}}, "9.0.0.0/8 US\n8.0.0.0/16\n2a00::/16 IE\n"));
    REQUIRE(builder.add_text({GeoFormat::cidr, "b", "b", {}},
                             "9.1.0.0/16 DE\n8.0.0.0/8 SG\n9.2.0.0/16 US\n2a00::/16 IE\n"));
    REQUIRE(builder.add_text({GeoFormat::cidr, "c", "c", {}}, "9.1.1.0/24 US\n8.0.0.0/8 CN\n7.0.0.0/8 EU\n"));
    const auto geo = builder.finish().value();
    const auto at = [&](const char* text) {
        const auto record = geo.find(addr(text));
        const std::string source = record.prefix ? geo.sources()[record.source].name : "none";
        return record.country + " " + source + (record.disputed ? " disputed" : "");
    };
    CHECK(at("9.0.0.1") == "US a");
    CHECK(at("9.1.0.1") == "US a disputed");
    CHECK(at("9.1.1.1") == "US a disputed");
    CHECK(at("9.2.0.1") == "US a");
    CHECK(at("8.0.0.1") == "SG b disputed");  // a has a record, but knows no country
    CHECK(at("8.1.0.1") == "SG b disputed");
    CHECK(at("7.0.0.1") == " c");
    CHECK(at("6.0.0.1") == " none");
    CHECK(at("2a00::1") == "IE a");
    CHECK(geo.find(addr("9.200.0.1")).prefix->to_string() == "9.0.0.0/8");
    RegionSpec spec;
    spec.home_countries = {"US"};
    const auto table = compiled(geo, spec);
    CHECK(table->class_info(table->lookup(addr("9.1.0.1"))) ==
          ClassInfo{datapath::KIND_HOME, datapath::LOCAL_NONE, "US", {}, true});
    CHECK_FALSE(table->class_info(table->lookup(addr("9.0.0.1"))).disputed);
}

TEST_CASE("the import of a MaxMind DB agrees with libmaxminddb, and aliases are imported once",
          "[classifier][geo]") {
    const unsigned record_bits = GENERATE(24u, 28u, 32u);
    std::mt19937_64 random(record_bits);
    MmdbWriter writer(6, record_bits);
    const char* codes[] = {"IE", "NO", "US", "CN"};
    const MmdbWriter::Form forms[] = {MmdbWriter::Form::nested, MmdbWriter::Form::flat_code,
                                      MmdbWriter::Form::flat_country, MmdbWriter::Form::no_country};
    std::vector<Prefix> prefixes;
    for (int i = 0; i < 400; i++) {
        const auto base4 = Address::from_ipv4(static_cast<std::uint32_t>(random()));
        prefixes.push_back(Prefix::containing(base4, static_cast<std::uint8_t>(6 + random() % 27)));
        Address base6 = random_ipv6(random);
        base6.bytes[0] = 0x2a;
        prefixes.push_back(Prefix::containing(base6, static_cast<std::uint8_t>(8 + random() % 121)));
    }
    std::ranges::sort(prefixes, {}, &Prefix::length);
    for (std::size_t i = 0; i < prefixes.size(); i++) writer.add(prefixes[i], codes[i % 4], forms[i / 4 % 4]);
    writer.alias_ipv4();
    const TestFolder folder;
    const auto path = folder / "test.mmdb";
    writer.write(path.string());

    const auto geo = open_geo_file(path);
    if (!geo) FAIL(geo.error().message);
    CHECK(geo->sources()[0].name == "test");
    CHECK(geo->sources()[0].date == "2026-01-01");
    for (const auto& segment : geo->segments6())  // nothing of the aliases
        REQUIRE((segment.code == 0 || segment.high >> 56 == 0x2a));
    MMDB_s db{};
    REQUIRE(MMDB_open(path.c_str(), MMDB_MODE_MMAP, &db) == MMDB_SUCCESS);
    const auto expected = [&](const Address& address) -> std::pair<std::string, int> {
        sockaddr_in6 socket{};
        socket.sin6_family = AF_INET6;
        std::memcpy(&socket.sin6_addr, address.bytes.data(), 16);
        if (address.is_ipv4()) std::memset(&socket.sin6_addr, 0, 12);  // where the tree has IPv4
        int error = 0;
        auto found = MMDB_lookup_sockaddr(&db, reinterpret_cast<const sockaddr*>(&socket), &error);
        if (!found.found_entry) return {"", -1};
        const int length = found.netmask - (address.is_ipv4() ? 96 : 0);
        for (const auto& keys : {std::array<const char*, 3>{"country", "iso_code", nullptr},
                                 std::array<const char*, 3>{"country_code", nullptr, nullptr},
                                 std::array<const char*, 3>{"country", nullptr, nullptr}}) {
            MMDB_entry_data_s data{};
            if (MMDB_aget_value(&found.entry, &data, keys.data()) == MMDB_SUCCESS && data.has_data &&
                data.type == MMDB_DATA_TYPE_UTF8_STRING)
                return {std::string(data.utf8_string, data.data_size), length};
        }
        return {"", length};
    };
    std::size_t wrong = 0;
    const auto compare = [&](const Address& address) {
        const auto [country, length] = expected(address);
        const auto record = geo->find(address);
        wrong += record.country != country || (record.prefix ? record.prefix->length : -1) != length ? 1 : 0;
    };
    for (const auto& prefix : prefixes)
        for (const auto& edge : edges_of(prefix)) compare(edge);
    for (int i = 0; i < 20000; i++) {
        compare(Address::from_ipv4(static_cast<std::uint32_t>(random())));
        Address six = random_ipv6(random);
        six.bytes[0] = 0x2a;
        compare(six);
    }
    CHECK(wrong == 0);
    MMDB_close(&db);
}

TEST_CASE("an IPv4-only MaxMind DB is imported, a cut one is refused", "[classifier][geo]") {
    MmdbWriter writer(4);
    writer.add(cidr("9.0.0.0/8"), "NO");
    writer.add(cidr("9.1.0.0/16"), "IE");
    const TestFolder folder;
    const auto path = folder / "four.mmdb";
    writer.write(path.string());
    const auto geo = open_geo_file(path);
    if (!geo) FAIL(geo.error().message);
    CHECK(country_at(*geo, "9.0.0.1") == "NO");
    CHECK(country_at(*geo, "9.1.0.1") == "IE");
    CHECK_FALSE(geo->find(addr("10.0.0.1")).prefix.has_value());
    CHECK_FALSE(geo->find(addr("2a00::1")).prefix.has_value());

    const auto content = writer.bytes();
    for (std::size_t length = 0; length < content.size(); length += 7) {
        std::FILE* file = std::fopen(path.c_str(), "wb");
        std::fwrite(content.data() + length, 1, content.size() - length,
                    file);  // the metadata stay, the tree shifts
        std::fclose(file);
        (void)open_geo_file(path);  // refused or wrong, but never out of bounds
    }
    CHECK_FALSE(GeoBuilder().add_file({GeoFormat::mmdb, folder / "missing.mmdb", {}, {}}).has_value());
}

TEST_CASE("the difference of two databases is a share of the ordinary address space", "[classifier][geo]") {
    const auto before = geo_from("9.0.0.0/8 US\n10.0.0.0/8 US\n2a00::/16 IE\n");
    const auto after = geo_from("9.0.0.0/9 IE\n9.128.0.0/9 US\n2a00::/17 IE\n2a00:8000::/17 NO\n");
    const auto diff = diff_geo(before, after, {"IE", "NO"});
    // 2^32 without 0/8, 10/8, 127/8, 224/3, 100.64/10, 172.16/12, 169.254/16, 192.168/16, 198.18/15, five /24
    CHECK(diff.ipv4.addresses ==
          4294967296.0 - 3 * 16777216.0 - 536870912.0 - 4194304.0 - 1048576.0 - 65536.0 * 4 - 256.0 * 5);
    CHECK(diff.ipv4.country_moved == 8388608.0);
    CHECK(diff.ipv4.class_moved == 8388608.0);
    REQUIRE(diff.ipv4.moves.size() == 1);
    CHECK(diff.ipv4.moves[0].from == "US");
    CHECK(diff.ipv4.moves[0].to == "IE");
    CHECK(diff.ipv6.country_moved / diff.ipv6.addresses == Approx(1.0 / 16384).epsilon(1e-3));
    CHECK(diff.ipv6.class_moved == 0);
    CHECK(diff_geo(before, before, {}).ipv4.country_moved == 0);
}
