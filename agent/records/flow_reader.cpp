// agent/records/flow_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/flow_reader.h"

#include <algorithm>

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

}  // namespace egresswatch::records
