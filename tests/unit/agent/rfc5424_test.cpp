// tests/unit/agent/rfc5424_test.cpp - one record as one message: escaping, UTF-8, and what goes first when it
// is long. SPDX-License-Identifier: Apache-2.0
//
// The golden files hold one message for each limit. After a wanted change: EGRESSWATCH_WRITE_GOLDEN=1
// unit_agent [golden], and read the difference before you commit it.
#include "agent/outputs/rfc5424.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

using namespace egresswatch;
using namespace egresswatch::testing;
using outputs::format_message;
using outputs::MessageContext;
using records::BodyKind;
using records::Json;

namespace {

Json sample_record(const rules::Finding& finding = sample_finding()) {
    Json record = records::finding_record(sample_origin(), finding);
    record["seq"] = 4711;
    record["written"] = "2026-11-23T12:00:00.125000000Z";
    return record;
}

MessageContext context_of(BodyKind body, std::size_t bytes_max) {
    MessageContext context;
    context.body = body;
    context.bytes_max = bytes_max;
    context.host = "web1";
    context.version = "0.1.0";
    context.process_id = "4242";
    context.sequence_id = 7;
    context.clock_synced = true;
    return context;
}

void compare_with_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(EGRESSWATCH_SOURCE_DIR "/tests/unit/agent/golden/") + name;
    if (std::getenv("EGRESSWATCH_WRITE_GOLDEN") != nullptr) std::ofstream(path) << text;
    std::ifstream file(path);
    std::stringstream golden;
    golden << file.rdbuf();
    CHECK(text == golden.str());
}

std::string at_every_limit(BodyKind body) {
    std::string out;
    for (const std::size_t limit : {8'000, 1'600, 1'400, 1'200, 1'024, 900, 700, 600, 480}) {
        const auto message = format_message(sample_record(), context_of(body, limit));
        CHECK(message.text.size() <= limit);
        out += std::to_string(limit) + ": " + std::to_string(message.text.size()) + " bytes, " +
               std::to_string(message.dropped) + " dropped" + (message.cut ? ", body cut" : "") + "\n" +
               message.text + "\n";
    }
    return out;
}

std::string body_of(const std::string& message) {
    const auto at = message.find("] ", message.find("[meta "));
    return message.substr(at + 2);
}

}  // namespace

TEST_CASE("ECS messages at every limit", "[outputs][golden]") {
    compare_with_golden("message_ecs.txt", at_every_limit(BodyKind::ecs));
}

TEST_CASE("text messages at every limit", "[outputs][golden]") {
    compare_with_golden("message_text.txt", at_every_limit(BodyKind::text));
}

TEST_CASE("CEF, LEEF and OCSF messages at every limit", "[outputs][golden]") {
    compare_with_golden("message_cef.txt", at_every_limit(BodyKind::cef));
    compare_with_golden("message_leef.txt", at_every_limit(BodyKind::leef));
    compare_with_golden("message_ocsf.txt", at_every_limit(BodyKind::ocsf));
}

TEST_CASE("no limit is ever exceeded, and an ECS body stays JSON while it is not cut", "[outputs]") {
    for (const auto body : {BodyKind::ecs, BodyKind::text, BodyKind::cef, BodyKind::leef, BodyKind::ocsf}) {
        std::size_t dropped = 1'000;
        for (std::size_t limit = 480; limit <= 3'200; ++limit) {
            const auto message = format_message(sample_record(), context_of(body, limit));
            CAPTURE(limit);
            REQUIRE(message.text.size() <= limit);
            REQUIRE(message.text.find('\n') == std::string::npos);
            dropped = message.dropped;
            const bool marked = message.text.find(" cut=\"") != std::string::npos;
            REQUIRE(marked == (message.dropped != 0 || message.cut));
            if (records::is_json(body)) REQUIRE(Json::accept(body_of(message.text)));
            REQUIRE(message.text.find(" rule=\"bulk-to-outside\" country=\"CN\" verdict=\"not_allowed\"") !=
                    std::string::npos);
            REQUIRE(message.text.find("seq=\"4711\" kind=\"finding\" level=\"high\"") != std::string::npos);
            REQUIRE(message.text.find("[origin software=\"egresswatch\" swVersion=\"0.1.0\"]") !=
                    std::string::npos);
            REQUIRE(message.text.find("[meta sequenceId=\"7\"]") != std::string::npos);
        }
        CHECK(dropped == 0);
    }
}

TEST_CASE("the header holds priority, six digits of a second, and names without spaces", "[outputs]") {
    const auto text = format_message(sample_record(), context_of(BodyKind::text, 4'000)).text;
    // local4 is 20, high is 3: 20 * 8 + 3
    CHECK(
        text.starts_with("<163>1 2026-11-23T12:00:00.123456Z web1.dub.example.org egresswatch 4242 finding "
                         "[egresswatch@32473 "));
    Json odd = sample_record();
    odd["host"] = "web 1\n\xC3\xA9";
    odd.erase("time");
    odd["level"] = "critical";
    auto context = context_of(BodyKind::text, 4'000);
    context.facility = 4;
    CHECK(format_message(odd, context).text.starts_with("<34>1 - web?1??? egresswatch 4242 finding ["));
    odd["host"] = "";
    context.host = "";
    CHECK(format_message(odd, context).text.starts_with("<34>1 - - egresswatch"));
}

TEST_CASE("structured data escapes what RFC 5424 says, and control characters", "[outputs]") {
    CHECK(outputs::escape_param("a\"b\\c]d") == "a\\\"b\\\\c\\]d");
    CHECK(outputs::escape_param("a\nb\x7f") == "a\\\\x0ab\\\\x7f");
    CHECK(outputs::escape_param("[=\xC3\xA9") == "[=\xC3\xA9");
    auto finding = sample_finding();
    finding.rule_id = "odd\"]\\\nrule";
    const auto text = format_message(sample_record(finding), context_of(BodyKind::ecs, 4'000)).text;
    CHECK(text.find(" rule=\"odd\\\"\\]\\\\\\\\x0arule\" ") != std::string::npos);
    CHECK(text.find('\n') == std::string::npos);
}

TEST_CASE("a text body beyond ASCII begins with a byte order mark, an ECS body never does", "[outputs]") {
    auto finding = sample_finding();
    const std::string bom = "\xEF\xBB\xBF";
    const auto bom_at = [&](BodyKind kind, std::size_t limit) {
        return format_message(sample_record(finding), context_of(kind, limit)).text.find(bom);
    };
    CHECK(bom_at(BodyKind::text, 4'000) == std::string::npos);
    finding.title = "Overf\xC3\xB8ring ut av regionen";
    const auto text = format_message(sample_record(finding), context_of(BodyKind::text, 4'000)).text;
    CHECK(body_of(text).starts_with(bom + "HIGH "));
    CHECK(text.find("Overf\xC3\xB8ring") != std::string::npos);
    CHECK(bom_at(BodyKind::ecs, 4'000) == std::string::npos);
    // A cut never splits a character.
    finding.title = std::string(200, 'x');
    finding.rule_id.clear();
    for (int i = 0; i < 400; ++i) finding.rule_id += "\xC3\xB8";
    for (std::size_t limit = 600; limit < 700; ++limit) {
        const auto cut = format_message(sample_record(finding), context_of(BodyKind::text, limit)).text;
        REQUIRE(cut.size() <= limit);
        REQUIRE(Json(cut).dump().size() > limit);  // dump() throws on broken UTF-8
    }
}

TEST_CASE("sequenceId wraps as RFC 5424 says, and an unjournaled finding says so", "[outputs]") {
    auto context = context_of(BodyKind::text, 4'000);
    context.sequence_id = 2'147'483'647ULL;
    CHECK(format_message(sample_record(), context).text.find("sequenceId=\"2147483647\"") !=
          std::string::npos);
    context.sequence_id = 2'147'483'648ULL;
    CHECK(format_message(sample_record(), context).text.find("sequenceId=\"1\"") != std::string::npos);
    Json record = records::finding_record(sample_origin(), sample_finding());
    record["unjournaled"] = true;
    const auto text = format_message(record, context).text;
    CHECK(text.find("[egresswatch@32473 seq=\"0\" unjournaled=\"1\" kind=\"finding\"") != std::string::npos);
}

TEST_CASE("every kind of record makes a message", "[outputs]") {
    for (Json record :
         {records::genesis_record(sample_origin(), "o"), records::stop_record(sample_origin(), "signal"),
          records::gap_record(sample_origin(), {}), records::recovery_record(sample_origin(), {}),
          records::policy_record(sample_origin(), {}), records::coverage_record(sample_origin(), {}),
          records::flow_record(sample_origin(), sample_flow("192.0.2.1", "203.0.113.9"), {}, nullptr)}) {
        record["seq"] = 1;
        record["time"] = record["written"] = "2026-11-23T12:00:00.125000000Z";
        CAPTURE(record.dump());
        for (const auto body : {BodyKind::ecs, BodyKind::text}) {
            for (const std::size_t limit : {480, 1'024, 4'000}) {
                const auto message = format_message(record, context_of(body, limit));
                CHECK(message.text.size() <= limit);
                // With the structured data that always goes, 480 bytes are too few for a flow's body.
                CHECK((!message.cut || (record["kind"] == "flow" && limit == 480)));
            }
        }
    }
}
