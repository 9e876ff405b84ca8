// rules/rule_test_schema.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/rule_test_schema.h"

#include <array>

#include "rules/field_rows.h"

namespace egresswatch::rules {

namespace schema {

namespace {

using enum Form;
using enum Need;

constexpr std::array<std::string_view, 1> language_words{"egresswatch-tests/v1"};
constexpr std::array<std::string_view, 3> initiator_words{"local", "remote", "unknown"};
constexpr std::array<std::string_view, 9> tunnel_words{"none",  "ipip",   "6in4", "gre",   "erspan",
                                                       "vxlan", "geneve", "gtpu", "teredo"};

constexpr std::array<Key, 3> rule_tests_keys{{
    {"tests", word, required, "The language of this file.", language_words},
    {"policy", text_list, optional,
     "Policy files and directories under test, relative to this file. Default: the directory of this file."},
    {"cases", mapping_list, required, "Each runs alone, from empty windows.", {}, &rule_case},
}};
constexpr std::array<Key, 7> rule_case_keys{{
    {"name", text, required, "What the case shows, as a sentence."},
    {"start", expiry, optional,
     "The packet time of 0s, a day (its first instant, UTC) or an instant. Default: 2026-03-02, a Monday."},
    {"site", text, optional, "Site of the host, one of the policy's. Default: none is known."},
    {"rules", text_list, optional,
     "Rules whose findings are looked at; also egresswatch/allow-ceiling and its like. Default: all of the "
     "policy."},
    {"flows", mapping_list, required, "What the host sees.", {}, &test_flow},
    {"expect",
     mapping_list,
     required,
     "Every finding that is to come, and no other: an empty list, [], asserts silence.",
     {},
     &expected_finding},
    {"until", duration, optional, "How far time goes on. Default: to the last update of a flow."},
}};
constexpr std::array<Key, 36> test_flow_keys{{
    {"at", duration, required, "When its first packet is seen, from `start` on."},
    {"remote", cidr_list, required,
     "The remote address. Repetitions go through the addresses of a prefix, and through a list."},
    {"country",
     country_list,
     required,
     "What the geo data say about it, or unknown.",
     {},
     nullptr,
     Source::given,
     true},
    {"disputed", boolean, optional, "true: the geo sources disagree about the country."},
    {"asn", asn_list, optional,
     "AS number of the remote address. Repetitions go through a list. Default: unknown."},
    {"interface", text, optional, "The interface that it passes. Default: unknown."},
    {"port", port_list, optional, "The remote port. Repetitions go through a range. Default: 443/tcp."},
    {"local_port", integer, optional, "Default: another one for each repetition, from 49152 on."},
    {"l4_proto", protocol_list, optional, "Where there are no ports, as in icmp."},
    {"local", cidr_list, optional, "The local address. Default: 10.0.0.5."},
    {"initiator", word, optional, "Which end connects. Default: local.", initiator_words},
    {"tunnel", word, optional, "What carries it. Default: none.", tunnel_words},
    {"outer_remote", cidr_list, optional, "Address of the tunnel's far end."},
    {"outer_country",
     country_list,
     optional,
     "And its country. Default: unknown.",
     {},
     nullptr,
     Source::given,
     true},
    {"dns", domain_list, optional, "Names that DNS answers gave the remote address."},
    {"sni", domain_list, optional, "The name that its TLS or QUIC handshake asks for."},
    {"hidden", word, optional, "What its ClientHello hides the name with. Default: none.",
     rows::hidden_words},
    {"http_host", domain_list, optional, "The host of its HTTP request."},
    {"app", text, optional,
     "Application protocol, as in tls. Default: tls with `sni`, http with `http_host`."},
    {"asks", domain_list, optional,
     "Names that it asks of a DNS server as it begins. `*.` stands for a label of 32 letters and digits, "
     "another one "
     "each time."},
    {"executable", path_list, optional, "The executable of its sender."},
    {"sha256", hash_list, optional, "SHA-256 of that."},
    {"user", text, optional, "The sender's user."},
    {"uid", count, optional, "And the user's id."},
    {"cgroup", text, optional, "The sender's control group."},
    {"unit", text, optional, "The sender's systemd unit."},
    {"container", text, optional, "The sender's container id."},
    {"sender", word, optional,
     "What is known of the sender. Default: process where the keys above say something of it, else nothing.",
     rows::sender_words},
    {"bytes_out", size, optional, "What leaves in all, with a unit. Default: 0 B."},
    {"bytes_in", size, optional, "What comes in. Default: 0 B."},
    {"packets_out", integer, optional, "Default: one for each 1400 bytes begun."},
    {"packets_in", integer, optional, "Default: one for each 1400 bytes begun."},
    {"lasts", duration, optional, "Its volume is spread evenly over this time. Default: 0s, all at once."},
    {"step", duration, optional, "How often it gives news of itself while it lasts. Default: 10s."},
    {"times", integer, optional, "How often it is repeated, each time as a new connection. Default: 1."},
    {"every", duration, optional, "The time from one repetition to the next. Default: 0s."},
}};
constexpr std::array<Key, 14> expected_finding_keys{{
    {"at", duration, required, "When it comes, to the second, from `start` on."},
    {"rule", text, required,
     "Which rule finds it; also egresswatch/allow-ceiling, -expires, -expired, "
     "egresswatch/name-contradiction."},
    {"level", Form::level, optional, "low, medium, high or critical."},
    {"remote", cidr_list, optional, "The remote address of the flow that filled the window."},
    {"remote_prefix", cidr_list, optional, "The value of that field of its group."},
    {"country",
     country_list,
     optional,
     "The country of the flow, or unknown.",
     {},
     nullptr,
     Source::given,
     true},
    {"port", text, optional, "The value of that field of its group, as for the four below."},
    {"asn", text, optional, "As in 64500."},
    {"executable", text, optional, "As in /usr/bin/restic."},
    {"registered_domain", text, optional, "As in example.org."},
    {"allow", text, optional, "The allow entry that it is about."},
    {"value", size, optional, "What the window held: bytes with a unit, numbers without."},
    {"flows", count, optional, "How many flows were counted in the window."},
    {"suppressed", count, optional, "How often it had filled again since the finding before."},
}};

}  // namespace

const Mapping rule_tests{"test file", "Top of a file", rule_tests_keys};
const Mapping rule_case{"case", "cases", rule_case_keys};
const Mapping test_flow{"flow", "cases: flows", test_flow_keys};
const Mapping expected_finding{"expected finding", "cases: expect", expected_finding_keys};

}  // namespace schema

std::string rule_test_manual_tables() {
    constexpr std::array tables{&schema::rule_tests, &schema::rule_case, &schema::test_flow,
                                &schema::expected_finding};
    return manual_tables_of(tables);
}

}  // namespace egresswatch::rules
