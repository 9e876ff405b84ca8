// tests/unit/rules/condition_test.cpp - what each field is compared by, and what unknown does to it.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "rules/field_table.h"
#include "rules/matcher.h"
#include "tests/unit/rules/support.h"

using namespace egresswatch;
using namespace egresswatch::rules;

namespace {

// A flow with everything known, and one rule that fires at the first byte where `when` holds.
struct Case {
    FlowOf flow = FlowOf("198.51.100.9").out(1000, 4).seen(at(0));
    FlowFacts facts;
    std::string country = "US";
    bool disputed = false;
    Evaluator::Host host{"hamar", [](const Address& address) { return address.is_ipv4() ? 64500u : 0u; },
                         [](std::uint32_t ifindex) { return ifindex == 3 ? "eth3" : std::string(); }};

    Case() { flow.update.ifindex = 3; }

    [[nodiscard]] bool fires(const std::string& when) const {
        const auto in_force = policy(
            "sites:\n  dublin: {country: IE, timezone: Europe/Dublin}\n"
            "  hamar: {country: NO, timezone: Europe/Oslo}\n"
            "lists:\n  banks: {cidr: 203.0.113.0/24}\n  mirrors: {domain: \"*.example.org\", asn: 64501}\n"
            "allow:\n  - {id: a, to: {list: [banks, mirrors]}, owner: o, reason: r, expires: 2030-01-01}\n"
            "rules:\n  - id: r\n    title: t\n    level: low\n    when: {" +
            when + "}\n    window: {sum: bytes_out, over: 1h, by: [], at_least: 1 B}\n");
        Evaluator evaluator(in_force, {}, host);
        std::vector<Finding> findings;
        ClassInfo info = class_of(*in_force, flow.update.remote().to_string(), country);
        info.disputed = disputed;
        evaluator.evaluate(flow.update, info, flow.update.last_seen, findings, facts);
        return !findings.empty();
    }
};

// Holds, and its neighbour does not.
void pair(const Case& flow, const std::string& holds, const std::string& fails) {
    INFO(holds << " / " << fails);
    CHECK(flow.fires(holds));
    CHECK(!flow.fires(fails));
}

}  // namespace

TEST_CASE("every field of a flow selects it by its values and leaves its neighbour out",
          "[rules][condition]") {
    Case flow;
    pair(flow, "site: hamar", "site: dublin");
    pair(flow, "interface: eth3", "interface: eth4");
    pair(flow, "interface: \"re:eth[0-9]\"", "interface: \"re:eth\"");
    pair(flow, "region: outside", "region: home");
    pair(flow, "class: [outside, multicast]", "class: [local, home, unknown]");
    pair(flow, "country: [CN, US]", "country: CN");
    pair(flow, "asn: 64500", "asn: [64499, AS64501]");
    pair(flow, "remote: 198.51.100.0/24", "remote: [198.51.101.0/24, \"2001:db8::/32\"]");
    pair(flow, "disputed: false", "disputed: true");
    pair(flow, "port: 443/tcp", "port: 443/udp");
    pair(flow, "local_port: 49152", "local_port: 443");
    pair(flow, "l4_proto: [tcp, udp]", "l4_proto: udp");
    pair(flow, "initiator: local", "initiator: remote");
    pair(flow, "tunnel: none", "tunnel: any");
    pair(flow, "allowed: false", "allowed: true");
    pair(flow, "hidden: none", "hidden: [ech, esni]");
    flow.facts.hidden = 1;  // inspect::HiddenName::ech
    pair(flow, "hidden: [ech, esni]", "hidden: [none, esni]");
    flow.facts.hidden = 0;
    pair(flow, "bytes_out: \">= 1 kB\"", "bytes_out: \">= 1001 B\"");
    pair(flow, "bytes_out: \"<= 1 kB\"", "bytes_out: \"<= 999 B\"");
    pair(flow, "bytes_in: \"<= 0 B\"", "bytes_in: \">= 1 B\"");
    pair(flow, "packets_out: \"4..5\"", "packets_out: \"5..6\"");
    pair(flow, "packets_in: \"<= 0\"", "packets_in: \">= 1\"");
    flow.flow.update.first_seen = at(-10);
    pair(flow, "duration: \"10s..1m\"", "duration: \">= 11s\"");
    pair(flow, "rate_out: \">= 100 B/s\"", "rate_out: \">= 101 B/s\"");
    pair(flow, "rate_in: \"<= 1 B/s\"", "rate_in: \">= 1 B/s\"");
    pair(flow, "first_seen: \"<= 2026-03-01\"", "first_seen: \">= 2026-03-02\"");
}

TEST_CASE("what the bits of a flow say of a condition is what the whole condition says",
          "[rules][condition]") {
    const std::array whens{"region: outside, allowed: false",
                           "l4_proto: udp",
                           "l4_proto: [tcp, 132]",
                           "l4_proto: [1, 58]",
                           "port: 53/udp",
                           "port: [53/udp, 443/tcp]",
                           "port: 443",
                           "port: unknown",
                           "port: [unknown, 53/udp]",
                           "tunnel: any, initiator: remote",
                           "tunnel: [gre, vxlan]",
                           "initiator: [local, unknown]",
                           "country: unknown, allowed: true",
                           "country: [US, unknown]",
                           "class: [outside, unknown], l4_proto: tcp",
                           "l4_proto: 47, tunnel: none",
                           "local_port: 53/udp",
                           "any: [{l4_proto: udp}, {tunnel: gre}]",
                           "bytes_out: \">= 1 B\", l4_proto: tcp"};
    std::string text = "rules:\n";
    for (std::size_t i = 0; i < whens.size(); ++i)
        text += "  - {id: r" + std::to_string(i) + ", title: t, level: low, when: {" + whens[i] +
                "}, window: {sum: bytes_out, over: 1h, by: [], at_least: 1 B}}\n";
    const auto in_force = policy(text);
    REQUIRE(in_force->rules.size() == whens.size());
    const Surroundings around{};
    const FlowFacts facts;
    std::size_t holding = 0, by_bits_alone = 0, excluded = 0;
    const auto compare = [&](const Rule& rule, const Subject& flow) {
        INFO(rule.when.predicates.size()
             << " predicates of " << rule.id << ", protocol " << int{flow.flow.key.l4_proto} << ", port "
             << flow.flow.remote_port());
        const bool holds = match(rule.when, flow, Purpose::rule) == Truth::yes;
        holding += holds ? 1 : 0;
        if (!possible(rule.when, flow.info, {}, Purpose::rule)) {
            CHECK_FALSE(holds);
            return;
        }
        const Residue left = residue(rule.when, flow.info, {}, Purpose::rule);
        const bool fits = (flow.bits & ~left.bits) == 0;
        excluded += fits ? 0 : 1;
        if (!fits) CHECK_FALSE(holds);
        if (!fits || !left.decided) return;
        ++by_bits_alone;
        CHECK(holds);
    };
    for (const char* country : {"US", "IE", ""})
        for (const std::uint8_t l4_proto : std::array<std::uint8_t, 9>{0, 1, 6, 17, 33, 47, 58, 132, 136})
            for (const std::uint16_t port : std::array<std::uint16_t, 3>{0, 53, 443})
                for (const std::uint8_t tunnel : std::array<std::uint8_t, 3>{0, 3, 5})
                    for (const auto initiator :
                         {datapath::INITIATOR_UNKNOWN, datapath::INITIATOR_LOCAL, datapath::INITIATOR_REMOTE})
                        for (const bool allowed : {false, true}) {
                            FlowOf flow = FlowOf("198.51.100.9", port, l4_proto).out(10).seen(at(0));
                            flow.update.key.tunnel = tunnel;
                            flow.update.initiator = initiator;
                            const ClassInfo info = class_of(*in_force, "198.51.100.9", country);
                            Subject subject(flow.update, info, facts, at(0), in_force->prefix_index(), 0,
                                            around, flow_bits(flow.update));
                            subject.set_allowed(allowed);
                            for (const Rule& rule : in_force->rules) compare(rule, subject);
                        }
    CHECK(holding > 1000);
    CHECK(by_bits_alone > 1000);
    CHECK(excluded > 1000);
}

TEST_CASE("the time of day and the weekday are those of the site, summer and winter", "[rules][condition]") {
    Case flow;
    // Monday, 2 March 2026, midnight UTC: 01:00 in Hamar.
    pair(flow, "time_of_day: 01:00-01:01", "time_of_day: 00:00-01:00");
    pair(flow, "time_of_day: 22:00-06:00", "time_of_day: [06:00-22:00, 22:00-01:00]");
    pair(flow, "weekday: [mon, fri]", "weekday: sun");
    flow.host.site = "dublin";
    pair(flow, "time_of_day: 00:00-01:00", "time_of_day: 01:00-24:00");
    flow.host.site = "";
    pair(flow, "time_of_day: 00:00-00:01", "time_of_day: 00:01-24:00");
    // Summer time began at 01:00 UTC of 29 March 2026: what was 01:59 is followed by 03:00.
    flow.host.site = "hamar";
    const Timestamp change{std::chrono::sys_days(std::chrono::year{2026} / 3 / 29) + std::chrono::hours(1)};
    flow.flow.seen(change - std::chrono::nanoseconds(1));
    pair(flow, "time_of_day: 01:59-02:00", "time_of_day: 02:00-03:01");
    flow.flow.seen(change);
    pair(flow, "time_of_day: 03:00-03:01", "time_of_day: 02:00-03:00");
    pair(flow, "weekday: sun", "weekday: mon");
}

TEST_CASE("*.example.org is every name below example.org and not example.org itself", "[rules][condition]") {
    Case flow;
    const auto of = [&](std::string_view name) {
        flow.facts.sni = name;
        return flow;
    };
    CHECK(of("a.example.org").fires("sni: \"*.example.org\""));
    CHECK(of("a.b.example.org").fires("sni: \"*.example.org\""));
    CHECK(!of("example.org").fires("sni: \"*.example.org\""));
    CHECK(!of("badexample.org").fires("sni: \"*.example.org\""));
    CHECK(of("example.org").fires("sni: [example.org, \"*.example.org\"]"));
    CHECK(!of("a.example.org").fires("sni: example.org"));
    CHECK(of("x7f3.example.net").fires("sni: 're:x[0-9a-f]+\\.example\\.net'"));
    CHECK(!of("ax7f3.example.net").fires("sni: 're:x[0-9a-f]+\\.example\\.net'"));  // the whole name
    CHECK(of("a.example.org").fires("domain: \"*.example.org\""));
    CHECK(!of("a.example.org").fires("dns: \"*.example.org\""));
}

TEST_CASE("a field without its source is unknown: it selects nothing, and `unknown` selects it",
          "[rules][condition]") {
    Case flow;
    for (const char* field : {"domain", "dns", "sni", "http_host", "app", "executable", "user", "uid",
                              "cgroup", "unit", "container", "sha256"}) {
        INFO(field);
        const std::string value = std::string(field) == "executable" ? "/bin/sh"
                                  : std::string(field) == "uid"      ? "0"
                                  : std::string(field) == "sha256"   ? std::string(64, 'a')
                                                                     : "name.example";
        CHECK(flow.fires(std::string(field) + ": unknown"));
        CHECK(!flow.fires(std::string(field) + ": " + value));
        // Not of unknown is unknown, not yes.
        CHECK(!flow.fires("not: {" + std::string(field) + ": " + value + "}"));
        CHECK(flow.fires("any: [{" + std::string(field) + ": " + value + "}, {country: US}]"));
    }
    flow.facts.executable = "/usr/bin/restic";
    flow.facts.uid = 0;
    flow.facts.unit = "backup.service";
    pair(flow, "executable: /usr/bin/restic", "executable: [/usr/bin/borg, unknown]");
    pair(flow, "executable: 're:/usr/bin/.*'", "executable: 're:/bin/.*'");
    pair(flow, "uid: [0, 100]", "uid: 100");
    pair(flow, "unit: 're:backup.*'", "unit: unknown");
    flow.host.asn_of = nullptr;
    pair(flow, "asn: unknown", "asn: 64500");
    flow.host.interface_name = nullptr;
    pair(flow, "interface: unknown", "interface: eth3");
    flow.flow.update.initiator = datapath::INITIATOR_UNKNOWN;
    pair(flow, "initiator: unknown", "initiator: [local, remote]");
    flow.country = "";
    pair(flow, "country: unknown", "not: {country: US}");
}

TEST_CASE("all, any and not nest", "[rules][condition]") {
    const Case flow;
    pair(flow, "all: [{country: US}, {port: 443/tcp}]", "all: [{country: US}, {port: 80/tcp}]");
    pair(flow, "any: [{country: CN}, {port: 443/tcp}]", "any: [{country: CN}, {port: 80/tcp}]");
    pair(flow, "not: {country: CN}", "not: {country: US}");
    pair(flow, "not: {any: [{country: CN}, {all: [{country: US}, {port: 80}]}]}",
         "not: {any: [{country: CN}, {all: [{country: US}, {port: 443}]}]}");
    pair(flow, "region: outside, any: [{allowed: true}, {port: 443}]",
         "region: outside, any: [{allowed: true}]");
    // What a class cannot match is left out of its plan, through nesting too.
    pair(flow, "any: [{region: home}, {remote: 198.51.100.9}]",
         "any: [{region: home}, {remote: 198.51.100.8}]");
    pair(flow, "not: {list: banks}", "list: banks");
}

TEST_CASE(
    "an allow entry for a domain: what the sender says decides, then DNS, and nothing where they differ",
    "[rules][condition]") {
    Case flow;
    flow.host.asn_of = nullptr;
    CHECK(flow.fires("allowed: false"));  // no name yet
    const std::array<std::string_view, 1> answered{"a.example.org"};
    flow.facts.dns = answered;
    CHECK(flow.fires("allowed: true"));  // from the first byte on
    flow.facts.sni = "a.example.org";
    CHECK(flow.fires("allowed: true"));
    flow.facts.sni = "other.example.com";  // another tenant of the same address
    flow.facts.contradiction = true;
    CHECK(flow.fires("allowed: false"));
    flow.facts.dns = {};
    flow.facts.contradiction = false;
    CHECK(flow.fires("allowed: false"));
    flow.facts.sni = "a.example.org";  // DNS was not seen: the ClientHello decides
    CHECK(flow.fires("allowed: true"));
    const std::array<std::string_view, 1> elsewhere{"evil.example.net"};
    flow.facts.dns = elsewhere;  // an allowed name, said to an address that is another's
    flow.facts.contradiction = true;
    CHECK(flow.fires("allowed: false"));
    flow.facts.dns = {};
    flow.facts.contradiction = false;
    flow.facts.names_local = true;  // the remote end connected: it said a name of ours
    CHECK(flow.fires("allowed: false"));
    CHECK(flow.fires("sni: a.example.org"));
    CHECK(!flow.fires("domain: a.example.org"));
    flow.facts = {};
    flow.host.asn_of = [](const Address&) { return 64501u; };  // the other value of the list
    CHECK(flow.fires("allowed: true"));
}

TEST_CASE("an entry of one site allows on that site and nowhere else", "[rules][condition]") {
    const auto in_force = policy(
        "sites: {dublin: {country: IE}, hamar: {country: NO}}\n"
        "allow:\n  - {id: a, to: {country: US}, when: {site: hamar}, owner: o, reason: r, expires: "
        "2030-01-01}\n");
    const auto allows = [&](std::string site) {
        const FlowOf flow("198.51.100.9");
        return Evaluator(in_force, {}, {std::move(site), {}, {}})
            .decide(flow.update, class_of(*in_force, "198.51.100.9", "US"), at(0))
            .allowed;
    };
    CHECK(allows("hamar"));
    CHECK(!allows("dublin"));
    CHECK(!allows(""));
}

TEST_CASE("every field is documented once and every key of a condition is a field", "[rules][schema]") {
    for (const FieldInfo& field : all_fields()) {
        INFO(field.name);
        CHECK(find_field(field.name) == &field);
        CHECK(field.doc.ends_with('.'));
        CHECK((field.since == "1.0" || field.since == "1.1"));
        CHECK((schema::when.find(field.name) != nullptr) == ((field.uses & USE_SELECT) != 0));
        CHECK(operators_of(field).empty() == ((field.uses & USE_SELECT) == 0));
    }
    for (const Key& key : schema::match.keys)
        CHECK(
            (find_field(key.name) != nullptr || key.name == "all" || key.name == "any" || key.name == "not"));
    CHECK(schema::match.find("allowed") == nullptr);
}
