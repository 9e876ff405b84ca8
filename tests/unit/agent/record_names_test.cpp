// tests/unit/agent/record_names_test.cpp - what records hold of names, by what is to be shown of them.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/body.h"
#include "agent/records/ecs.h"
#include "agent/records/flow_reader.h"
#include "agent/records/names.h"
#include "classifier/inspect/inspection.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::testing;
using records::Json;
using records::NamePrivacy;
using records::ShownNames;

struct Known {
    inspect::KeptFacts facts;
    inspect::FlowNames names;

    Known() {
        facts.name_source = inspect::NameSource::sni;
        facts.tls_version = 0x0304;
        facts.name = "a.b.example.co.uk";
        facts.alpn = "h2";
        facts.ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
        names.protocol = inspect::Protocol::tls;
        names.source = inspect::NameSource::sni;
        names.name = facts.name;
        names.contradiction = true;
        names.answered.name = {"theirs.example.com", "www.example.org"};
        names.answered.count = 2;
        names.answered.unlisted = 1;
        names.facts = &facts;
    }
    [[nodiscard]] Json record(const NamePrivacy& privacy) const {
        Json out = records::finding_record(sample_origin(), sample_finding());
        records::name_record(out, &names, privacy);
        return out;
    }
};

}  // namespace

TEST_CASE("a record has the names of its flow, and so has its ECS document", "[records][names]") {
    const Json record = Known().record({});
    const Json& flow = record["flow"];
    CHECK(flow["name"] == "a.b.example.co.uk");
    CHECK(flow["name_source"] == "sni");
    CHECK(flow["app"] == "tls");
    CHECK(flow["name_contradiction"] == true);
    CHECK(flow["dns_names"] == Json::array({"www.example.org"}));
    CHECK(flow["dns_names_unlisted"] == Json::array({"theirs.example.com"}));
    CHECK(flow["tls"] ==
          Json({{"version", "1.3"}, {"alpn", "h2"}, {"ja4", "t13d1516h2_8daaf6152771_e5627efa2ab1"}}));
    CHECK_FALSE(flow.contains("http"));
    const Json document = records::ecs_document(record);
    CHECK(document["destination"]["domain"] == "a.b.example.co.uk");
    CHECK(document["network"]["protocol"] == "tls");
    CHECK(document["tls"]["client"]["server_name"] == "a.b.example.co.uk");
    CHECK(document["tls"]["version"] == "1.3");
    CHECK(document["egresswatch"]["name_source"] == "sni");
    CHECK(document["egresswatch"]["ja4"] == "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

TEST_CASE("what a record says of names is read again as it was", "[records][names]") {
    Known known;
    for (const bool contradiction : {true, false}) {
        known.names.contradiction = contradiction;
        known.names.unread = !contradiction;
        known.facts.hidden = contradiction ? inspect::HiddenName::ech : inspect::HiddenName::none;
        const rules::OwnedFacts facts = records::read_flow_facts(known.record({}));
        CHECK(facts.sni == "a.b.example.co.uk");
        CHECK(facts.dns == std::vector<std::string>{"www.example.org"});
        CHECK(facts.dns_unlisted == std::vector<std::string>{"theirs.example.com"});
        const rules::FactsView view(facts, false);
        CHECK(view.facts.dns.size() == 2);
        CHECK(view.facts.dns_listed().front() == "www.example.org");
        CHECK(facts.contradiction == contradiction);
        CHECK(facts.unread == !contradiction);
        CHECK(facts.hidden == (contradiction ? 1 : 0));
    }
}

TEST_CASE("that a name could not be read stands in every body", "[records][names]") {
    Known known;
    for (const bool unread : {false, true}) {
        known.names.unread = unread;
        Json record = known.record({});
        record["seq"] = 1;
        record["written"] = record["time"];
        const auto says = [&](const records::Body& body, std::string_view text) {
            INFO(body.text);
            CHECK((body.text.find(text) != std::string::npos) == unread);
        };
        says(records::fit_body(records::BodyKind::ecs, record, 65536), "\"name_unread\":true");
        says(records::fit_body(records::BodyKind::ocsf, record, 65536), "\"name_unread\":true");
        says(records::fit_body(records::BodyKind::cef, record, 65536),
             "flexNumber1=1 flexNumber1Label=nameUnread");
        says(records::fit_body(records::BodyKind::leef, record, 65536), "^nameUnread=1^");
    }
    const Json document = records::ecs_document(known.record({}));
    CHECK(document["egresswatch"]["dns_names_unlisted"] == Json::array({"theirs.example.com"}));
}

TEST_CASE("names that are not to be shown are nowhere in a record", "[records][names]") {
    const Known known;
    Json record = known.record({ShownNames::registered_domain, ""});
    CHECK(record["flow"]["name"] == "example.co.uk");
    CHECK(record["flow"]["dns_names"] == Json::array({"example.org"}));
    CHECK(record["flow"]["dns_names_unlisted"] == Json::array({"example.com"}));
    record = known.record({ShownNames::hashed, "key"});
    const auto name = record["flow"]["name"].get<std::string>();
    CHECK(name.starts_with("hmac:"));
    CHECK(name.size() == 5 + 16);
    CHECK(known.record({ShownNames::hashed, "key"})["flow"]["name"] == name);
    CHECK(known.record({ShownNames::hashed, "other"})["flow"]["name"] != name);
    CHECK(record.dump().find("example.co.uk") == std::string::npos);
    CHECK(record["decision"]["reason"].get<std::string>().starts_with("not told"));
    record = known.record({ShownNames::none, ""});
    CHECK(record["flow"]["name"].is_null());
    CHECK(record["flow"]["name_source"].is_null());
    CHECK_FALSE(record["flow"].contains("dns_names"));
    CHECK_FALSE(record["flow"].contains("dns_names_unlisted"));
    CHECK(record["flow"]["app"] == "tls");
    CHECK(record.dump().find("example.co.uk") == std::string::npos);
}

TEST_CASE("a hash of a name is the first 64 bits of HMAC-SHA-256", "[records][names]") {
    // printf a.example.org | openssl dgst -sha256 -hmac key
    CHECK(NamePrivacy{ShownNames::hashed, "key"}.of("a.example.org") == "hmac:17a51d982670882d");
}

TEST_CASE("what a remote client says is a name of this host", "[records][names]") {
    Known known;
    known.names.names_local = true;
    known.names.source = inspect::NameSource::dns;
    known.names.name = "www.example.org";
    const Json record = known.record({});
    CHECK(record["flow"]["name"] == "www.example.org");
    CHECK(record["flow"]["tls"]["server_name"] == "a.b.example.co.uk");
}
