// tests/unit/classifier/address_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/address.h"

#include "tests/support/catch.h"

using egresswatch::Address;
using egresswatch::Prefix;

TEST_CASE("an address prints as it was written", "[classifier][address]") {
    for (const char* text :
         {"0.0.0.0", "203.0.113.9", "255.255.255.255", "::", "::1", "2001:db8::77", "fe80::1"})
        CHECK(Address::parse(text).value().to_string() == text);
}

TEST_CASE("text that is no address is refused", "[classifier][address]") {
    for (const char* text :
         {"", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "fe80::1%eth0", "2001:db8:::1", " 1.2.3.4"})
        CHECK_FALSE(Address::parse(text).has_value());
    CHECK_FALSE(Address::parse(std::string_view("1.2.3.4\0x", 9)).has_value());
}

TEST_CASE("a prefix contains its first and last address and not their neighbours", "[classifier][address]") {
    const auto prefix = Prefix::parse("198.51.100.64/27").value();
    CHECK(prefix.contains(Address::parse("198.51.100.64").value()));
    CHECK(prefix.contains(prefix.last()));
    CHECK(prefix.last().to_string() == "198.51.100.95");
    CHECK_FALSE(prefix.contains(Address::parse("198.51.100.63").value()));
    CHECK_FALSE(prefix.contains(Address::parse("198.51.100.96").value()));
    const auto six = Prefix::parse("2001:db8:8000::/33").value();
    CHECK(six.last().to_string() == "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    CHECK_FALSE(six.contains(Address::parse("2001:db8:7fff::").value()));
}

TEST_CASE("a prefix says what is wrong with it", "[classifier][address]") {
    CHECK(Prefix::parse("10.1.2.3/16").error() == Prefix::ParseError::host_bits_set);
    CHECK(Prefix::parse("10.0.0.0/33").error() == Prefix::ParseError::length_out_of_range);
    CHECK(Prefix::parse("10.0.0.0/").error() == Prefix::ParseError::length_missing);
    CHECK(Prefix::parse("ten/8").error() == Prefix::ParseError::not_an_address);
    CHECK(Prefix::parse("192.0.2.1").value().to_string() == "192.0.2.1/32");
}

TEST_CASE("an IPv4 prefix never contains an IPv6 address", "[classifier][address]") {
    CHECK_FALSE(Prefix::parse("0.0.0.0/0").value().contains(Address::parse("2001:db8::1").value()));
    CHECK_FALSE(Prefix::parse("::/0").value().contains(Address::parse("192.0.2.1").value()));
}
