// tests/unit/classifier/region_table_test.cpp - what the compiled table answers.
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/region_table.h"

#include <algorithm>
#include <array>
#include <set>

#include "classifier/region/special.h"
#include "tests/unit/classifier/region_naive.h"

using namespace egresswatch;
using namespace egresswatch::test;

namespace {

constexpr std::size_t random_addresses = 1'000'000;
// On both sides of every level of the trie.
constexpr std::array<unsigned, 13> four_lengths = {5, 8, 12, 16, 17, 18, 19, 23, 24, 25, 28, 31, 32};
constexpr std::array<unsigned, 11> six_lengths = {20, 29, 32, 40, 44, 48, 56, 64, 96, 127, 128};
const std::vector<std::string> countries = {"IE", "NO", "US", "CN", "SG", "BR"};

struct Generated {
    std::set<Prefix> prefixes;
    NaiveMatch naive;
    std::string text;

    void add(const Prefix& prefix, const std::string& country) {
        if (!prefixes.insert(prefix).second) return;
        naive.add(prefix, country);
        text += prefix.to_string() + " " + country + "\n";
    }
};

// Prefixes of many lengths, many nested and many adjacent: half start where another one ended or began.
Generated generate(bool ipv4, std::size_t count, std::mt19937_64& random) {
    Generated set;
    Address near = ipv4 ? addr("80.0.0.0") : addr("2a00::");
    for (std::size_t i = 0; i < count; i++) {
        const bool fresh = random() % 2 == 0;
        Address base = near;
        if (fresh && ipv4) base = Address::from_ipv4(static_cast<std::uint32_t>(random()));
        if (fresh && !ipv4) {
            base = random_ipv6(random);
            base.bytes[0] = 0x2a;
            base.bytes[1] = static_cast<std::uint8_t>(random() % 8);
        }
        const std::uint64_t pick = random();
        const std::uint64_t length =
            ipv4 ? four_lengths[pick % four_lengths.size()] : six_lengths[pick % six_lengths.size()];
        const auto prefix = Prefix::containing(base, static_cast<std::uint8_t>(length));
        set.add(prefix, countries[random() % countries.size()]);
        near = random() % 2 == 0 ? plus(prefix.last(), 1) : prefix.base;
        if (near.is_ipv4() != ipv4) near = prefix.base;
    }
    return set;
}

struct Disagreements {
    std::size_t count = 0;
    std::string first;
    void note(const Address& address, const std::string& expected, const std::string& found) {
        if (count++ == 0) first = address.to_string() + ": expected " + expected + ", found " + found;
    }
};

void check_address(const Generated& set, const GeoData& geo, const RegionTable& table, const Address& address,
                   Disagreements& wrong) {
    if (find_special(embedded_ipv4(address).address) != nullptr) return;
    const auto [country, length] = set.naive.match(embedded_ipv4(address).address);
    const auto& info = table.class_info(table.lookup(address));
    if (info.country != country) wrong.note(address, country, info.country);
    const auto kind = country.empty()                      ? datapath::KIND_UNKNOWN
                      : country == "IE" || country == "NO" ? datapath::KIND_HOME
                                                           : datapath::KIND_OUTSIDE;
    if (info.kind != kind) wrong.note(address, kind_name(kind), kind_name(info.kind));
    const auto record = geo.find(embedded_ipv4(address).address);
    if (record.prefix.has_value() != (length >= 0) || (length >= 0 && record.prefix->length != length))
        wrong.note(address, "/" + std::to_string(length),
                   record.prefix ? record.prefix->to_string() : "none");
}

RegionSpec europe() {
    RegionSpec spec;
    spec.home_countries = {"IE", "NO"};
    return spec;
}

}  // namespace

TEST_CASE("IPv4 lookups agree with a naive longest-prefix match at every boundary and at random",
          "[classifier][region]") {
    std::mt19937_64 random(4);
    const auto set = generate(true, 5000, random);
    const auto geo = geo_from(set.text);
    const auto table = compiled(geo, europe());
    Disagreements wrong;
    for (const auto& prefix : set.prefixes)
        for (const auto& edge : edges_of(prefix)) check_address(set, geo, *table, edge, wrong);
    for (std::size_t i = 0; i < random_addresses; i++)
        check_address(set, geo, *table, Address::from_ipv4(static_cast<std::uint32_t>(random())), wrong);
    INFO(wrong.first);
    CHECK(wrong.count == 0);
}

TEST_CASE("IPv6 lookups agree with a naive longest-prefix match at every boundary and at random",
          "[classifier][region]") {
    std::mt19937_64 random(6);
    const auto set = generate(false, 3000, random);
    const auto geo = geo_from(set.text);
    const auto table = compiled(geo, europe());
    const std::vector<Prefix> prefixes(set.prefixes.begin(), set.prefixes.end());
    Disagreements wrong;
    for (const auto& prefix : prefixes)
        for (const auto& edge : edges_of(prefix)) check_address(set, geo, *table, edge, wrong);
    for (std::size_t i = 0; i < random_addresses; i++) {
        // Inside a prefix as often as outside of all: a random address alone would hardly meet one.
        Address address = random_ipv6(random);
        const auto& prefix = prefixes[random() % prefixes.size()];
        if (i % 4 != 0)
            for (unsigned bit = 0; bit < prefix.length; bit++) {
                const auto mask = static_cast<std::uint8_t>(0x80u >> bit % 8);
                auto& byte = address.bytes[bit / 8];
                byte = static_cast<std::uint8_t>((byte & ~mask) | (prefix.base.bytes[bit / 8] & mask));
            }
        check_address(set, geo, *table, address, wrong);
    }
    INFO(wrong.first);
    CHECK(wrong.count == 0);
}

TEST_CASE("the table and the search over geo data, special addresses and policy give the same answer",
          "[classifier][region]") {
    std::mt19937_64 random(9);
    auto set = generate(true, 800, random);
    const auto six = generate(false, 400, random);
    const auto geo = geo_from(set.text + six.text);
    auto spec = europe();
    spec.list_names = {"a", "b", "c"};
    spec.host_addresses = {cidr("80.0.0.7/32"), cidr("10.0.0.7/32")};
    spec.home_prefixes = {cidr("10.1.0.0/16"), cidr("100.0.0.0/6"), cidr("2a00::/20"), cidr("fd00:1::/32")};
    std::vector<Prefix> edges(set.prefixes.begin(), set.prefixes.end());
    edges.insert(edges.end(), six.prefixes.begin(), six.prefixes.end());
    for (std::size_t i = 0; i < 200; i++)
        spec.list_prefixes.push_back(
            {edges[random() % edges.size()], static_cast<std::uint16_t>(random() % 3)});
    spec.list_prefixes.push_back({cidr("0.0.0.0/0"), 2});
    const auto table = compiled(geo, spec);
    for (const auto* more : {&spec.host_addresses, &spec.home_prefixes})
        edges.insert(edges.end(), more->begin(), more->end());
    for (const auto& special : special_prefixes()) edges.push_back(special.prefix);
    for (const auto& prefix : edges)
        for (const auto& address : edges_of(prefix)) {
            INFO(address.to_string());
            REQUIRE(table->class_info(table->lookup(address)) == locate(geo, spec, address).info);
        }
}

TEST_CASE("policy is preferred to special addresses, and those to the geo data", "[classifier][region]") {
    const auto geo = geo_from("0.0.0.0/0 US\n::/0 US\n198.51.100.0/24 CN\n");
    auto spec = europe();
    spec.list_names = {"partners"};
    spec.list_prefixes = {{cidr("203.0.113.0/28"), 0}, {cidr("192.168.7.0/24"), 0}};
    spec.home_prefixes = {cidr("198.51.100.0/25"), cidr("9.9.9.0/24")};
    spec.host_addresses = {cidr("9.9.9.9/32")};
    const auto table = compiled(geo, spec);
    const auto info = [&](const char* text) { return table->class_info(table->lookup(addr(text))); };
    using namespace datapath;
    CHECK(info("8.8.8.8") == ClassInfo{KIND_OUTSIDE, LOCAL_NONE, "US", {}, false});
    CHECK(info("9.9.9.8") == ClassInfo{KIND_HOME, LOCAL_NONE, "US", {}, false});
    CHECK(info("9.9.9.9") == ClassInfo{KIND_LOCAL, LOCAL_HOST, "", {}, false});
    CHECK(info("9.9.10.0") == ClassInfo{KIND_OUTSIDE, LOCAL_NONE, "US", {}, false});
    CHECK(info("198.51.100.127") == ClassInfo{KIND_HOME, LOCAL_NONE, "", {}, false});
    CHECK(info("198.51.100.128") == ClassInfo{KIND_UNKNOWN, LOCAL_NONE, "", {}, false});
    CHECK(info("203.0.113.15") == ClassInfo{KIND_UNKNOWN, LOCAL_NONE, "", {0}, false});
    CHECK(info("203.0.113.16") == ClassInfo{KIND_UNKNOWN, LOCAL_NONE, "", {}, false});
    CHECK(info("192.168.7.1") == ClassInfo{KIND_LOCAL, LOCAL_PRIVATE, "", {0}, false});
    CHECK(info("192.168.8.1") == ClassInfo{KIND_LOCAL, LOCAL_PRIVATE, "", {}, false});
    CHECK(info("127.0.0.1").local == LOCAL_HOST);
    CHECK(info("::1").local == LOCAL_HOST);
    CHECK(info("::").local == LOCAL_UNSPECIFIED);
    CHECK(info("::2") == ClassInfo{KIND_OUTSIDE, LOCAL_NONE, "US", {}, false});
    CHECK(info("169.254.1.1").local == LOCAL_LINK);
    CHECK(info("fe80::1").local == LOCAL_LINK);
    CHECK(info("fd00::1").local == LOCAL_PRIVATE);
    CHECK(info("100.64.0.1").local == LOCAL_PRIVATE);
    CHECK(info("100.128.0.1").kind == KIND_OUTSIDE);
    CHECK(info("239.1.1.1").local == LOCAL_MULTICAST);
    CHECK(info("240.0.0.1").kind == KIND_UNKNOWN);
    CHECK(info("255.255.255.254").kind == KIND_UNKNOWN);
    CHECK(info("255.255.255.255").local == LOCAL_MULTICAST);
    CHECK(info("ff02::1").local == LOCAL_MULTICAST);
    CHECK(info("2001:db8::1").kind == KIND_UNKNOWN);
    CHECK(info("2001:200::1").kind == KIND_OUTSIDE);
}

TEST_CASE("an address without a country is unknown, and home only where the policy says so",
          "[classifier][region]") {
    const auto geo = geo_from("9.0.0.0/8 US\n8.0.0.0/8 EU\n");
    const auto table = compiled(geo, europe());
    CHECK(table->lookup(addr("7.7.7.7")) == 0);
    CHECK(table->lookup(addr("8.8.8.8")) == 0);  // EU is no country
    CHECK(table->class_info(0) == ClassInfo{});
    auto spec = europe();
    spec.unknown_is_home = true;
    const auto lenient = compiled(geo, spec);
    CHECK(lenient->class_info(lenient->lookup(addr("7.7.7.7"))).kind == datapath::KIND_HOME);
    CHECK(lenient->class_info(lenient->lookup(addr("9.7.7.7"))).kind == datapath::KIND_OUTSIDE);
    CHECK(lenient->class_info(lenient->lookup(addr("240.0.0.1"))).kind == datapath::KIND_UNKNOWN);
    CHECK(lenient->class_info(0) == ClassInfo{});
}

TEST_CASE("NAT64 and 6to4 addresses are of the class of the IPv4 address inside them",
          "[classifier][region]") {
    const auto geo = geo_from("192.0.0.0/8 US\n9.0.0.0/8 IE\n2002::/16 CN\n64:ff9b::/96 CN\n");
    auto spec = europe();
    spec.list_names = {"l"};
    spec.list_prefixes = {{cidr("9.1.0.0/16"), 0}};
    const auto table = compiled(geo, spec);
    CHECK(table->lookup(addr("64:ff9b::901:203")) == table->lookup(addr("9.1.2.3")));
    CHECK(table->lookup(addr("2002:901:203::1")) == table->lookup(addr("9.1.2.3")));
    CHECK(table->lookup(addr("64:ff9b::a00:1")) == table->lookup(addr("10.0.0.1")));
    CHECK(table->class_info(table->lookup(addr("2002:901:203::1"))).lists == std::vector<std::uint16_t>{0});
    CHECK(locate(geo, spec, addr("2002:901:203::1")).prefix->to_string() == "2002:900::/24");
    CHECK(locate(geo, spec, addr("64:ff9b::901:203")).prefix->to_string() == "64:ff9b::900:0/104");
    CHECK_FALSE(geo.find(addr("64:ff9b:0:1::1")).prefix.has_value());

    spec.list_prefixes.push_back({cidr("2002:901::/32"), 0});
    const auto refused = compile_region_table(geo, spec);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().message.find("list \"l\": prefix 2002:901::/32 can never match") == 0);
    CHECK(refused.error().message.find("write 9.1.0.0/16") != std::string::npos);
}

TEST_CASE("class ids keep their meaning over reloads, and new meanings get new ids", "[classifier][region]") {
    const auto geo = geo_from("9.0.0.0/8 US\n8.0.0.0/8 IE\n7.0.0.0/8 NO\n");
    auto spec = europe();
    spec.list_names = {"old", "kept"};
    spec.list_prefixes = {{cidr("9.1.0.0/16"), 0}, {cidr("9.2.0.0/16"), 1}};
    const auto first = compiled(geo, spec);
    CHECK(first->generation() == 1);

    auto later = europe();
    later.home_countries = {"IE"};  // NO is outside now
    later.list_names = {"new", "kept"};
    later.list_prefixes = {{cidr("9.1.0.0/16"), 0}, {cidr("9.2.0.0/16"), 1}};
    const auto second = compiled(geo, later, first.get());
    CHECK(second->generation() == 2);
    CHECK(second->lookup(addr("9.0.0.1")) == first->lookup(addr("9.0.0.1")));
    CHECK(second->lookup(addr("9.2.0.1")) == first->lookup(addr("9.2.0.1")));
    CHECK(second->lookup(addr("9.1.0.1")) >= first->class_count());
    CHECK(second->lookup(addr("7.0.0.1")) >= first->class_count());
    for (std::uint16_t id = 0; id < first->class_count(); id++) {
        CHECK(second->class_info(id).kind == first->class_info(id).kind);
        CHECK(second->class_info(id).country == first->class_info(id).country);
        CHECK(std::ranges::equal(second->class_list_names(id), first->class_list_names(id)));
    }
    // The list that is gone is named, but is no index into the lists of the policy in force.
    const auto retired = first->lookup(addr("9.1.0.1"));
    CHECK(second->class_info(retired).lists.empty());
    CHECK(second->class_list_names(retired)[0] == "old");
    CHECK(second->class_info(second->lookup(addr("9.2.0.1"))).lists == std::vector<std::uint16_t>{1});

    const auto third = compiled(geo, spec, second.get());
    CHECK(third->class_count() == second->class_count());
    CHECK(third->lookup(addr("9.1.0.1")) == retired);
    CHECK(third->class_info(retired).lists == std::vector<std::uint16_t>{0});
}

TEST_CASE("equal blocks are kept once, also where they belong to different prefixes",
          "[classifier][region]") {
    std::string text;
    for (int i = 0; i < 200; i++) text += "9." + std::to_string(i) + ".3.128/25 US\n";
    const auto table = compiled(geo_from(text), europe());
    // Two each: that of the 200 prefixes, and that of 255.255.255.255.
    CHECK(table->wide4_count() == 2);
    CHECK(table->narrow_count() == 2);
}

TEST_CASE("more classes than there are ids is an error that says what to do", "[classifier][region]") {
    const auto geo = geo_from("9.0.0.0/8 US\n");
    RegionSpec spec = europe();
    for (unsigned i = 0; i < datapath::CLASSES_MAX; i++) {
        spec.list_names.push_back("list-" + std::to_string(i));
        spec.list_prefixes.push_back({Prefix::containing(Address::from_ipv4(0x09000000u + (i << 8)), 24),
                                      static_cast<std::uint16_t>(i)});
    }
    const auto refused = compile_region_table(geo, spec);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == RegionError::Code::limit);
    CHECK(refused.error().message.find("the limit is 4096") != std::string::npos);
    CHECK(refused.error().message.find("merge lists") != std::string::npos);
    spec.list_prefixes.resize(3000);
    CHECK(compile_region_table(geo, spec).has_value());
}

TEST_CASE("more distinct blocks than a cell can name is an error, not a wrong answer",
          "[classifier][region]") {
    const auto geo = geo_from("9.0.0.0/8 US\n");
    RegionSpec spec = europe();
    spec.list_names = {"l"};
    for (unsigned i = 0; i < 65536; i++)  // the i-th /24 of 10.0.0.0/8 has a pattern of its own
        for (unsigned bit = 0; bit < 16; bit++)
            if ((i >> bit & 1) != 0)
                spec.list_prefixes.push_back(
                    {Prefix::containing(Address::from_ipv4(0x0a000000u + (i << 8) + bit * 2), 32), 0});
    const auto refused = compile_region_table(geo, spec);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == RegionError::Code::limit);
    CHECK(refused.error().message.find("distinct blocks") != std::string::npos);
}

TEST_CASE("a list index that the policy does not have is refused", "[classifier][region]") {
    RegionSpec spec;
    spec.list_names = {"a"};
    spec.list_prefixes = {{cidr("9.0.0.0/8"), 1}};
    CHECK_FALSE(compile_region_table(geo_from("9.0.0.0/8 US\n"), spec).has_value());
    spec.list_prefixes.clear();
    spec.list_names = {"a", "a"};
    CHECK_FALSE(compile_region_table(geo_from("9.0.0.0/8 US\n"), spec).has_value());
}
