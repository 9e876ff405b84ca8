// rules/field_rows.h - the rows of field_table.h, as constants that the tables of keys are made from.
// Internal. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "rules/field_table.h"

namespace egresswatch::rules::rows {

using enum Form;
using enum Source;

inline constexpr std::array<std::string_view, 2> initiator_words{"local", "remote"};
inline constexpr std::array<std::string_view, 10> tunnel_words{"none",   "any",   "ipip",   "6in4", "gre",
                                                               "erspan", "vxlan", "geneve", "gtpu", "teredo"};
inline constexpr std::array<std::string_view, 9> class_words{
    "outside", "unknown", "home", "local", "host", "link", "private", "multicast", "unspecified"};
inline constexpr std::array<std::string_view, 7> weekday_words{"mon", "tue", "wed", "thu",
                                                               "fri", "sat", "sun"};

// In the order of enum HiddenName.
inline constexpr std::array<std::string_view, 3> hidden_words{"none", "ech", "esni"};

// In the order of enum sender_outcome, without its first.
inline constexpr std::array<std::string_view, 8> sender_words{
    "process", "routed", "kernel", "handshake", "no-socket", "older", "packet-socket", "daemon-away"};

inline constexpr std::uint8_t select = USE_SELECT, group = USE_GROUP, distinct = USE_DISTINCT;

inline constexpr std::array fields{
    FieldInfo{
        Field::site, "site", id_list, select, given, true, false, "1.1",
        "Sites whose hosts it applies to: the `site` of egresswatch.yaml. Every other host leaves it out."},
    FieldInfo{Field::interface, "interface", text_list, select, given, true, true, "1.1",
              "Names of the interface of the flow's first packet; unknown for capture files."},
    FieldInfo{Field::region, "region", id_list, select, given, false, false, "1.0",
              "outside, home, unknown, local, or a region's name."},
    FieldInfo{Field::address_class, "class", word_list, select, given, false, false, "1.1",
              "Class of the remote address; of the local ones also which: host, link, private, multicast, "
              "unspecified.",
              class_words},
    FieldInfo{Field::country, "country", country_list, select | group | distinct, given, true, false, "1.0",
              "Countries of the remote address, or unknown."},
    FieldInfo{Field::asn, "asn", asn_list, select | group | distinct, asn_data, true, false, "1.0",
              "AS numbers of the remote address."},
    FieldInfo{Field::list, "list", id_list, select, given, false, false, "1.0",
              "Lists that contain the remote end."},
    FieldInfo{Field::disputed, "disputed", boolean, select, given, false, false, "1.1",
              "Whether the loaded geo sources name different countries for the remote address."},
    FieldInfo{Field::remote, "remote", cidr_list, select | group | distinct, given, false, false, "1.0",
              "Remote prefixes; in `by` the remote address."},
    FieldInfo{Field::remote_prefix, "remote_prefix", cidr_list, group | distinct, given, false, false, "1.0",
              "Network of the remote address: /24 of IPv4, /48 of IPv6."},
    FieldInfo{Field::port, "port", port_list, select | group | distinct, given, true, false, "1.0",
              "Remote ports, as in 443/tcp; unknown: of a fragment."},
    FieldInfo{Field::local_port, "local_port", port_list, select | group | distinct, given, true, false,
              "1.0", "Local ports."},
    FieldInfo{Field::l4_proto, "l4_proto", protocol_list, select | group, given, false, false, "1.0",
              "Transport protocols, by name or IANA number."},
    FieldInfo{Field::initiator, "initiator", word_list, select, given, true, false, "1.0",
              "Which end connected.", initiator_words},
    FieldInfo{Field::tunnel, "tunnel", word_list, select, given, false, false, "1.0",
              "What carried the flow.", tunnel_words},
    FieldInfo{Field::allowed, "allowed", boolean, select, given, false, false, "1.0",
              "Whether an allow entry covers the flow."},
    FieldInfo{
        Field::domain, "domain", domain_list, select, names, true, true, "1.0",
        "Names of the remote end, from DNS answers, TLS, QUIC or HTTP. In an allow entry what the sender "
        "says decides, then DNS answers; and nothing where they contradict each other."},
    FieldInfo{Field::dns, "dns", domain_list, select, names, true, true, "1.1",
              "Names that a DNS answer gave the remote address."},
    FieldInfo{Field::sni, "sni", domain_list, select, names, true, true, "1.1",
              "Server name of a TLS or QUIC handshake."},
    FieldInfo{Field::http_host, "http_host", domain_list, select, names, true, true, "1.1",
              "Host of an HTTP request."},
    FieldInfo{
        Field::hidden, "hidden", word_list, select, names, false, false, "1.1",
        "Whether the ClientHello hides whom it is for: ech (or GREASE, which looks the same), esni, or none. "
        "What it shows is then a front that the sender may choose: no allow entry by domain holds for such "
        "a flow unless its `when` says which of these it takes.",
        hidden_words},
    FieldInfo{Field::app, "app", text_list, select | group, names, true, false, "1.1",
              "Application protocols, as in tls, http, dns, ssh."},
    FieldInfo{Field::executable, "executable", path_list, select | group | distinct, process, true, true,
              "1.0", "Executables of the sender."},
    FieldInfo{Field::sha256, "sha256", hash_list, select | group, process, true, false, "1.1",
              "SHA-256 of the sender's executable, 64 hex digits."},
    FieldInfo{Field::user, "user", text_list, select | group, process, true, true, "1.0",
              "Users of the sender."},
    FieldInfo{Field::uid, "uid", number_list, select | group, process, true, false, "1.1",
              "User ids of the sender."},
    FieldInfo{Field::cgroup, "cgroup", text_list, select | group, process, true, true, "1.1",
              "Control groups of the sender, as paths below the root of cgroup v2."},
    FieldInfo{Field::unit, "unit", text_list, select | group, process, true, true, "1.0",
              "Systemd units of the sender."},
    FieldInfo{Field::container, "container", text_list, select | group, process, true, true, "1.0",
              "Container ids of the sender."},
    FieldInfo{
        Field::sender, "sender", word_list, select | group, process, true, false, "1.1",
        "Whether a process of this host is known to send, or why none is: routed (a guest, a container or "
        "another host), kernel, handshake, no-socket, older (than the daemon), packet-socket, daemon-away; "
        "unknown where nobody looks.",
        sender_words},
    FieldInfo{Field::bytes_out, "bytes_out", size_range, select, given, false, false, "1.1",
              "Bytes that the flow has sent so far."},
    FieldInfo{Field::bytes_in, "bytes_in", size_range, select, given, false, false, "1.1",
              "Bytes that the flow has received so far."},
    FieldInfo{Field::packets_out, "packets_out", count_range, select, given, false, false, "1.1",
              "Packets that the flow has sent so far."},
    FieldInfo{Field::packets_in, "packets_in", count_range, select, given, false, false, "1.1",
              "Packets that the flow has received so far."},
    FieldInfo{Field::duration, "duration", duration_range, select, given, false, false, "1.1",
              "From the flow's first packet to its last so far."},
    FieldInfo{Field::rate_out, "rate_out", rate_range, select, given, false, false, "1.1",
              "Mean bytes a second that the flow sends, over its duration and at least a second."},
    FieldInfo{Field::rate_in, "rate_in", rate_range, select, given, false, false, "1.1",
              "Mean bytes a second that the flow receives, likewise."},
    FieldInfo{Field::first_seen, "first_seen", instant_range, select, given, false, false, "1.1",
              "When the flow began, as in >= 2026-12-01."},
    FieldInfo{Field::time_of_day, "time_of_day", time_of_day_list, select, given, false, false, "1.1",
              "Time of day at the site, as in 20:00-06:00: the end is not in it. By the site's `timezone`, "
              "UTC without one."},
    FieldInfo{Field::weekday, "weekday", word_list, select, given, false, false, "1.1",
              "Days of the week at the site.", weekday_words},
    FieldInfo{Field::name, "name", domain_list, distinct, names, false, false, "1.1",
              "Names asked of a DNS server."},
    FieldInfo{Field::registered_domain, "registered_domain", domain_list, group, names, false, false, "1.1",
              "What somebody registered of a name that was asked for: example.co.uk of a.b.example.co.uk, by "
              "the public suffix list."},
};

consteval std::size_t count_of(std::uint8_t use) {
    std::size_t out = 0;
    for (const FieldInfo& field : fields) out += (field.uses & use) != 0 ? 1 : 0;
    return out;
}

}  // namespace egresswatch::rules::rows
