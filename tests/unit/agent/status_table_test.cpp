// tests/unit/agent/status_table_test.cpp - what the table of `egresswatch status` says of rules and allow
// entries. SPDX-License-Identifier: Apache-2.0
#include "agent/cli/status_table.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"

using namespace egresswatch;
using Json = nlohmann::json;

namespace {

std::string table_of(Json rules, Json allows) {
    return cli::status_table({{"evaluation",
                               {{"findings", 3},
                                {"suppressed", 1},
                                {"window_evictions", 7},
                                {"rules", rules},
                                {"allows", allows}}}});
}

bool says(const std::string& table, std::string_view text) {
    return table.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("rules that lose groups or count nothing are named", "[agent][status]") {
    const std::string table =
        table_of({{{"id", "full"}, {"active", true}, {"evicted", 7}, {"groups_max", 65536}},
                  {{"id", "fine"}, {"active", true}, {"evicted", 0}, {"groups_max", 65536}},
                  {{"id", "by-asn"}, {"active", false}, {"evicted", 0}}},
                 Json::array());
    INFO(table);
    CHECK(says(table, "rule full: 7 groups evicted at 65,536") +
              says(table, "rule full: 7 groups evicted at 65536") ==
          1);
    CHECK(says(table, "rule by-asn counts nothing: no AS data are loaded"));
    CHECK(!says(table, "rule fine"));
}

TEST_CASE("allow entries that are idle or over their ceiling are named, of many the first",
          "[agent][status]") {
    Json allows = {
        {{"id", "busy"}, {"owner", "o"}, {"unused", false}, {"last_match", "2026-11-01T00:00:00Z"}},
        {{"id", "over"}, {"owner", "o"}, {"unused", false}, {"ceiling_bytes", 1000}, {"used_bytes", 2000}},
        {{"id", "never"},
         {"owner", "web@example.org"},
         {"unused", true},
         {"last_match", nullptr},
         {"since", "2026-09-01T00:00:00Z"}},
        {{"id", "once"},
         {"owner", "o"},
         {"unused", true},
         {"last_match", "2026-08-01T00:00:00Z"},
         {"since", "2026-07-01T00:00:00Z"}}};
    const std::string table = table_of(Json::array(), allows);
    INFO(table);
    CHECK(says(table, "Allow  4 entries"));
    CHECK(says(table, "over (o) is over its ceiling, "));
    CHECK(says(table, "never (web@example.org) has covered nothing since 2026-09-01T00:00:00Z"));
    CHECK(says(table, "once (o) has covered nothing since 2026-08-01T00:00:00Z"));
    CHECK(!says(table, "busy"));
    for (int i = 0; i < 40; ++i) allows.push_back(allows[2]);
    CHECK(says(table_of(Json::array(), allows), "  and 23 more: --json has them all\n"));
}
