// agent/cli/replay_output.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/replay_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/records/record.h"

namespace egresswatch::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Sums {
    std::uint64_t packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0;
    std::uint64_t frame_bytes_out = 0, frame_bytes_in = 0;

    void add(const datapath::class_totals& totals) {
        const auto& out = totals.by_direction[datapath::DIRECTION_OUT];
        const auto& in = totals.by_direction[datapath::DIRECTION_IN];
        packets_out += out.packets;
        bytes_out += out.ip_bytes;
        packets_in += in.packets;
        bytes_in += in.ip_bytes;
        frame_bytes_out += out.frame_bytes;
        frame_bytes_in += in.frame_bytes;
    }
    [[nodiscard]] Json to_json() const {
        return {{"packets_out", packets_out},         {"bytes_out", bytes_out},
                {"packets_in", packets_in},           {"bytes_in", bytes_in},
                {"frame_bytes_out", frame_bytes_out}, {"frame_bytes_in", frame_bytes_in}};
    }
};

// Both directions of all interfaces.
struct FileTotals {
    datapath::traffic seen{};
    std::array<datapath::traffic, datapath::OUTCOME_COUNT> outcome{};

    explicit FileTotals(const capture::TotalsSnapshot& totals) {
        for (const auto& interface : totals.interfaces)
            for (const auto& direction : interface.totals.by_direction) {
                seen.packets += direction.seen.packets;
                seen.bytes += direction.seen.bytes;
                for (std::size_t i = 0; i < outcome.size(); ++i) {
                    outcome[i].packets += direction.outcome[i].packets;
                    outcome[i].bytes += direction.outcome[i].bytes;
                }
            }
    }
};

struct ByName {
    std::array<Sums, datapath::KIND_COUNT> kinds;
    std::map<std::string, Sums> countries;  // local traffic has none

    ByName(const capture::TotalsSnapshot& totals, const ClassInfoOf& class_of) {
        for (std::size_t id = 0; id < totals.by_class.size(); ++id) {
            const auto& traffic = totals.by_class[id].by_direction;
            if (traffic[0].packets == 0 && traffic[1].packets == 0) continue;
            const ClassInfo& info = class_of(static_cast<std::uint16_t>(id));
            kinds[info.kind].add(totals.by_class[id]);
            if (info.kind == datapath::KIND_LOCAL) continue;
            countries[info.country.empty() ? "unknown" : info.country].add(totals.by_class[id]);
        }
    }
};

}  // namespace

void append_flow_line(std::string& out, const FlowUpdate& flow, const ClassInfo& info) {
    const bool tunnelled = flow.key.tunnel != datapath::TUNNEL_NONE;
    const auto quoted = [](const std::string& text) { return "\"" + text + "\""; };
    std::string country = "null";
    if (info.kind != datapath::KIND_LOCAL)
        country = info.country.empty() ? "\"unknown\"" : quoted(info.country);
    fmt::format_to(
        std::back_inserter(out),
        "{{\"local\":\"{}\",\"remote\":\"{}\",\"local_port\":{},\"remote_port\":{},\"l4_proto\":{},"
        "\"packets_out\":{},\"bytes_out\":{},\"packets_in\":{},\"bytes_in\":{},\"class\":\"{}\",\"country\":{"
        "},"
        "\"initiator\":\"{}\",\"tunnel\":{},\"outer_local\":{},\"outer_remote\":{},"
        "\"first_seen\":\"{}\",\"last_seen\":\"{}\",\"tcp_flags_out\":{},\"tcp_flags_in\":{},"
        "\"handshake_rtt_us\":{}}}\n",
        flow.local().to_string(), flow.remote().to_string(), flow.local_port(), flow.remote_port(),
        flow.key.l4_proto, flow.total.packets_out, flow.total.bytes_out, flow.total.packets_in,
        flow.total.bytes_in, kind_name(info.kind), country, records::initiator_name(flow.initiator),
        tunnelled ? quoted(std::string(tunnel_name(flow.key.tunnel))) : "null",
        tunnelled ? quoted(flow.outer_local.to_string()) : "null",
        tunnelled ? quoted(flow.outer_remote.to_string()) : "null", records::format_time(flow.first_seen),
        records::format_time(flow.last_seen), flow.tcp_flags_out, flow.tcp_flags_in,
        flow.handshake_rtt_us != 0 ? std::to_string(flow.handshake_rtt_us) : "null");
}

std::string totals_line(const capture::TotalsSnapshot& totals, const capture::FileProgress& progress,
                        const ClassInfoOf& class_of) {
    const FileTotals file(totals);
    const ByName names(totals, class_of);
    Json out;
    out["packets"] = file.seen.packets;
    out["bytes"] = file.seen.bytes;
    Json& classes = out["classes"] = Json::object();
    for (int kind = 0; kind < datapath::KIND_COUNT; ++kind)
        classes[kind_name(static_cast<datapath::region_kind>(kind))] = names.kinds[kind].to_json();
    Json& countries = out["countries"] = Json::object();
    for (const auto& [country, sums] : names.countries) countries[country] = sums.to_json();
    const auto outcome = [&](const char* name, datapath::outcome which) {
        out[name] = file.outcome[which].packets;
        out[std::string(name) + "_bytes"] = file.outcome[which].bytes;
    };
    outcome("not_ip", datapath::OUTCOME_NOT_IP);
    outcome("malformed", datapath::OUTCOME_MALFORMED);
    outcome("truncated", datapath::OUTCOME_TRUNCATED);
    Json& unsupported = out["not_ip_link_types"] = Json::object();
    for (const auto& [name, packets] : progress.not_supported) unsupported[name] = packets;
    Json& losses = out["losses"] = Json::object();
    for (std::size_t reason = 0; reason < totals.losses.size(); ++reason) {
        const std::string name(records::loss_name(reason));
        if (!name.empty()) losses[name] = totals.losses[reason];
    }
    out["packets_without_time"] = progress.packets_without_time;
    out["packets_out_of_order"] = progress.packets_out_of_order;
    return out.dump();
}

std::string totals_table(const capture::TotalsSnapshot& totals, const capture::FileProgress& progress,
                         const ClassInfoOf& class_of, std::uint64_t flows, std::uint64_t findings) {
    const FileTotals file(totals);
    const ByName names(totals, class_of);
    std::string text = fmt::format("{} packets, {} bytes; {} flows; {} findings\n\n", file.seen.packets,
                                   file.seen.bytes, flows, findings);
    text += fmt::format("{:<10} {:>12} {:>16} {:>12} {:>16}\n", "class", "packets out", "bytes out",
                        "packets in", "bytes in");
    const auto row = [&](std::string_view name, const Sums& sums) {
        text += fmt::format("{:<10} {:>12} {:>16} {:>12} {:>16}\n", name, sums.packets_out, sums.bytes_out,
                            sums.packets_in, sums.bytes_in);
    };
    for (int kind = 0; kind < datapath::KIND_COUNT; ++kind)
        row(kind_name(static_cast<datapath::region_kind>(kind)), names.kinds[kind]);
    text += "\ncountry, by bytes out\n";
    std::vector<std::pair<std::string, Sums>> sorted(names.countries.begin(), names.countries.end());
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto& a, const auto& b) { return a.second.bytes_out > b.second.bytes_out; });
    for (const auto& [country, sums] : sorted) row(country, sums);
    text += fmt::format(
        "\nnot IP {}, malformed {}, truncated {} packets\n", file.outcome[datapath::OUTCOME_NOT_IP].packets,
        file.outcome[datapath::OUTCOME_MALFORMED].packets, file.outcome[datapath::OUTCOME_TRUNCATED].packets);
    for (const auto& [name, packets] : progress.not_supported)
        text += fmt::format("not IP: {} packets of {}, a link type that is not decoded\n", packets, name);
    for (std::size_t reason = 0; reason < totals.losses.size(); ++reason)
        if (totals.losses[reason] != 0)
            text += fmt::format("{}: {}\n", records::loss_name(reason), totals.losses[reason]);
    return text;
}

}  // namespace egresswatch::cli
