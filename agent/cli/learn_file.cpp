// agent/cli/learn_file.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/learn_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "agent/records/record.h"
#include "rules/placeholder.h"
#include "rules/values.h"

namespace egresswatch::cli {

namespace {

constexpr std::size_t ports_max = 8;        // of one destination; more are one entry without a port
constexpr std::size_t addresses_named = 4;  // fewer than these are named one by one, not as their network
constexpr std::uint64_t day_s = 86'400;

// Groups that become one entry: a network or an AS, a country, a direction and a process, with their ports.
struct Draft {
    ObservedGroup sum;
    std::uint32_t asn = 0;      // 0: unknown
    bool whole_system = false;  // the entry names the AS, not the network
    std::set<Prefix> networks;
    std::set<std::pair<std::uint16_t, std::uint8_t>> ports;
    std::set<std::uint8_t> protocols;
};

std::string size_text(std::uint64_t bytes) {
    if (bytes < 1024) return fmt::format("{} B", bytes);
    if (bytes < 1u << 20) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
    if (bytes < 1u << 30) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1u << 20));
    return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1u << 30));
}

// Twice what a day of the same would be, rounded up to a figure that a person would write.
std::string ceiling_text(const ObservedGroup& group, std::chrono::nanoseconds observed) {
    // A few seconds say nothing of a day: it is reckoned from an hour at the least.
    constexpr std::int64_t shortest_s = 3600;
    const auto seconds =
        static_cast<std::uint64_t>(std::max<std::int64_t>(observed.count() / 1'000'000'000, shortest_s));
    const auto days = std::max<double>(1.0, static_cast<double>(day_s) / static_cast<double>(seconds));
    const double mebibytes = 2 * days * static_cast<double>(group.bytes_out) / (1u << 20);
    std::uint64_t figure = 1;
    while (static_cast<double>(figure) < mebibytes) {
        std::uint64_t lead = figure;
        while (lead >= 10) lead /= 10;
        figure = lead == 2 ? figure / 2 * 5 : figure * 2;
    }
    return fmt::format("{} MiB", figure);
}

std::vector<Draft> drafts_of(const Observation& observation, const ProposalOptions& options,
                             std::size_t& left_out) {
    std::map<std::string, Draft> drafts;
    for (const ObservedGroup& group : observation.groups()) {
        const std::uint32_t asn =
            options.asn_of && !group.addresses.empty() ? options.asn_of(*group.addresses.begin()) : 0;
        const bool whole_system = options.by_asn && asn != 0;
        const std::string key =
            fmt::format("{}|{}|{}|{}", whole_system ? fmt::format("AS{}", asn) : group.prefix.to_string(),
                        group.country, group.remote_connects, group.process);
        const auto [entry, is_new] = drafts.try_emplace(key);
        Draft& draft = entry->second;
        draft.asn = asn;
        draft.whole_system = whole_system;
        draft.networks.insert(group.prefix);
        draft.protocols.insert(group.l4_proto);
        if (group.port != 0) draft.ports.emplace(group.port, group.l4_proto);
        if (is_new) {
            draft.sum = group;
            continue;
        }
        draft.sum.flows += group.flows;
        draft.sum.bytes_out += group.bytes_out;
        draft.sum.bytes_in += group.bytes_in;
        draft.sum.first = std::min(draft.sum.first, group.first);
        draft.sum.last = std::max(draft.sum.last, group.last);
        draft.sum.more_addresses |= group.more_addresses;
        draft.sum.addresses.insert(group.addresses.begin(), group.addresses.end());
    }
    std::vector<Draft> out;
    for (auto& [key, draft] : drafts) {
        if (draft.sum.bytes_out < options.bytes_min)
            ++left_out;
        else
            out.push_back(std::move(draft));
    }
    std::ranges::stable_sort(
        out, [](const Draft& a, const Draft& b) { return a.sum.bytes_out > b.sum.bytes_out; });
    return out;
}

std::string ports_text(const Draft& draft) {
    std::string out;
    for (const auto& [port, l4_proto] : draft.ports)
        out += (out.empty() ? "" : ", ") + std::to_string(port) + "/" + rules::l4_proto_name(l4_proto);
    return out;
}

// Every value that could be taken for something else by another reader of YAML stands in quotes.
std::string destination_text(const Draft& draft) {
    const ObservedGroup& sum = draft.sum;
    if (draft.whole_system)
        return fmt::format("asn: [{}]", draft.asn) +
               (sum.country == "unknown" ? std::string() : ", country: [\"" + sum.country + "\"]");
    std::string prefixes;
    const bool one_by_one = !sum.more_addresses && sum.addresses.size() < addresses_named;
    if (one_by_one)
        for (const Address& address : sum.addresses)
            prefixes += (prefixes.empty() ? "" : ", ") + address.to_string();
    else
        prefixes = sum.prefix.to_string();
    std::string quoted;
    for (const char c : prefixes)
        quoted += c == ',' ? std::string("\",") : c == ' ' ? std::string(" \"") : std::string(1, c);
    return "cidr: [\"" + quoted + "\"]";
}

std::string to_text(const Draft& draft) {
    const ObservedGroup& sum = draft.sum;
    std::string out = destination_text(draft);
    // Of an inbound session the port that an entry can name is the far end's own, which may be any.
    const bool name_ports = !sum.remote_connects && !draft.ports.empty() && draft.ports.size() <= ports_max;
    if (name_ports) out += ", port: [" + ports_text(draft) + "]";
    return out;
}

std::string comment_of(const Draft& draft) {
    const ObservedGroup& sum = draft.sum;
    std::string protocols;
    for (const std::uint8_t number : draft.protocols)
        protocols += (protocols.empty() ? "" : ", ") + rules::l4_proto_name(number);
    const std::string ports = draft.ports.empty() ? "no ports"
                              : draft.ports.size() > ports_max
                                  ? fmt::format("{} ports", draft.ports.size())
                                  : (sum.remote_connects ? "local port " : "port ") + ports_text(draft);
    const std::string system = draft.asn == 0 ? std::string() : fmt::format("AS{}, ", draft.asn);
    const std::string where = draft.networks.size() == 1 ? sum.prefix.to_string()
                                                         : fmt::format("{} networks", draft.networks.size());
    return fmt::format(
        "  # {}{} ({}), {}, {}; {}; {} flows, {}{} addresses\n  # {} out, {} in, from {} to {}{}\n", system,
        where, sum.country, protocols, ports,
        sum.remote_connects ? "the remote end connects" : "this host connects", sum.flows,
        sum.more_addresses ? "more than " : "", sum.addresses.size(), size_text(sum.bytes_out),
        size_text(sum.bytes_in), records::format_time(sum.first).substr(0, 19) + "Z",
        records::format_time(sum.last).substr(0, 19) + "Z",
        sum.process.empty() ? "; process unknown" : "; by " + sum.process);
}

std::string id_of(const Draft& draft, std::set<std::string>& taken) {
    std::string country = draft.sum.country;
    for (char& c : country)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    std::string base = "learned-" + country;
    if (draft.ports.size() == 1)
        base += fmt::format("-{}-{}", rules::l4_proto_name(draft.ports.begin()->second),
                            draft.ports.begin()->first);
    std::string id = base;
    for (int number = 2; !taken.insert(id).second; ++number) id = fmt::format("{}.{}", base, number);
    return id;
}

}  // namespace

Proposal propose(const Observation& observation, const LearnedFrom& from, const ProposalOptions& options) {
    Proposal out;
    const std::vector<Draft> drafts = drafts_of(observation, options, out.left_out);
    Timestamp first = Timestamp::max(), last = Timestamp::min();
    for (const Draft& draft : drafts) {
        first = std::min(first, draft.sum.first);
        last = std::max(last, draft.sum.last);
    }
    const std::string blank(rules::placeholder);
    out.text = fmt::format(
        "# yaml-language-server: $schema=/usr/share/egresswatch/schema/policy.schema.json\n"
        "# Proposed by `{}` from {}: what left the region, and no allow entry covers.\n"
        "# That it happened does not make it right. Take out what should not be; of what stays, put an "
        "owner, a reason\n"
        "# and an end in the place of every {}: until then `egresswatch check` refuses this file.\n"
        "policy: egresswatch/v1\n\n",
        from.command, from.source, blank);
    if (drafts.empty()) out.text += "# Nothing was observed.\nallow: []\n";
    if (!drafts.empty()) out.text += "allow:\n";
    std::set<std::string> taken;
    for (const Draft& draft : drafts) {
        out.text += comment_of(draft);
        out.text += "  - id: " + id_of(draft, taken) + "\n";
        out.text += "    to: {" + to_text(draft) + "}\n";
        if (!draft.sum.process.empty()) out.text += "    from: {executable: \"" + draft.sum.process + "\"}\n";
        out.text += std::string("    direction: ") + (draft.sum.remote_connects ? "in" : "out") + "\n";
        out.text += "    ceiling: {bytes_out: " + ceiling_text(draft.sum, last - first) + ", per: 1d}\n";
        out.text += "    owner: " + blank + "\n    reason: " + blank + "\n    expires: " + blank + "\n\n";
        ++out.entries;
    }
    if (observation.not_grouped() > 0)
        out.text += fmt::format("# {} more flows found no room: more than {} groups.\n",
                                observation.not_grouped(), Observation::groups_max);
    if (observation.tunnelled() > 0)
        out.text +=
            fmt::format("# {} flows in tunnels are left out: an entry has to cover the far end too.\n",
                        observation.tunnelled());
    return out;
}

}  // namespace egresswatch::cli
