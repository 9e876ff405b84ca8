// agent/cli/replay_output.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/replay_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/records/names.h"
#include "agent/records/record.h"
#include "classifier/inspect/inspection.h"

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
    [[nodiscard]] bool any() const { return packets_out != 0 || packets_in != 0; }
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

// Local traffic has no country; "local" stands for it where its flows are kept.
std::string country_name(const ClassInfo& info) {
    if (info.kind == datapath::KIND_LOCAL) return "local";
    return info.country.empty() ? "unknown" : info.country;
}

struct CountryRow {
    std::string country;
    Sums sums;
    std::uint64_t flows = 0;
    std::uint64_t findings = 0;
};

// By bytes out, the most first.
std::vector<CountryRow> country_rows(const ByName& names, const ClassInfoOf& class_of,
                                     const ReplayCounts& counts) {
    std::map<std::string, CountryRow> rows;
    for (const auto& [country, sums] : names.countries) rows[country].sums = sums;
    if (names.kinds[datapath::KIND_LOCAL].any()) rows["local"].sums = names.kinds[datapath::KIND_LOCAL];
    for (std::size_t id = 0; id < counts.flows_by_class.size(); ++id)
        if (counts.flows_by_class[id] != 0)
            rows[country_name(class_of(static_cast<std::uint16_t>(id)))].flows += counts.flows_by_class[id];
    for (const auto& [country, findings] : counts.findings_by_country) rows[country].findings += findings;
    std::vector<CountryRow> sorted;
    for (auto& [country, row] : rows) {
        row.country = country;
        sorted.push_back(std::move(row));
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](const CountryRow& a, const CountryRow& b) {
        return a.sums.bytes_out > b.sums.bytes_out;
    });
    return sorted;
}

std::string csv_text(std::string_view text) {
    if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"') out += '"';
        out += c;
    }
    return out + "\"";
}

}  // namespace

namespace {

// `,"name":null,...}` for most; what is known is written as in records.
void append_names(std::string& out, const inspect::FlowNames* names) {
    if (names == nullptr) {
        out += ",\"name\":null,\"name_source\":null,\"app\":null}\n";
        return;
    }
    records::Json members = records::Json::object();
    records::add_names(members, *names);
    const std::string text = members.dump(-1, ' ', true, records::Json::error_handler_t::replace);
    out += ',';
    out.append(text, 1);
    out += '\n';
}

// name, name_source, app
std::array<std::string, 3> name_cells(const inspect::FlowNames* names) {
    if (names == nullptr) return {};
    return {csv_text(names->name), std::string(inspect::name_source_name(names->source)),
            names->protocol == inspect::Protocol::unknown
                ? std::string()
                : std::string(inspect::protocol_name(names->protocol))};
}

}  // namespace

void append_flow_line(std::string& out, const FlowUpdate& flow, const ClassInfo& info,
                      const inspect::FlowNames* names) {
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
        "\"handshake_rtt_us\":{}",
        flow.local().to_string(), flow.remote().to_string(), flow.local_port(), flow.remote_port(),
        flow.key.l4_proto, flow.total.packets_out, flow.total.bytes_out, flow.total.packets_in,
        flow.total.bytes_in, kind_name(info.kind), country, records::initiator_name(flow.initiator),
        tunnelled ? quoted(std::string(tunnel_name(flow.key.tunnel))) : "null",
        tunnelled ? quoted(flow.outer_local.to_string()) : "null",
        tunnelled ? quoted(flow.outer_remote.to_string()) : "null", records::format_time(flow.first_seen),
        records::format_time(flow.last_seen), flow.tcp_flags_out, flow.tcp_flags_in,
        flow.handshake_rtt_us != 0 ? std::to_string(flow.handshake_rtt_us) : "null");
    append_names(out, names);
}

std::string flow_csv_head() {
    return "local,remote,local_port,remote_port,l4_proto,packets_out,bytes_out,packets_in,bytes_in,class,"
           "country,"
           "initiator,tunnel,outer_local,outer_remote,first_seen,last_seen,tcp_flags_out,tcp_flags_in,"
           "handshake_rtt_us,name,name_source,app\n";
}

void append_flow_csv(std::string& out, const FlowUpdate& flow, const ClassInfo& info,
                     const inspect::FlowNames* names) {
    const auto [name, source, app] = name_cells(names);
    const bool tunnelled = flow.key.tunnel != datapath::TUNNEL_NONE;
    const std::string country = info.kind == datapath::KIND_LOCAL ? "" : country_name(info);
    fmt::format_to(
        std::back_inserter(out), "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n",
        flow.local().to_string(), flow.remote().to_string(), flow.local_port(), flow.remote_port(),
        flow.key.l4_proto, flow.total.packets_out, flow.total.bytes_out, flow.total.packets_in,
        flow.total.bytes_in, kind_name(info.kind), country, records::initiator_name(flow.initiator),
        tunnelled ? tunnel_name(flow.key.tunnel) : "", tunnelled ? flow.outer_local.to_string() : "",
        tunnelled ? flow.outer_remote.to_string() : "", records::format_time(flow.first_seen),
        records::format_time(flow.last_seen), flow.tcp_flags_out, flow.tcp_flags_in,
        flow.handshake_rtt_us != 0 ? std::to_string(flow.handshake_rtt_us) : "", name, source, app);
}

std::string finding_csv_head() {
    return "time,level,rule,revision,title,country,local,local_port,remote,remote_port,l4_proto,initiator,"
           "measure,"
           "value,threshold,window_s,verdict,name,name_source,app\n";
}

void append_finding_csv(std::string& out, const rules::Finding& finding, const inspect::FlowNames* names) {
    const auto [name, source, app] = name_cells(names);
    const FlowUpdate& flow = finding.flow;
    fmt::format_to(
        std::back_inserter(out), "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n",
        records::format_time(finding.time), rules::level_name(finding.level), csv_text(finding.rule_id),
        finding.rule_revision, csv_text(finding.title), country_name(finding.info), flow.local().to_string(),
        flow.local_port(), flow.remote().to_string(), flow.remote_port(), flow.key.l4_proto,
        records::initiator_name(flow.initiator), finding.measure, finding.value, finding.threshold,
        finding.window.count(), finding.decision.allowed ? "allowed" : "not_allowed", name, source, app);
}

void ReplayCounts::add_finding(const ClassInfo& info) {
    ++findings_by_country[country_name(info)];
    ++findings;
}

std::string summary_line(const capture::TotalsSnapshot& totals, const ClassInfoOf& class_of,
                         const ReplayCounts& counts) {
    const FileTotals file(totals);
    Json out;
    out["packets"] = file.seen.packets;
    out["bytes"] = file.seen.bytes;
    out["flows"] = counts.flows;
    out["findings"] = counts.findings;
    Json& countries = out["countries"] = Json::array();
    for (const CountryRow& row : country_rows(ByName(totals, class_of), class_of, counts))
        countries.push_back({{"country", row.country},
                             {"packets_out", row.sums.packets_out},
                             {"bytes_out", row.sums.bytes_out},
                             {"packets_in", row.sums.packets_in},
                             {"bytes_in", row.sums.bytes_in},
                             {"flows", row.flows},
                             {"findings", row.findings}});
    return out.dump();
}

std::string summary_csv(const capture::TotalsSnapshot& totals, const ClassInfoOf& class_of,
                        const ReplayCounts& counts) {
    std::string out = "country,packets_out,bytes_out,packets_in,bytes_in,flows,findings\n";
    for (const CountryRow& row : country_rows(ByName(totals, class_of), class_of, counts))
        out += fmt::format("{},{},{},{},{},{},{}\n", row.country, row.sums.packets_out, row.sums.bytes_out,
                           row.sums.packets_in, row.sums.bytes_in, row.flows, row.findings);
    return out;
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
                         const ClassInfoOf& class_of, const ReplayCounts& counts) {
    const FileTotals file(totals);
    const ByName names(totals, class_of);
    std::string text = fmt::format("{} packets, {} bytes; {} flows; {} findings\n\n", file.seen.packets,
                                   file.seen.bytes, counts.flows, counts.findings);
    const auto row = [&](std::string_view name, const Sums& sums) {
        text += fmt::format("{:<10} {:>12} {:>16} {:>12} {:>16}", name, sums.packets_out, sums.bytes_out,
                            sums.packets_in, sums.bytes_in);
    };
    text += fmt::format("{:<10} {:>12} {:>16} {:>12} {:>16}\n", "class", "packets out", "bytes out",
                        "packets in", "bytes in");
    for (int kind = 0; kind < datapath::KIND_COUNT; ++kind) {
        row(kind_name(static_cast<datapath::region_kind>(kind)), names.kinds[kind]);
        text += '\n';
    }
    text += fmt::format("\n{:<10} {:>12} {:>16} {:>12} {:>16} {:>10} {:>9}\n", "country", "packets out",
                        "bytes out", "packets in", "bytes in", "flows", "findings");
    for (const CountryRow& country : country_rows(names, class_of, counts)) {
        row(country.country, country.sums);
        text += fmt::format(" {:>10} {:>9}\n", country.flows, country.findings);
    }
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
