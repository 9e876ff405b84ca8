// tests/unit/rules/region_groups_test.cpp - who was in which group on which day.
// SPDX-License-Identifier: Apache-2.0
#include "rules/region_groups.h"

#include "rules/schema.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;
using std::chrono::day;
using std::chrono::month;
using std::chrono::year;

namespace {

bool in(const char* group, const char* country, int y, unsigned m, unsigned d) {
    const RegionGroup* found = find_region_group(group);
    REQUIRE(found != nullptr);
    return members(*found, year{y} / month{m} / day{d}).contains(country);
}

std::size_t states(const char* group, int y, unsigned m, unsigned d) {
    std::set<Country> out = members(*find_region_group(group), year{y} / month{m} / day{d});
    for (const char* territory : {"AX", "GF", "GP", "MF", "MQ", "RE", "YT"}) out.erase(territory);
    return out.size();
}

}  // namespace

TEST_CASE("the Union has as many members as it had on the day", "[rules][regions]") {
    CHECK(states("EU", 1958, 1, 1) == 6);
    CHECK(states("EU", 1973, 1, 1) == 9);
    CHECK(states("EU", 1981, 1, 1) == 10);
    CHECK(states("EU", 1986, 1, 1) == 12);
    CHECK(states("EU", 1995, 1, 1) == 15);
    CHECK(states("EU", 2004, 5, 1) == 25);
    CHECK(states("EU", 2007, 1, 1) == 27);
    CHECK(states("EU", 2013, 7, 1) == 28);
    CHECK(states("EU", 2026, 2, 1) == 27);
}

TEST_CASE("the United Kingdom left the Union on one day and the EEA on another", "[rules][regions]") {
    CHECK(in("EU", "GB", 2020, 1, 31));
    CHECK(!in("EU", "GB", 2020, 2, 1));
    CHECK(in("EEA", "GB", 2020, 12, 31));
    CHECK(!in("EEA", "GB", 2021, 1, 1));
    CHECK(!in("EU-ADEQUACY", "GB", 2021, 6, 27));
    CHECK(in("EU-ADEQUACY", "GB", 2021, 6, 28));
    CHECK(in("EU-ADEQUACY", "GB", 2026, 2, 1));
    CHECK(!in("EU-ADEQUACY", "GB", 2032, 1, 1));
}

TEST_CASE("Norway, Iceland and Liechtenstein are in the EEA and not in the Union", "[rules][regions]") {
    for (const char* country : {"NO", "IS", "LI"}) {
        CHECK(in("EEA", country, 2026, 2, 1));
        CHECK(in("EFTA", country, 2026, 2, 1));
        CHECK(!in("EU", country, 2026, 2, 1));
    }
    CHECK(states("EEA", 2026, 2, 1) == 30);
    CHECK(states("EFTA", 2026, 2, 1) == 4);
}

TEST_CASE("Switzerland is in EFTA and adequate, and in no other group", "[rules][regions]") {
    CHECK(in("EFTA", "CH", 2026, 2, 1));
    CHECK(in("EU-ADEQUACY", "CH", 2026, 2, 1));
    CHECK(!in("EEA", "CH", 2026, 2, 1));
    CHECK(!in("EU", "CH", 2026, 2, 1));
}

TEST_CASE("the United States are adequate for certified organisations only, and not at all times",
          "[rules][regions]") {
    CHECK(!in("EU-ADEQUACY", "US", 2026, 2, 1));
    CHECK(in("EU-ADEQUACY-PARTIAL", "US", 2026, 2, 1));
    CHECK(!in("EU-ADEQUACY-PARTIAL", "US", 2015, 10, 6));  // Schrems I
    CHECK(!in("EU-ADEQUACY-PARTIAL", "US", 2020, 7, 16));  // Schrems II
    CHECK(!in("EU-ADEQUACY-PARTIAL", "US", 2023, 7, 9));
}

TEST_CASE("every member of every group is a country, and every date is one", "[rules][regions]") {
    for (const RegionGroup& group : region_groups())
        for (const Membership& member : group.members) {
            INFO(group.name << " " << member.country);
            CHECK(is_country_code(member.country));
            CHECK(member.from.ok());
            CHECK(member.until.ok());
            CHECK(member.from < member.until);
        }
    CHECK(region_groups_reviewed().ok());
    CHECK(country_codes().size() == 250);
}

TEST_CASE("the schema knows every group by name", "[rules][regions][schema]") {
    const Key* groups = schema::region.find("groups");
    REQUIRE(groups != nullptr);
    REQUIRE(groups->words.size() == region_groups().size());
    for (std::size_t i = 0; i < groups->words.size(); ++i) CHECK(groups->words[i] == region_groups()[i].name);
}

TEST_CASE("in Hamar, NO is Norway: quoted or not, in a site, a region, a list and a rule",
          "[rules][regions]") {
    const auto in_force = compile_text(R"(policy: egresswatch/v1
name: nordic
revision: 1
owner: o
sites:
  hamar: {country: NO}
  hamar-2: {country: "NO"}
regions:
  north: {countries: [NO, 'SE']}
home: north
lists:
  neighbours:
    country: NO
rules:
  - id: nordic
    title: To Norway
    level: low
    when: {country: [NO], list: neighbours}
    window: {sum: bytes_out, over: 1h, by: [country], at_least: 1 MiB}
)");
    REQUIRE(in_force);
    const Policy& nordic = *in_force->policy;
    CHECK(nordic.find_site("hamar")->country == "NO");
    CHECK(nordic.find_site("hamar-2")->country == "NO");
    CHECK(nordic.region_spec().home_countries == std::set<Country>{"NO", "SE"});
    CHECK(nordic.rules[0].when.find(Field::country)->countries == std::vector<Country>{"NO"});
    CHECK(nordic.rules[0].when.find(Field::list)->sets[0].countries == std::set<Country>{"NO"});
}

TEST_CASE("the words of YAML 1.1 for true and false are texts and never booleans", "[rules][regions]") {
    for (const char* word : {"yes", "Yes", "no", "No", "NO", "on", "off", "y", "n", "True", "FALSE"}) {
        const auto refused =
            compile_text(header() +
                         "rules:\n  - id: a\n    title: t\n    level: low\n"
                         "    when: {region: outside, allowed: " +
                         word +
                         "}\n"
                         "    window: {sum: bytes_out, over: 1h, by: [], at_least: 1 MiB}\n");
        INFO(word);
        REQUIRE(!refused);
        CHECK(refused.error().front().code == "rules/not-a-boolean");
        const auto text =
            compile_text(header() + "rules:\n  - id: " + std::string("a") + "\n    title: " + word +
                         "\n    level: low\n    when: {region: outside}\n"
                         "    window: {sum: bytes_out, over: 1h, by: [], at_least: 1 MiB}\n");
        REQUIRE(text);
        CHECK(text->policy->rules[0].title == word);
    }
}
