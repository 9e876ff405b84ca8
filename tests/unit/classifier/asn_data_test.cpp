// tests/unit/classifier/asn_data_test.cpp - AS numbers of a MaxMind DB, as its two common makers write them.
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/asn_data.h"

#include "tests/support/catch.h"
#include "tests/support/mmdb_writer.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using test::MmdbWriter;

TEST_CASE("an address is in the AS that the file says, and its neighbour is not", "[classifier][asn]") {
    MmdbWriter writer(6, 24, "GeoLite2-ASN");
    writer.add(*Prefix::parse("203.0.113.0/24"), "64500", MmdbWriter::Form::asn);
    writer.add(*Prefix::parse("2001:db8:7::/48"), "AS64501", MmdbWriter::Form::asn_text);
    const testing::TempDir dir;
    const std::string path = (dir.path() / "asn.mmdb").string();
    writer.write(path);
    const auto data = AsnData::open(path);
    REQUIRE(data);
    const auto asn = [&](const char* text) { return (*data)->find(*Address::parse(text)); };
    CHECK(asn("203.0.113.255") == 64500);
    CHECK(asn("203.0.114.0") == 0);
    CHECK(asn("2001:db8:7::1") == 64501);
    CHECK(asn("2001:db8:8::1") == 0);
    CHECK(asn("64:ff9b::203.0.113.9") == 64500);
    CHECK(asn("2002:cb00:7109::1") == 64500);
}

TEST_CASE("a database without AS numbers is refused", "[classifier][asn]") {
    MmdbWriter writer(6, 24, "GeoLite2-Country");
    writer.add(*Prefix::parse("203.0.113.0/24"), "US");
    const testing::TempDir dir;
    const std::string path = (dir.path() / "asn.mmdb").string();
    writer.write(path);
    REQUIRE(!AsnData::open(path));
    CHECK(AsnData::open(path).error().message.find("no AS numbers") != std::string::npos);
    CHECK(!AsnData::open(path + ".absent"));
}
