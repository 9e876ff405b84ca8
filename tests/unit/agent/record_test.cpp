// tests/unit/agent/record_test.cpp - records say what their table (docs/records.md) says.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/record.h"

#include <fstream>
#include <sstream>

#include "agent/records/body.h"
#include "agent/records/ecs.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using records::Json;

namespace {

// Every member of `value` stands in the table of docs/records.md as `name`.
void check_documented(const Json& value, const std::string& document, const std::string& where) {
    for (const auto& [name, inside] : value.items()) {
        if (where == "finding.group" || where == "coverage.losses")
            continue;  // named by rules and loss reasons
        CAPTURE(where, name);
        CHECK(document.find("`" + name + "`") != std::string::npos);
        if (inside.is_object()) check_documented(inside, document, where + "." + name);
        if (inside.is_array() && !inside.empty() && inside[0].is_object())
            check_documented(inside[0], document, where + "." + name);
    }
}

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

records::Coverage sample_coverage() {
    records::Coverage coverage;
    coverage.from = sample_time(-10);
    coverage.to = sample_time(0);
    coverage.classes = {{},
                        {datapath::KIND_HOME, datapath::LOCAL_NONE, "IE", {}, false},
                        {datapath::KIND_OUTSIDE, datapath::LOCAL_NONE, "US", {}, false},
                        {datapath::KIND_OUTSIDE, datapath::LOCAL_NONE, "US", {0}, false}};
    coverage.before.by_class.resize(3);
    coverage.after.by_class.resize(4);
    coverage.before.by_class[2].by_direction[0] = {10, 1'000, 1'140};
    coverage.after.by_class[2].by_direction[0] = {15, 1'500, 1'710};
    coverage.after.by_class[3].by_direction[0] = {1, 100, 114};  // a class that a reload added
    capture::InterfaceStatus iface;
    iface.name = "eth0";
    iface.ifindex = 2;
    iface.hooked = true;
    iface.hook = "tcx";
    coverage.before.interfaces = {iface};
    iface.totals.by_direction[0].seen = {6, 684};
    iface.totals.by_direction[0].outcome[datapath::OUTCOME_OUTSIDE] = {6, 684};
    coverage.after.interfaces = {iface};
    coverage.after.losses[datapath::LOSS_EVENTS_FULL] = 7;
    coverage.engine = "ebpf";
    return coverage;
}

}  // namespace

TEST_CASE("times are written with nine digits and read back", "[records]") {
    const auto time = sample_time(1);
    CHECK(records::format_time(time) == "2026-11-23T12:00:01.123456789Z");
    CHECK(records::parse_time(records::format_time(time)) == time);
    CHECK(records::format_time(Timestamp{}) == "1970-01-01T00:00:00.000000000Z");
    for (const char* wrong :
         {"", "2026-11-23", "2026-13-23T12:00:01.123456789Z", "2026-02-30T12:00:01.123456789Z",
          "2026-11-23T24:00:01.123456789Z", "2026-11-23T12:00:01.12345678 Z"})
        CHECK_FALSE(records::parse_time(wrong));
}

TEST_CASE("a finding's record holds the rule, the group, the decision and the flow", "[records]") {
    const Json record = records::finding_record(sample_origin(), sample_finding());
    CHECK(record["kind"] == "finding");
    CHECK(record["level"] == "high");
    CHECK(record["rule"]["id"] == "bulk-to-outside");
    CHECK(record["group"]["remote"] == "203.0.113.9");
    CHECK(record["decision"]["verdict"] == "not_allowed");
    CHECK(record["flow"]["bytes_out"] == 62'914'560);
    CHECK(record["flow"]["country"] == "CN");
    CHECK(record["flow"]["tunnel"] == "none");
    CHECK(record["flow"]["outer_remote"].is_null());
    CHECK(record["time"] == "2026-11-23T12:00:00.123456789Z");
}

TEST_CASE("an unknown country is unknown, a local address has none", "[records]") {
    CHECK(records::country_field({datapath::KIND_UNKNOWN, datapath::LOCAL_NONE, "", {}, false}) == "unknown");
    CHECK(records::country_field({datapath::KIND_OUTSIDE, datapath::LOCAL_NONE, "", {}, false}) == "unknown");
    CHECK(records::country_field({datapath::KIND_LOCAL, datapath::LOCAL_LINK, "", {}, false}).is_null());
    CHECK(records::country_field({datapath::KIND_HOME, datapath::LOCAL_NONE, "NO", {}, false}) == "NO");
}

TEST_CASE("a coverage record holds differences, summed over the classes of one country", "[records]") {
    const Json record = records::coverage_record(sample_origin(), sample_coverage());
    REQUIRE(record["classes"].size() == 1);
    CHECK(record["classes"][0]["country"] == "US");
    CHECK(record["classes"][0]["out"]["packets"] == 6);
    CHECK(record["classes"][0]["out"]["ip_bytes"] == 600);
    CHECK(record["classes"][0]["out"]["frame_bytes"] == 684);
    CHECK(record["interfaces"][0]["out"]["residual"]["bytes"] == 0);
    CHECK(record["losses"]["events_full"] == 7);
    CHECK(record["losses"]["flows_full_bytes"] == 0);
}

TEST_CASE("every loss reason has a name", "[records]") {
    for (std::size_t reason = 0; reason <= datapath::LOSS_DIRECTION_GUESSED; ++reason)
        CHECK_FALSE(records::loss_name(reason).empty());
}

TEST_CASE("every member of every record is in docs/records.md", "[records]") {
    const std::string document = read_file(EGRESSWATCH_SOURCE_DIR "/docs/records.md");
    REQUIRE_FALSE(document.empty());
    const auto origin = sample_origin();
    auto tunnelled = sample_finding();
    tunnelled.flow.key.tunnel = datapath::TUNNEL_VXLAN;
    for (const Json& record :
         {records::finding_record(origin, tunnelled),
          records::flow_record(origin, tunnelled.flow, tunnelled.info, &tunnelled.decision),
          records::policy_record(origin, {}), records::coverage_record(origin, sample_coverage()),
          records::gap_record(origin, {}), records::recovery_record(origin, {}),
          records::genesis_record(origin, "web1/egresswatch/1", "key", "note"),
          records::checkpoint_record(origin, {}), records::key_record(origin, {}),
          records::stop_record(origin, "signal")})
        check_documented(record, document, record["kind"].get<std::string>());
    for (const auto kind : records::kinds)
        CHECK(document.find("`" + std::string(kind) + "`") != std::string::npos);
}

TEST_CASE("the order in which ECS fields go is the documented one", "[records][ecs]") {
    const std::string document = read_file(EGRESSWATCH_SOURCE_DIR "/docs/siem.md");
    std::size_t at = 0;
    for (auto pointer : records::ecs_droppable()) {
        pointer.erase(0, 1);
        for (char& c : pointer)
            if (c == '/') c = '.';
        const auto found = document.find("\n| `" + pointer + "` |", at);
        CAPTURE(pointer);
        REQUIRE(found != std::string::npos);
        at = found;
    }
}

TEST_CASE("source is who initiated, and the remote end carries the country", "[records][ecs]") {
    auto finding = sample_finding();
    Json record = records::finding_record(sample_origin(), finding);
    record["seq"] = 42;
    record["written"] = "2026-11-23T12:00:00.123456789Z";
    Json document = records::ecs_document(record);
    CHECK(document["source"]["ip"] == "198.51.100.5");
    CHECK(document["destination"]["geo"]["country_iso_code"] == "CN");
    CHECK(document["network"]["direction"] == "egress");
    CHECK(document["source"]["bytes"] == 62'914'560);
    CHECK(document["network"]["bytes"] == 62'914'560 + 1'092'000);
    CHECK(document["threat"]["technique"]["id"] == Json::array({"T1041", "T1567"}));
    CHECK(document["threat"]["technique"]["subtechnique"]["id"] == Json::array({"T1567.002"}));
    CHECK(document["event"]["category"] == Json::array({"network", "intrusion_detection"}));

    finding.flow.initiator = datapath::INITIATOR_REMOTE;
    document = records::ecs_document(records::finding_record(sample_origin(), finding));
    CHECK(document["source"]["ip"] == "203.0.113.9");
    CHECK(document["source"]["geo"]["country_iso_code"] == "CN");
    CHECK(document["destination"]["bytes"] == 62'914'560);  // what left this host, pulled by the remote end
    CHECK(document["egresswatch"]["bytes_out"] == 62'914'560);
    CHECK(document["network"]["direction"] == "ingress");

    finding.info = {};
    document = records::ecs_document(records::finding_record(sample_origin(), finding));
    CHECK_FALSE(document["source"].contains("geo"));
    CHECK(document["egresswatch"]["country"] == "unknown");
}

TEST_CASE("ids differ between two journals of one host", "[records][ecs]") {
    Json record = records::finding_record(sample_origin(), sample_finding());
    record["seq"] = 1;
    record["written"] = records::format_time(sample_time(0));
    const auto first = records::ecs_document(record)["event"]["id"];
    CHECK(records::ecs_document(record)["event"]["id"] == first);
    record["written"] = records::format_time(sample_time(1));
    CHECK(records::ecs_document(record)["event"]["id"] != first);
}

TEST_CASE("control characters and broken UTF-8 become visible text", "[records]") {
    auto finding = sample_finding();
    finding.title = "a\nb\x1b[31m \"q\" \xff";
    const auto record = records::finding_record(sample_origin(), finding);
    const auto line = records::text_line(record);
    CHECK(line.find("a\\x0ab\\x1b[31m \"q\" \xEF\xBF\xBD") != std::string::npos);
    const auto ecs = records::fit_body(records::BodyKind::ecs, record, records::body_unlimited);
    CHECK(ecs.text.find("a\\nb\\u001b[31m \\\"q\\\" \\ufffd") != std::string::npos);
    CHECK(ecs.text.find('\n') == std::string::npos);
}
