// tests/unit/rules/values_test.cpp - sizes, durations, dates, ports, names.
// SPDX-License-Identifier: Apache-2.0
#include "rules/values.h"

#include <array>
#include <string>

#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

TEST_CASE("sizes have a unit, of 1000 or of 1024", "[rules][values]") {
    CHECK(parse_size("50 MiB") == 52'428'800u);
    CHECK(parse_size("50MiB") == 52'428'800u);
    CHECK(parse_size("50 MB") == 50'000'000u);
    CHECK(parse_size("1.5 kB") == 1500u);
    CHECK(parse_size("0.5 KiB") == 512u);
    CHECK(parse_size("5 GiB") == 5'368'709'120u);
    CHECK(parse_size("1 B") == 1u);
    for (const char* text :
         {"", "50", "50 mib", "MiB", "-1 MiB", "1e3 MiB", "50 MiB MiB", "1..5 MiB", ".5 MiB", "5. MiB",
          "99999999999999999999 B", "9999999999 TiB", "1.0000000001 MiB", "50 Mbit", "0x10 B"}) {
        INFO(text);
        CHECK(!parse_size(text));
    }
}

TEST_CASE("durations have units, the longest first", "[rules][values]") {
    using std::chrono::seconds;
    CHECK(parse_duration("10m") == seconds(600));
    CHECK(parse_duration("1h30m") == seconds(5400));
    CHECK(parse_duration("7d") == seconds(604'800));
    CHECK(parse_duration("1w") == seconds(604'800));
    CHECK(parse_duration("1 h") == seconds(3600));
    for (const char* text :
         {"", "10", "m", "10 minutes", "30m1h", "1h1h", "-1h", "1.5h", "99999999999h", "1H"}) {
        INFO(text);
        CHECK(!parse_duration(text));
    }
    CHECK(to_text(seconds(5400)) == "1h30m");
    CHECK(to_text(seconds(0)) == "0s");
}

TEST_CASE("dates are days of the calendar", "[rules][values]") {
    CHECK(parse_date("2028-02-29"));
    for (const char* text : {"2027-02-29", "2027-13-01", "2027-6-30", "27-06-30", "30.06.2027", "2027-06-30 ",
                             "1949-01-01", "2201-01-01", "+027-06-30", "2027-06-3x"}) {
        INFO(text);
        CHECK(!parse_date(text));
    }
    CHECK(parse_expiry("2026-03-01") == day_zero);
    CHECK(parse_expiry("2026-03-02T00:00:05Z") == at(5));
    for (const char* text : {"2026-03-02T24:00:00Z", "2026-03-02T00:00:00", "2026-03-02 00:00:00Z",
                             "2026-03-02T00:00:00+01:00"}) {
        INFO(text);
        CHECK(!parse_expiry(text));
    }
}

TEST_CASE("ports are single, ranges, with or without a protocol", "[rules][values]") {
    const auto check = [](const char* text, int first, int last, int proto) {
        const auto range = parse_ports(text);
        REQUIRE(range);
        CHECK(range->first == first);
        CHECK(range->last == last);
        CHECK(range->l4_proto == proto);
    };
    check("443/tcp", 443, 443, 6);
    check("8000-8100/udp", 8000, 8100, 17);
    check("53", 53, 53, 0);
    check("1-65535/sctp", 1, 65535, 132);
    for (const char* text :
         {"", "0", "65536", "443/", "/tcp", "80-79", "80-", "443/icmp", "443/TCP", "http", "tcp/443", "-1"}) {
        INFO(text);
        CHECK(!parse_ports(text));
    }
    CHECK(parse_ports("tcp/443").error().help == "write 443/tcp");
    CHECK(parse_ports("443/tpc").error().help == "write 443/tcp");
}

TEST_CASE("a domain with a star is every name below it", "[rules][values]") {
    CHECK(parse_domain("example.org") == std::string("example.org"));
    CHECK(parse_domain("*.Example.ORG") == std::string("*.example.org"));
    for (const char* text : {"", "*", "*.", "org", "*.org.*", "a..b", ".example.org", "example.org.",
                             "ex ample.org", "www.*.org", "b\xc3\xa4r.example"}) {
        INFO(text);
        CHECK(!parse_domain(text));
    }
}

TEST_CASE("AS numbers are written with or without AS", "[rules][values]") {
    CHECK(parse_asn("64500") == 64500u);
    CHECK(parse_asn("AS64500") == 64500u);
    for (const char* text : {"", "AS", "0", "4294967296", "as64500", "AS 64500"}) CHECK(!parse_asn(text));
}

TEST_CASE("the nearest name is offered if it is near", "[rules][values]") {
    constexpr std::array<std::string_view, 4> names{"region", "country", "allowed", "initiator"};
    CHECK(nearest("regoin", names) == "region");
    CHECK(nearest("countries", names) == "country");
    CHECK(nearest("allow", names) == "allowed");
    CHECK(nearest("process", names).empty());
    CHECK(nearest("", names).empty());
    CHECK(nearest(std::string(1000, 'x'), names).empty());
    CHECK(one_of(names) == "region, country, allowed or initiator");
}
