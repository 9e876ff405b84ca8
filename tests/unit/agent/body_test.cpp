// tests/unit/agent/body_test.cpp - the bodies: ECS against the schema's own field types, and what CEF, LEEF
// and OCSF say of a finding. CEF as liblognorm reads it: bodies_by_liblognorm. SPDX-License-Identifier:
// Apache-2.0
#include "agent/records/body.h"

#include <fstream>
#include <map>
#include <sstream>

#include "agent/records/ecs.h"
#include "agent/sender.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using records::BodyKind;
using records::Json;

namespace {

capture::Process sample_process() {
    capture::Process process;
    process.id = {1, 4711, 1};
    process.command = "rclone";
    process.executable = "/usr/bin/rclone";
    process.sha256 = std::string(64, 'a');
    process.hash = capture::HashState::known;
    process.command_line = "rclone copy *** ***";
    process.uid = 34;
    process.user = "backup";
    process.cgroup = "/system.slice/nightly.service";
    process.names = {"nightly.service", "", std::string(64, 'b'), "docker",
                     "0f5f2b4c-1e2d-4c3b-9a8f-001122334455"};
    process.parent_pid = 1;
    process.parent_command = "systemd";
    return process;
}

struct EcsField {
    std::string type;
    bool array = false;
};

std::map<std::string, EcsField> ecs_fields() {
    std::map<std::string, EcsField> out;
    std::ifstream file(EGRESSWATCH_SOURCE_DIR "/tests/unit/agent/ecs_fields.tsv");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with('#')) continue;
        std::istringstream parts(line);
        std::string name, type, normalization;
        parts >> name >> type >> normalization;
        out[name] = {type, normalization == "array"};
    }
    return out;
}

bool has_type(const Json& value, const EcsField& field) {
    if (field.array) {
        if (!value.is_array() || value.empty()) return false;
        for (const auto& element : value)
            if (!has_type(element, {field.type, false})) return false;
        return true;
    }
    if (field.type == "keyword" || field.type == "match_only_text" || field.type == "wildcard")
        return value.is_string() && !value.get_ref<const std::string&>().empty();
    if (field.type == "long") return value.is_number_integer();
    if (field.type == "ip") return value.is_string() && Address::parse(value.get<std::string>()).has_value();
    if (field.type == "date")
        return value.is_string() && records::parse_time(value.get<std::string>()).has_value();
    return false;
}

// Every leaf outside of our own namespace must be a field of the schema, with its type.
void check_ecs(const Json& value, const std::string& path, const std::map<std::string, EcsField>& fields) {
    if (path == "egresswatch") return;
    if (value.is_object()) {
        for (const auto& [name, inner] : value.items())
            check_ecs(inner, path.empty() ? name : path + "." + name, fields);
        return;
    }
    INFO(path << " = " << value.dump());
    const auto field = fields.find(path);
    REQUIRE(field != fields.end());
    CHECK(has_type(value, field->second));
}

Json stored(Json record) {
    record["seq"] = 4711;
    record["written"] = "2026-11-23T12:00:00.125000000Z";
    if (!record.contains("time")) record["time"] = record["written"];
    return record;
}

std::vector<Json> one_of_each_kind() {
    const auto origin = sample_origin();
    auto remote_first = sample_finding("2001:db8:77::9");
    remote_first.flow.initiator = datapath::INITIATOR_REMOTE;
    Json named = records::finding_record(origin, sample_finding());
    named["flow"].update({{"name", "a.example.org"},
                          {"name_source", "sni"},
                          {"app", "tls"},
                          {"tls", {{"version", "1.3"}, {"alpn", "h2"}}},
                          {"http", {{"method", "GET"}, {"user_agent", "curl/7.88.1"}}}});
    records::Gap gap;
    gap.reason = "retention";
    gap.first_seq = 3;
    gap.last_seq = 9;
    Json with_sender = records::finding_record(origin, sample_finding());
    const capture::Process process = sample_process();
    add_sender_members(with_sender, {1, 4711, 1, 0, datapath::SENDER_PROCESS, datapath::HOW_SENT, 0, 0},
                       &process);
    return {stored(records::finding_record(origin, sample_finding())),
            stored(records::finding_record(origin, remote_first)),
            stored(std::move(named)),
            stored(records::genesis_record(origin, "web1", "", "")),
            stored(records::stop_record(origin, "signal")),
            stored(records::gap_record(origin, gap)),
            stored(records::recovery_record(origin, {})),
            stored(records::policy_record(origin, {})),
            stored(records::coverage_record(origin, {})),
            stored(records::checkpoint_record(origin, {})),
            stored(records::record_head(origin, "heartbeat", sample_time(0))),
            stored(records::flow_record(origin, sample_flow("192.0.2.1", "203.0.113.9"), {}, nullptr)),
            stored(with_sender)};
}

}  // namespace

TEST_CASE("every ECS field of every kind of record is in the schema and has its type", "[records][ecs]") {
    const auto fields = ecs_fields();
    REQUIRE(fields.size() > 40);
    for (const auto& record : one_of_each_kind()) {
        INFO(record.dump());
        check_ecs(records::ecs_document(record), "", fields);
    }
    // The check itself can fail.
    CHECK_FALSE(has_type(Json("443"), {"long", false}));
    CHECK_FALSE(has_type(Json("x"), {"keyword", true}));
    CHECK_FALSE(has_type(Json("300.1.1.1"), {"ip", false}));
}

TEST_CASE("a finding says who sent, in every body", "[records][ecs]") {
    Json record = stored(records::finding_record(sample_origin(), sample_finding()));
    const capture::Process process = sample_process();
    add_sender_members(record, {1, 4711, 1, 0, datapath::SENDER_PROCESS, datapath::HOW_SENT, 0, 0}, &process);
    const Json document = records::ecs_document(record);
    CHECK(document["process"]["pid"] == 4711);
    CHECK(document["process"]["hash"]["sha256"] == process.sha256);
    CHECK(document["user"]["name"] == "backup");
    CHECK(document["container"]["id"] == std::string(64, 'b'));
    CHECK(document["egresswatch"]["process"]["unit"] == "nightly.service");
    CHECK(document["egresswatch"]["sender"] == "process");
    CHECK(document["message"].get<std::string>().find(", by /usr/bin/rclone (pid 4711, user backup, bbbb") !=
          std::string::npos);
    // Nobody can be named: the reason stands in its place.
    Json routed = stored(records::finding_record(sample_origin(), sample_finding()));
    add_sender_members(routed, {0, 0, 0, 7, datapath::SENDER_ROUTED, 0, 0, 0}, nullptr);
    CHECK(routed["process"].is_null());
    CHECK(routed["sender"]["came_by_ifindex"] == 7);
    CHECK(!records::ecs_document(routed).contains("process"));
    CHECK(records::ecs_document(routed)["egresswatch"]["sender"] == "routed");
}

TEST_CASE("the documentation lists the ECS types", "[records][ecs]") {
    std::ifstream in(EGRESSWATCH_SOURCE_DIR "/docs/siem.md");
    std::stringstream page;
    page << in.rdbuf();
    for (const auto& [name, field] : ecs_fields()) {
        INFO(name);
        CHECK(page.str().find("| `" + name + "` | " + field.type + (field.array ? ", array" : "") + " |") !=
              std::string::npos);
    }
}

TEST_CASE("digits of a second are cut where a destination wants fewer", "[records][ecs]") {
    const auto record = stored(records::finding_record(sample_origin(), sample_finding()));
    const auto time_with = [&](unsigned digits) {
        return Json::parse(records::fit_body(BodyKind::ecs, record, records::body_unlimited, digits).text)
            .at("@timestamp")
            .get<std::string>();
    };
    CHECK(time_with(9) == "2026-11-23T12:00:00.123456789Z");
    CHECK(time_with(3) == "2026-11-23T12:00:00.123Z");
    CHECK(time_with(0) == "2026-11-23T12:00:00Z");
}

TEST_CASE("an OCSF finding has what class 2004 requires, all else is a base event", "[records][ocsf]") {
    for (const auto& record : one_of_each_kind()) {
        const Json event = records::ocsf_document(record);
        INFO(event.dump());
        const bool finding = record["kind"] == "finding";
        CHECK(event["class_uid"] == (finding ? 2004 : 0));
        CHECK(event["category_uid"] == (finding ? 2 : 0));
        CHECK(event["type_uid"].get<int>() ==
              event["class_uid"].get<int>() * 100 + event["activity_id"].get<int>());
        CHECK(event["time"].is_number_integer());
        CHECK(event["severity_id"].is_number_integer());
        CHECK(event["metadata"]["version"] == "1.1.0");
        CHECK(event["metadata"]["product"]["vendor_name"] == "egresswatch");
        if (!finding) continue;
        CHECK(event["finding_info"]["title"] == "Bulk transfer out of the region");
        CHECK(event["finding_info"]["uid"].get<std::string>().starts_with("web1.dub.example.org-4711-"));
        CHECK(event["evidences"][0]["connection_info"]["direction_id"].is_number_integer());
    }
}

TEST_CASE("CEF and LEEF escape what would end a field", "[records][cef]") {
    auto finding = sample_finding();
    finding.rule_id = "a|b\\c^d";
    finding.title = "e|f\nline";
    finding.decision.reason = "x=y\\z^w\nline";
    const auto record = stored(records::finding_record(sample_origin(), finding));
    const auto cef = records::fit_body(BodyKind::cef, record, records::body_unlimited).text;
    CHECK(cef.starts_with("CEF:0|egresswatch|egresswatch|0.1.0|a\\|b\\\\c^d|e\\|f line|8|externalId="));
    CHECK(cef.find(" reason=x\\=y\\\\z^w\\nline ") != std::string::npos);
    const auto leef = records::fit_body(BodyKind::leef, record, records::body_unlimited).text;
    CHECK(leef.starts_with("LEEF:2.0|egresswatch|egresswatch|0.1.0|a_b\\c_d|^|sev=8^eventId="));
    CHECK(leef.find("^reason=x=y\\z_w\\nline^") != std::string::npos);
}

TEST_CASE("CEF gives IPv6 addresses the fields that it has for them, and bytes by who connected",
          "[records][cef]") {
    const auto records = one_of_each_kind();
    const auto local_first = records::fit_body(BodyKind::cef, records[0], records::body_unlimited).text;
    CHECK(local_first.find(" src=198.51.100.5 dst=203.0.113.9 spt=50514 dpt=443 ") != std::string::npos);
    CHECK(local_first.find(" in=62914560 out=1092000 deviceDirection=1 ") != std::string::npos);
    const auto remote_first = records::fit_body(BodyKind::cef, records[1], records::body_unlimited).text;
    CHECK(remote_first.find(" c6a2=2001:db8:77::9 c6a2Label=Source IPv6 Address c6a3=2001:db8:1::5 ") !=
          std::string::npos);
    CHECK(remote_first.find(" in=1092000 out=62914560 deviceDirection=0 ") != std::string::npos);
    CHECK(remote_first.find(" cn1=62914560 cn1Label=bytesOut ") != std::string::npos);
}

TEST_CASE("a short limit takes fields from the end and says how many", "[records]") {
    for (const auto& record : one_of_each_kind()) {
        for (const auto kind : {BodyKind::cef, BodyKind::leef, BodyKind::ocsf, BodyKind::ecs}) {
            const auto whole = records::fit_body(kind, record, records::body_unlimited).text;
            for (std::size_t limit = 0; limit < whole.size(); limit += 7) {
                const auto body = records::fit_body(kind, record, limit);
                REQUIRE(body.text.size() <= limit);
                REQUIRE((body.dropped != 0 || body.cut));
                if (kind == BodyKind::cef && !body.cut)
                    REQUIRE(body.text.ends_with("egresswatchCut=" + std::to_string(body.dropped)));
                if (kind == BodyKind::leef && !body.cut)
                    REQUIRE(body.text.ends_with("^cut=" + std::to_string(body.dropped)));
                if (records::is_json(kind) && !body.text.empty()) REQUIRE(Json::accept(body.text));
            }
            CHECK(records::fit_body(kind, record, whole.size()).text == whole);
        }
    }
}
