// agent/records/record.cpp - see record.h; the members are listed in docs/records.md.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/record.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <utility>

#include "agent/records/community_id.h"

namespace egresswatch::records {
namespace {

constexpr std::array<std::string_view, 5> level_names{"info", "low", "medium", "high", "critical"};

Json text_or_null(const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
}

Json time_or_null(Timestamp time) {
    return time == Timestamp{} ? Json(nullptr) : Json(format_time(time));
}

std::uint64_t since(std::uint64_t before, std::uint64_t after) {
    return after >= before ? after - before : after;  // a counter that was reset counts from zero
}

}  // namespace

std::string_view level_name(Level level) noexcept {
    return level_names[static_cast<std::size_t>(level)];
}

std::optional<Level> parse_level(std::string_view name) noexcept {
    const auto* found = std::find(level_names.begin(), level_names.end(), name);
    if (found == level_names.end()) return std::nullopt;
    return static_cast<Level>(found - level_names.begin());
}

Level level_of(const Json& record) {
    const auto level = record.find("level");
    if (level == record.end() || !level->is_string()) return Level::info;
    return parse_level(level->get_ref<const std::string&>()).value_or(Level::info);
}

bool is_kind(std::string_view kind) noexcept {
    return std::find(std::begin(kinds), std::end(kinds), kind) != std::end(kinds);
}

Origin Origin::of_this_host(std::string site) {
    Origin origin;
    origin.site = std::move(site);
    utsname names{};
    if (uname(&names) == 0) origin.host = names.nodename;
    std::ifstream machine_id("/etc/machine-id");
    std::getline(machine_id, origin.host_id);
    origin.version = EGRESSWATCH_VERSION;
    return origin;
}

std::string format_time(Timestamp time) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
    const auto nanoseconds = (time - seconds).count();
    const std::time_t unix_seconds = seconds.time_since_epoch().count();
    std::tm parts{};
    gmtime_r(&unix_seconds, &parts);
    std::array<char, 96> out{};
    std::snprintf(out.data(), out.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%09lldZ", parts.tm_year + 1900,
                  parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                  static_cast<long long>(nanoseconds));
    return out.data();
}

std::optional<Timestamp> parse_time(std::string_view text) noexcept {
    // The one form that format_time() writes.
    if (text.size() != 30 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
        text[16] != ':' || text[19] != '.' || text[29] != 'Z')
        return std::nullopt;
    const auto number = [&](std::size_t at, std::size_t count) -> std::optional<int> {
        int value = 0;
        const auto* end = text.data() + at + count;
        const auto [stop, error] = std::from_chars(text.data() + at, end, value);
        if (error != std::errc{} || stop != end || value < 0) return std::nullopt;
        return value;
    };
    const auto year = number(0, 4), month = number(5, 2), day = number(8, 2), hour = number(11, 2),
               minute = number(14, 2), second = number(17, 2), nano = number(20, 9);
    if (!year || !month || !day || !hour || !minute || !second || !nano) return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year{*year},
                                           std::chrono::month{static_cast<unsigned>(*month)},
                                           std::chrono::day{static_cast<unsigned>(*day)}};
    if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
    return Timestamp{std::chrono::sys_days{date}} + std::chrono::hours{*hour} +
           std::chrono::minutes{*minute} + std::chrono::seconds{*second} + std::chrono::nanoseconds{*nano};
}

std::string shorter_time(const std::string& time, unsigned digits) {
    if (digits >= 9 || !parse_time(time)) return time;
    return time.substr(0, digits == 0 ? 19 : 20 + digits) + "Z";
}

std::string transport_name(std::uint8_t l4_proto) {
    switch (l4_proto) {  // IANA protocol numbers, names as ECS writes them (lower-case keyword)
        case 1:
            return "icmp";
        case 2:
            return "igmp";
        case 4:
            return "ipv4";
        case 6:
            return "tcp";
        case 17:
            return "udp";
        case 33:
            return "dccp";
        case 41:
            return "ipv6";
        case 47:
            return "gre";
        case 50:
            return "esp";
        case 51:
            return "ah";
        case 58:
            return "ipv6-icmp";
        case 89:
            return "ospf";
        case 103:
            return "pim";
        case 112:
            return "vrrp";
        case 132:
            return "sctp";
        case 136:
            return "udplite";
        default:
            return std::to_string(l4_proto);
    }
}

std::string_view initiator_name(datapath::initiator initiator) noexcept {
    switch (initiator) {
        case datapath::INITIATOR_LOCAL:
            return "local";
        case datapath::INITIATOR_REMOTE:
            return "remote";
        case datapath::INITIATOR_UNKNOWN:
            break;
    }
    return "unknown";
}

std::string_view loss_name(std::size_t reason) noexcept {
    switch (reason) {
        case datapath::LOSS_FLOWS_FULL:
            return "flows_full_packets";
        case datapath::LOSS_FLOWS_FULL_BYTES:
            return "flows_full_bytes";
        case datapath::LOSS_EVENTS_FULL:
            return "events_full";
        case datapath::LOSS_NO_REGION_TABLE:
            return "no_region_table_packets";
        case datapath::LOSS_TUNNEL_DEPTH:
            return "tunnel_depth_packets";
        case datapath::LOSS_INNER_INCOMPLETE:
            return "inner_incomplete_packets";
        case datapath::LOSS_HEADERS_MAX:
            return "headers_max_packets";
        case datapath::LOSS_DIRECTION_GUESSED:
            return "direction_guessed_packets";
        default:
            return {};
    }
}

Json country_field(const ClassInfo& info) {
    if (!info.country.empty()) return info.country;
    return info.kind == datapath::KIND_LOCAL ? Json(nullptr) : Json("unknown");
}

Json flow_fields(const FlowUpdate& flow, const ClassInfo& info) {
    Json out;
    const bool tunnelled = flow.key.tunnel != datapath::TUNNEL_NONE;
    out["local"] = flow.local().to_string();
    out["remote"] = flow.remote().to_string();
    out["local_port"] = flow.local_port();
    out["remote_port"] = flow.remote_port();
    out["l4_proto"] = flow.key.l4_proto;
    out["transport"] = transport_name(flow.key.l4_proto);
    out["packets_out"] = flow.total.packets_out;
    out["bytes_out"] = flow.total.bytes_out;
    out["packets_in"] = flow.total.packets_in;
    out["bytes_in"] = flow.total.bytes_in;
    out["class"] = kind_name(info.kind);
    out["country"] = country_field(info);
    out["initiator"] = initiator_name(flow.initiator);
    out["initiator_sure"] = flow.initiator_sure;
    out["tunnel"] = tunnel_name(flow.key.tunnel);
    out["outer_local"] = tunnelled ? Json(flow.outer_local.to_string()) : Json(nullptr);
    out["outer_remote"] = tunnelled ? Json(flow.outer_remote.to_string()) : Json(nullptr);
    out["first_seen"] = format_time(flow.first_seen);
    out["last_seen"] = format_time(flow.last_seen);
    out["tcp_flags_out"] = flow.tcp_flags_out;
    out["tcp_flags_in"] = flow.tcp_flags_in;
    out["handshake_rtt_us"] = flow.handshake_rtt_us != 0 ? Json(flow.handshake_rtt_us) : Json(nullptr);
    out["ifindex"] = flow.ifindex;
    const auto id = community_id_of(flow.key);
    out["community_id"] = id ? Json(*id) : Json(nullptr);
    return out;
}

Json record_head(const Origin& origin, std::string_view kind, Timestamp time) {
    Json out;
    if (time != Timestamp{}) out["time"] = format_time(time);  // otherwise the journal's clock
    out["kind"] = kind;
    out["host"] = origin.host;
    out["host_id"] = text_or_null(origin.host_id);
    out["site"] = text_or_null(origin.site);
    out["version"] = origin.version;
    return out;
}

Json policy_record(const Origin& origin, const PolicyEvent& event) {
    Json out = record_head(origin, "policy", event.time);
    if (event.event == "rejected") out["level"] = level_name(Level::medium);
    out["event"] = event.event;
    out["name"] = event.name;
    out["revision"] = event.revision;
    out["content_hash"] = text_or_null(event.content_hash);
    out["geo_hash"] = text_or_null(event.geo_hash);
    out["directory"] = event.directory;
    out["rules"] = event.rules;
    out["allows"] = event.allows;
    out["problems"] = event.problems;
    return out;
}

namespace {

struct Sums {
    datapath::class_totals totals{};
    void add(const datapath::class_totals& before, const datapath::class_totals& after) {
        for (int direction = 0; direction < datapath::DIRECTION_COUNT; ++direction) {
            auto& sum = totals.by_direction[direction];
            const auto& from = before.by_direction[direction];
            const auto& to = after.by_direction[direction];
            sum.packets += since(from.packets, to.packets);
            sum.ip_bytes += since(from.ip_bytes, to.ip_bytes);
            sum.frame_bytes += since(from.frame_bytes, to.frame_bytes);
        }
    }
    [[nodiscard]] bool empty() const {
        return totals.by_direction[0].packets == 0 && totals.by_direction[1].packets == 0;
    }
};

Json class_direction(const datapath::class_traffic& traffic) {
    return {
        {"packets", traffic.packets}, {"ip_bytes", traffic.ip_bytes}, {"frame_bytes", traffic.frame_bytes}};
}

// One element for each (class, country) that had traffic: what a policy's lists add to a class does not
// matter here, and 250 countries stay far below the longest line.
Json classes_field(const Coverage& coverage) {
    std::map<std::pair<int, std::string>, Sums> sums;
    static const datapath::class_totals none{};
    for (std::size_t id = 0; id < coverage.after.by_class.size(); ++id) {
        const ClassInfo info = id < coverage.classes.size() ? coverage.classes[id] : ClassInfo{};
        const auto& before = id < coverage.before.by_class.size() ? coverage.before.by_class[id] : none;
        const Json country = country_field(info);
        sums[{info.kind, country.is_null() ? std::string{} : country.get<std::string>()}].add(
            before, coverage.after.by_class[id]);
    }
    Json out = Json::array();
    for (const auto& [key, sum] : sums) {
        if (sum.empty()) continue;
        Json element;
        element["class"] = kind_name(static_cast<datapath::region_kind>(key.first));
        element["country"] = text_or_null(key.second);
        element["out"] = class_direction(sum.totals.by_direction[datapath::DIRECTION_OUT]);
        element["in"] = class_direction(sum.totals.by_direction[datapath::DIRECTION_IN]);
        out.push_back(std::move(element));
    }
    return out;
}

Json traffic_field(const datapath::traffic& before, const datapath::traffic& after) {
    return {{"packets", since(before.packets, after.packets)}, {"bytes", since(before.bytes, after.bytes)}};
}

Json interface_direction(const datapath::iface_direction& before, const datapath::iface_direction& after) {
    static constexpr std::array<std::string_view, datapath::OUTCOME_COUNT> names{
        "local", "home", "unknown", "outside", "not_ip", "malformed", "truncated"};
    Json out;
    out["seen"] = traffic_field(before.seen, after.seen);
    std::int64_t packets = static_cast<std::int64_t>(since(before.seen.packets, after.seen.packets));
    std::int64_t bytes = static_cast<std::int64_t>(since(before.seen.bytes, after.seen.bytes));
    for (std::size_t outcome = 0; outcome < names.size(); ++outcome) {
        out[std::string(names[outcome])] = traffic_field(before.outcome[outcome], after.outcome[outcome]);
        packets -=
            static_cast<std::int64_t>(since(before.outcome[outcome].packets, after.outcome[outcome].packets));
        bytes -=
            static_cast<std::int64_t>(since(before.outcome[outcome].bytes, after.outcome[outcome].bytes));
    }
    out["as_given"] = traffic_field(before.as_given, after.as_given);
    // Zero, up to packets that were between the two counters when the snapshot was taken.
    out["residual"] = {{"packets", packets}, {"bytes", bytes}};
    return out;
}

std::uint64_t capture_dropped(const capture::TotalsSnapshot& totals) {
    std::uint64_t packets = 0;
    for (const auto& interface : totals.interfaces) packets += interface.dropped.sum();
    return packets;
}

Json interfaces_field(const Coverage& coverage) {
    Json out = Json::array();
    static const datapath::iface_totals none{};
    for (const auto& now : coverage.after.interfaces) {
        const auto same = [&now](const capture::InterfaceStatus& other) {
            return other.name == now.name && other.ifindex == now.ifindex;
        };
        const auto old =
            std::find_if(coverage.before.interfaces.begin(), coverage.before.interfaces.end(), same);
        const auto& before = old != coverage.before.interfaces.end() ? old->totals : none;
        Json element;
        element["name"] = now.name;
        element["ifindex"] = now.ifindex;
        element["hooked"] = now.hooked;
        if (now.hooked) {
            element["hook"] = now.hook;
            element["starts_with"] = now.layer2 ? "ethernet" : "ip";
        } else {
            element["why_not_hooked"] = now.why_not_hooked;
        }
        const capture::CaptureDrops dropped =
            old != coverage.before.interfaces.end() ? old->dropped : capture::CaptureDrops{};
        element["dropped"] = {{"buffer", since(dropped.buffer, now.dropped.buffer)},
                              {"device", since(dropped.device, now.dropped.device)},
                              {"memory", since(dropped.memory, now.dropped.memory)}};
        element["unsegmented"] =
            traffic_field(old != coverage.before.interfaces.end() ? old->unsegmented : datapath::traffic{},
                          now.unsegmented);
        element["out"] = interface_direction(before.by_direction[datapath::DIRECTION_OUT],
                                             now.totals.by_direction[datapath::DIRECTION_OUT]);
        element["in"] = interface_direction(before.by_direction[datapath::DIRECTION_IN],
                                            now.totals.by_direction[datapath::DIRECTION_IN]);
        out.push_back(std::move(element));
    }
    return out;
}

}  // namespace

Json coverage_record(const Origin& origin, const Coverage& coverage) {
    Json out = record_head(origin, "coverage", coverage.to);
    out["from"] = time_or_null(coverage.from);
    out["to"] = time_or_null(coverage.to);
    out["engine"] = coverage.engine;
    out["policy_hash"] = text_or_null(coverage.policy_hash);
    out["geo_hash"] = text_or_null(coverage.geo_hash);
    out["findings"] = coverage.findings;
    out["findings_suppressed"] = coverage.findings_suppressed;
    out["window_evictions"] = coverage.window_evictions;
    out["unjournaled"] = coverage.unjournaled;
    out["flows_live"] = coverage.after.flows_live;
    out["flow_slots"] = coverage.after.flow_slots;
    Json losses = Json::object();
    for (std::size_t reason = 0; reason < coverage.after.losses.size(); ++reason) {
        const auto name = loss_name(reason);
        if (!name.empty())
            losses[std::string(name)] = since(coverage.before.losses[reason], coverage.after.losses[reason]);
    }
    losses["capture_dropped_packets"] =
        since(capture_dropped(coverage.before), capture_dropped(coverage.after));
    out["losses"] = std::move(losses);
    out["interfaces"] = interfaces_field(coverage);
    out["classes"] = classes_field(coverage);
    return out;
}

Json gap_record(const Origin& origin, const Gap& gap) {
    Json out = record_head(origin, "gap", Timestamp{});
    const bool harmless = gap.reason == "retention" && gap.outputs.empty();  // delivered everywhere
    out["level"] = level_name(harmless ? Level::info : Level::medium);
    out["reason"] = gap.reason;
    out["from"] = time_or_null(gap.from);
    out["to"] = time_or_null(gap.to);
    out["first_seq"] = gap.first_seq ? Json(*gap.first_seq) : Json(nullptr);
    out["last_seq"] = gap.last_seq ? Json(*gap.last_seq) : Json(nullptr);
    out["records"] = gap.records;
    out["outputs"] = gap.outputs;
    out["detail"] = gap.detail;
    return out;
}

Json recovery_record(const Origin& origin, const Recovery& recovery) {
    Json out = record_head(origin, "recovery", Timestamp{});
    out["level"] = level_name(Level::medium);
    out["segment"] = recovery.segment;
    out["cut_at"] = recovery.cut_at;
    out["cut_bytes"] = recovery.cut_bytes;
    out["damaged_lines"] = recovery.damaged_lines;
    out["last_seq"] = recovery.last_seq;
    out["lost_first_seq"] = recovery.lost_first_seq ? Json(*recovery.lost_first_seq) : Json(nullptr);
    out["lost_last_seq"] = recovery.lost_last_seq ? Json(*recovery.lost_last_seq) : Json(nullptr);
    out["host_restarted"] = recovery.host_restarted;
    return out;
}

Json genesis_record(const Origin& origin, std::string_view log_origin, std::string_view verifier_key,
                    std::string_view note) {
    Json out = record_head(origin, "genesis", Timestamp{});
    out["schema"] = schema_version;
    out["origin"] = log_origin;
    out["verifier_key"] = text_or_null(std::string(verifier_key));
    out["note"] = text_or_null(std::string(note));
    return out;
}

namespace {

Json signed_record(const Origin& origin, std::string_view kind, const SignedHead& head) {
    Json out = record_head(origin, kind, Timestamp{});
    out["origin"] = head.origin;
    out["size"] = head.size;
    out["root"] = head.root;
    out["generation"] = head.generation;
    if (kind == "key") out["verifier_key"] = head.verifier_key;
    out["note"] = head.note;
    return out;
}

}  // namespace

Json checkpoint_record(const Origin& origin, const SignedHead& head) {
    return signed_record(origin, "checkpoint", head);
}

Json key_record(const Origin& origin, const SignedHead& head) {
    return signed_record(origin, "key", head);
}

Json stop_record(const Origin& origin, std::string_view reason) {
    Json out = record_head(origin, "stop", Timestamp{});
    out["reason"] = reason;
    return out;
}

}  // namespace egresswatch::records
