// agent/observation.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/observation.h"

#include <algorithm>

#include "agent/records/record.h"

namespace egresswatch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint8_t network_length4 = 24, network_length6 = 48;

std::string key_of(const ObservedGroup& group) {
    return group.prefix.to_string() + "|" + group.country + "|" + std::to_string(group.l4_proto) + "|" +
           std::to_string(group.port) + (group.remote_connects ? "|in|" : "|out|") + group.process;
}

}  // namespace

Observation::Flow Observation::flow_of(const FlowUpdate& update, const ClassInfo& info,
                                       const FlowCounters& counters) {
    Flow flow;
    flow.remote = update.remote();
    flow.country = info.country.empty() ? "unknown" : info.country;
    flow.l4_proto = update.key.l4_proto;
    flow.remote_port = update.remote_port();
    flow.local_port = update.local_port();
    flow.remote_connects = update.initiator == datapath::INITIATOR_REMOTE;
    flow.tunnelled = update.key.tunnel != datapath::TUNNEL_NONE;
    flow.is_new = update.total == counters;
    flow.bytes_out = counters.bytes_out;
    flow.bytes_in = counters.bytes_in;
    flow.first = update.first_seen;
    flow.last = update.last_seen;
    return flow;
}

void Observation::add(const Flow& flow) {
    if (flow.tunnelled) {
        tunnelled_ += flow.is_new ? 1 : 0;
        return;
    }
    ObservedGroup group;
    group.prefix = Prefix::containing(flow.remote, flow.remote.is_ipv4() ? network_length4 : network_length6);
    group.country = flow.country;
    group.l4_proto = flow.l4_proto;
    // Who connects uses any port: the service's is the other one.
    group.port = flow.remote_connects ? flow.local_port : flow.remote_port;
    group.remote_connects = flow.remote_connects;
    group.process = flow.process;
    const std::string key = key_of(group);
    auto found = groups_.find(key);
    if (found == groups_.end()) {
        if (groups_.size() >= groups_max) {
            ++not_grouped_;
            return;
        }
        group.first = flow.first;
        group.last = flow.last;
        found = groups_.emplace(key, std::move(group)).first;
    }
    ObservedGroup& into = found->second;
    into.flows += flow.is_new ? 1 : 0;
    into.bytes_out += flow.bytes_out;
    into.bytes_in += flow.bytes_in;
    into.first = std::min(into.first, flow.first);
    into.last = std::max(into.last, flow.last);
    if (into.addresses.size() < addresses_max)
        into.addresses.insert(flow.remote);
    else if (!into.addresses.contains(flow.remote))
        into.more_addresses = true;
}

std::vector<ObservedGroup> Observation::groups() const {
    std::vector<ObservedGroup> out;
    for (const auto& [key, group] : groups_) out.push_back(group);
    std::ranges::stable_sort(out, std::greater<>{}, &ObservedGroup::bytes_out);
    return out;
}

Json Observation::to_json() const {
    Json out{{"not_grouped", not_grouped_}, {"tunnelled", tunnelled_}, {"groups", Json::array()}};
    for (const ObservedGroup& group : groups()) {
        Json addresses = Json::array();
        for (const Address& address : group.addresses) addresses.push_back(address.to_string());
        out["groups"].push_back({{"prefix", group.prefix.to_string()},
                                 {"country", group.country},
                                 {"l4_proto", group.l4_proto},
                                 {"port", group.port},
                                 {"remote_connects", group.remote_connects},
                                 {"process", group.process},
                                 {"flows", group.flows},
                                 {"bytes_out", group.bytes_out},
                                 {"bytes_in", group.bytes_in},
                                 {"addresses", std::move(addresses)},
                                 {"more_addresses", group.more_addresses},
                                 {"first", records::format_time(group.first)},
                                 {"last", records::format_time(group.last)}});
    }
    return out;
}

namespace {

std::optional<ObservedGroup> group_of(const nlohmann::json& item) {
    ObservedGroup group;
    const auto prefix = Prefix::parse(item.value("prefix", std::string()));
    const auto first = records::parse_time(item.value("first", std::string()));
    const auto last = records::parse_time(item.value("last", std::string()));
    if (!prefix || !first || !last) return std::nullopt;
    group.prefix = *prefix;
    group.first = *first;
    group.last = *last;
    group.country = item.value("country", std::string());
    group.l4_proto = item.value("l4_proto", std::uint8_t{0});
    group.port = item.value("port", std::uint16_t{0});
    group.remote_connects = item.value("remote_connects", false);
    group.process = item.value("process", std::string());
    group.flows = item.value("flows", std::uint64_t{0});
    group.bytes_out = item.value("bytes_out", std::uint64_t{0});
    group.bytes_in = item.value("bytes_in", std::uint64_t{0});
    group.more_addresses = item.value("more_addresses", false);
    for (const auto& text : item.value("addresses", std::vector<std::string>()))
        if (const auto address = Address::parse(text)) group.addresses.insert(*address);
    return group;
}

}  // namespace

std::optional<Observation> Observation::from_json(const nlohmann::json& json) {
    try {
        Observation out;
        out.not_grouped_ = json.value("not_grouped", std::uint64_t{0});
        out.tunnelled_ = json.value("tunnelled", std::uint64_t{0});
        for (const auto& item : json.at("groups")) {
            auto group = group_of(item);
            if (!group) return std::nullopt;
            std::string key = key_of(*group);
            out.groups_.emplace(std::move(key), std::move(*group));
        }
        return out;
    } catch (const nlohmann::json::exception&) {  // a member of another type
        return std::nullopt;
    }
}

}  // namespace egresswatch
