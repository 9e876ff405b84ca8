// agent/records/flow_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/flow_reader.h"

#include <algorithm>

#include "classifier/sender.h"

namespace egresswatch::records {

namespace {

std::string text_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

template <typename Number>
Number number_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_number() ? found->get<Number>() : Number{};
}

bool read_address(const Json& object, const char* name, std::uint8_t* into) {
    const auto address = Address::parse(text_of(object, name));
    if (!address) return false;
    std::ranges::copy(address->bytes, into);
    return true;
}

}  // namespace

std::optional<FlowUpdate> read_flow_fields(const Json& flow) {
    if (!flow.is_object()) return std::nullopt;
    FlowUpdate out;
    if (!read_address(flow, "local", out.key.local_addr) ||
        !read_address(flow, "remote", out.key.remote_addr))
        return std::nullopt;
    out.key.local_port = datapath::host16(number_of<std::uint16_t>(flow, "local_port"));
    out.key.remote_port = datapath::host16(number_of<std::uint16_t>(flow, "remote_port"));
    out.key.l4_proto = number_of<std::uint8_t>(flow, "l4_proto");
    for (std::uint8_t kind = 0; kind < datapath::TUNNEL_COUNT; ++kind)
        if (tunnel_name(kind) == text_of(flow, "tunnel")) out.key.tunnel = kind;
    out.total = {number_of<std::uint64_t>(flow, "packets_out"), number_of<std::uint64_t>(flow, "bytes_out"),
                 number_of<std::uint64_t>(flow, "packets_in"), number_of<std::uint64_t>(flow, "bytes_in")};
    for (const auto initiator : {datapath::INITIATOR_LOCAL, datapath::INITIATOR_REMOTE})
        if (initiator_name(initiator) == text_of(flow, "initiator")) out.initiator = initiator;
    const auto sure = flow.find("initiator_sure");
    out.initiator_sure = sure != flow.end() && sure->is_boolean() && sure->get<bool>();
    out.outer_local = Address::parse(text_of(flow, "outer_local")).value_or(Address{});
    out.outer_remote = Address::parse(text_of(flow, "outer_remote")).value_or(Address{});
    out.first_seen = parse_time(text_of(flow, "first_seen")).value_or(Timestamp{});
    out.last_seen = parse_time(text_of(flow, "last_seen")).value_or(Timestamp{});
    out.tcp_flags_out = number_of<std::uint8_t>(flow, "tcp_flags_out");
    out.tcp_flags_in = number_of<std::uint8_t>(flow, "tcp_flags_in");
    out.handshake_rtt_us = number_of<std::uint32_t>(flow, "handshake_rtt_us");
    out.ifindex = number_of<std::uint32_t>(flow, "ifindex");
    return out;
}

rules::OwnedFacts read_flow_facts(const Json& record) {
    static const Json nothing = Json::object();
    const auto object = [&](const char* name) -> const Json& {
        const auto found = record.find(name);
        return found != record.end() && found->is_object() ? *found : nothing;
    };
    rules::OwnedFacts out;
    const Json& flow = object("flow");
    const std::string source = text_of(flow, "name_source"), name = text_of(flow, "name");
    if (source == "sni") out.sni = name;
    if (source == "http") out.http_host = name;
    if (source == "dns") out.dns.push_back(name);
    for (const auto& [member, names] :
         {std::pair{"dns_names", &out.dns}, std::pair{"dns_names_unlisted", &out.dns_unlisted}})
        if (const auto answered = flow.find(member); answered != flow.end() && answered->is_array())
            for (const Json& one : *answered)
                if (one.is_string()) names->push_back(one.get<std::string>());
    out.app = text_of(flow, "app");
    out.contradiction = flow.contains("name_contradiction");
    out.unread = flow.contains("name_unread");
    if (const auto tls = flow.find("tls"); tls != flow.end() && tls->is_object())
        out.hidden = text_of(*tls, "hidden") == "ech" ? 1 : text_of(*tls, "hidden") == "esni" ? 2 : 0;
    const Json& process = object("process");
    out.executable = text_of(process, "executable");
    out.sha256 = text_of(process, "sha256");
    out.user = text_of(process, "user");
    out.cgroup = text_of(process, "cgroup");
    out.unit = text_of(process, "unit");
    out.container = text_of(process, "container");
    if (const auto uid = process.find("uid"); uid != process.end() && uid->is_number())
        out.uid = uid->get<std::uint32_t>();
    const Json& sender = object("sender");
    if (const auto origin = sender.find("came_by"); origin != sender.end() && origin->is_object()) {
        out.cgroup = text_of(*origin, "cgroup");
        out.unit = text_of(*origin, "unit");
        out.container = text_of(*origin, "container");
    }
    const std::string known = text_of(sender, "known");
    for (std::uint8_t outcome = 0; outcome < datapath::SENDER_OUTCOME_COUNT; ++outcome)
        if (known == sender_outcome_name(outcome)) out.sender = outcome;
    return out;
}

}  // namespace egresswatch::records
