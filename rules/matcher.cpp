// rules/matcher.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/matcher.h"

#include <algorithm>

#include "rules/values.h"

namespace egresswatch::rules {

namespace {

Truth both(Truth a, Truth b) {
    return std::min(a, b);
}
Truth either(Truth a, Truth b) {
    return std::max(a, b);
}
Truth truth(bool value) {
    return value ? Truth::yes : Truth::no;
}

bool in_list(const ClassInfo& info, std::uint16_t index) {
    return std::ranges::binary_search(info.lists, index);
}

Truth in_countries(const std::set<Country>& countries, const ClassInfo& info, Purpose purpose) {
    if (countries.empty() || info.kind == datapath::KIND_LOCAL) return Truth::no;
    if (info.country.empty()) return Truth::unknown;
    if (!countries.contains(info.country)) return Truth::no;
    return info.disputed && purpose == Purpose::allow ? Truth::unknown : Truth::yes;
}

Truth in_set(const NamedSet& set, const ClassInfo& info, Purpose purpose) {
    if (set.prefixes && in_list(info, *set.prefixes)) return Truth::yes;
    return either(in_countries(set.countries, info, purpose), set.has_unknown ? Truth::unknown : Truth::no);
}

Truth in_any(const std::vector<NamedSet>& sets, const ClassInfo& info, Purpose purpose) {
    Truth out = Truth::no;
    for (const NamedSet& set : sets) out = either(out, in_set(set, info, purpose));
    return out;
}

bool has_ports(std::uint8_t l4_proto) {
    return l4_proto == 6 || l4_proto == 17 || l4_proto == 132 || l4_proto == 33 || l4_proto == 136;
}

// Port 0 is what a fragment without a transport header counts to: its port is not known.
Truth in_ports(const std::vector<PortRange>& ranges, std::uint16_t port, std::uint8_t l4_proto) {
    if (!has_ports(l4_proto)) return Truth::no;
    Truth out = Truth::no;
    for (const PortRange& range : ranges) {
        if (range.l4_proto != 0 && range.l4_proto != l4_proto) continue;
        if (port == 0) return Truth::unknown;
        if (range.first <= port && port <= range.last) out = Truth::yes;
    }
    return out;
}

std::string port_text(std::uint16_t port, std::uint8_t l4_proto) {
    if (!has_ports(l4_proto)) return "protocol " + l4_proto_name(l4_proto) + " has no port and";
    if (port == 0) return "the port of a fragment is unknown and";
    return "port " + std::to_string(port) + "/" + l4_proto_name(l4_proto);
}

}  // namespace

Truth match_class(const Match& match, const ClassInfo& info, Purpose purpose) noexcept {
    Truth out = match.unknown_fields.empty() ? Truth::yes : Truth::unknown;
    if (match.kinds != 0 || !match.regions.empty())
        out = both(out,
                   either(truth((match.kinds >> info.kind & 1) != 0), in_any(match.regions, info, purpose)));
    if (!match.countries.empty() || match.country_unknown) {
        const bool unknown = info.country.empty() && info.kind != datapath::KIND_LOCAL;
        out = both(out, either(truth(match.country_unknown && unknown),
                               in_countries(match.countries, info, purpose)));
    }
    if (!match.lists.empty()) out = both(out, in_any(match.lists, info, purpose));
    if (match.prefixes) out = both(out, truth(in_list(info, *match.prefixes)));
    return out;
}

Truth match_flow(const Match& match, const FlowUpdate& flow) noexcept {
    Truth out = Truth::yes;
    if (match.initiator)
        out = both(out, flow.initiator == datapath::INITIATOR_UNKNOWN
                            ? Truth::unknown
                            : truth(flow.initiator == *match.initiator));
    if (!match.l4_protos.empty())
        out =
            both(out, truth(std::ranges::find(match.l4_protos, flow.key.l4_proto) != match.l4_protos.end()));
    if (!match.ports.empty()) out = both(out, in_ports(match.ports, flow.remote_port(), flow.key.l4_proto));
    if (!match.local_ports.empty())
        out = both(out, in_ports(match.local_ports, flow.local_port(), flow.key.l4_proto));
    if (match.tunnels != 0) out = both(out, truth((match.tunnels >> flow.key.tunnel & 1) != 0));
    return out;
}

std::string why_not(const Match& match, const FlowUpdate& flow) {
    if (!match.ports.empty() && in_ports(match.ports, flow.remote_port(), flow.key.l4_proto) != Truth::yes)
        return port_text(flow.remote_port(), flow.key.l4_proto) + " is not in " + match.port_text;
    if (match.initiator && flow.initiator != *match.initiator) {
        const std::string wanted =
            *match.initiator == datapath::INITIATOR_LOCAL ? "this host connects" : "the remote end connects";
        return (flow.initiator == datapath::INITIATOR_UNKNOWN  ? "who connected is unknown"
                : flow.initiator == datapath::INITIATOR_REMOTE ? std::string("the remote end connected")
                                                               : std::string("this host connected")) +
               std::string(", and it covers only where ") + wanted;
    }
    return "the flow is not selected";
}

std::string why_unknown(const Match& match, const ClassInfo& info) {
    if (!match.unknown_fields.empty()) {
        std::string out;
        for (const std::string& field : match.unknown_fields) out += (out.empty() ? "" : ", ") + field;
        return out + (match.unknown_fields.size() == 1 ? " of this flow is" : " of this flow are") +
               " unknown";
    }
    if (info.country.empty()) return "the country is unknown";
    if (info.disputed) return "the geo sources disagree about country " + info.country;
    return "a list has values that are unknown in this version";
}

}  // namespace egresswatch::rules
