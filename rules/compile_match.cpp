// rules/compile_match.cpp - the selections: to, from, when, match.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "classifier/flow_update.h"
#include "rules/compiler.h"

namespace egresswatch::rules {

namespace {

constexpr std::array<std::string_view, datapath::KIND_COUNT> kind_words{"local", "home", "unknown",
                                                                        "outside"};

std::string joined(const std::vector<const Node*>& nodes) {
    std::string out;
    for (const Node* node : nodes) out += (out.empty() ? "" : ", ") + node->text;
    return out;
}

}  // namespace

void PolicyBuilder::read_match(const Fields& fields, Selection selection, const std::string& name,
                               Match& match) {
    read_destination(fields, selection, name, match);
    read_flow(fields, match);
    warn_unknown_fields(fields, selection, match);
}

void PolicyBuilder::read_destination(const Fields& fields, Selection selection, const std::string& name,
                                     Match& match) {
    const std::string_view prefix_key = selection == Selection::to ? "cidr" : "remote";
    if (fields.has(prefix_key)) {
        match.prefixes = add_list(name, prefixes_of(fields, prefix_key), false);
        match.cidr_text = joined(fields.scalars(prefix_key));
    }
    for (const Node* country : fields.scalars("country")) {
        if (country->text == "unknown")
            match.country_unknown = true;
        else if (auto code = parse_country(country->text))
            match.countries.insert(*code);
    }
    read_list_names(fields, selection, match);
    read_region_names(fields, selection, match);
}

void PolicyBuilder::read_list_names(const Fields& fields, Selection selection, Match& match) {
    for (const Node* node : fields.scalars("list")) {
        const auto found = lists_.find(node->text);
        if (found == lists_.end()) {
            if (some_unreadable_) continue;
            std::vector<std::string_view> names;
            for (const auto& [known, list] : lists_) names.push_back(known);
            const std::string_view near = nearest(node->text, names);
            problems_.error(fields.where(), *node, "unknown-list",
                            "there is no list " + in_quotes(node->text),
                            near.empty() ? "define it under `lists`" : "write " + std::string(near));
            continue;
        }
        Named& list = found->second;
        list.used = true;
        const bool sender = selection == Selection::from;
        if (selection == Selection::to && !list.has_destinations && list.has_executables) {
            problems_.error(fields.where(), *node, "wrong-list",
                            "the list " + in_quotes(node->text) +
                                " holds executables: they are senders, not destinations",
                            "name it under `from`");
            continue;
        }
        if (sender && !list.has_executables && list.has_destinations)
            problems_.error(fields.where(), *node, "wrong-list",
                            "the list " + in_quotes(node->text) + " holds destinations, not senders",
                            "name it under `to`");
        if (sender) continue;  // counted as a field of unknown source
        match.lists.push_back(list.set);
        if (!list.set.prefixes && list.set.countries.empty())
            problems_.warning(fields.where(), *node, "unknown-field",
                              "the list " + in_quotes(node->text) +
                                  " holds only what is unknown in this version: it contains no flow",
                              "add prefixes or countries to it, or wait for the version that knows the rest");
    }
}

void PolicyBuilder::read_region_names(const Fields& fields, Selection selection, Match& match) {
    for (const Node* node : fields.scalars("region")) {
        const auto kind = std::ranges::find(kind_words, node->text);
        if (kind != kind_words.end() && selection != Selection::to) {
            match.kinds = static_cast<std::uint8_t>(match.kinds | 1u << (kind - kind_words.begin()));
            continue;
        }
        const auto found = regions_.find(node->text);
        if (found != regions_.end()) {
            match.regions.push_back(found->second.set);
            continue;
        }
        if (some_unreadable_) continue;
        if (kind != kind_words.end()) {
            problems_.error(fields.where(), *node, "unknown-region",
                            "an allow entry cannot allow all of " + in_quotes(node->text),
                            "name a region of this policy, a list, countries or prefixes");
            continue;
        }
        std::vector<std::string_view> names;
        for (const auto& [known, region] : regions_) names.push_back(known);
        if (selection != Selection::to) names.insert(names.end(), kind_words.begin(), kind_words.end());
        const std::string_view near = nearest(node->text, names);
        problems_.error(fields.where(), *node, "unknown-region",
                        "there is no region " + in_quotes(node->text),
                        near.empty() ? "write " + one_of(names) : "write " + std::string(near));
    }
}

void PolicyBuilder::read_flow(const Fields& fields, Match& match) {
    match.allowed = fields.value("allowed", parse_bool);
    const std::string initiator = fields.text("initiator");
    if (initiator == "local") match.initiator = datapath::INITIATOR_LOCAL;
    if (initiator == "remote") match.initiator = datapath::INITIATOR_REMOTE;
    match.l4_protos = fields.list("l4_proto", parse_l4_proto);
    if (fields.has("port")) {
        match.ports = fields.list("port", parse_ports);
        match.port_text = joined(fields.scalars("port"));
    }
    if (fields.has("local_port")) {
        match.local_ports = fields.list("local_port", parse_ports);
        match.local_port_text = joined(fields.scalars("local_port"));
    }
    constexpr std::uint16_t any_tunnel = ((1u << datapath::TUNNEL_COUNT) - 1) & ~1u;
    for (const Node* node : fields.scalars("tunnel")) {
        unsigned bits = any_tunnel;
        for (std::uint8_t kind = 0; kind < datapath::TUNNEL_COUNT; kind++)
            if (tunnel_name(kind) == node->text) bits = 1u << kind;
        match.tunnels = static_cast<std::uint16_t>(match.tunnels | bits);
    }
}

void PolicyBuilder::warn_unknown_fields(const Fields& fields, Selection selection, Match& match) {
    const Mapping& mapping = selection == Selection::to     ? schema::to
                             : selection == Selection::from ? schema::from
                             : selection == Selection::when ? schema::when
                                                            : schema::match;
    const char* effect = selection == Selection::when    ? "the rule cannot fire"
                         : selection == Selection::match ? "the exception excuses nothing"
                                                         : "the entry allows nothing";
    for (const Key& key : mapping.keys) {
        if (!key.unknown_in_this_version || !fields.has(key.name)) continue;
        const bool list_of_senders = selection == Selection::from && key.name == "list";
        match.unknown_fields.emplace_back(list_of_senders ? "executable" : key.name);
        problems_.warning(
            fields.where(), fields.key_node(key.name), "unknown-field",
            "`" + std::string(key.name) + "` is unknown in this version: " + effect,
            selection == Selection::to
                ? "select by cidr, list, country or region meanwhile"
                : "leave it as it is for the version that knows it; until then nothing matches");
    }
}

std::string definition_of(const Match& match, const RegionSpec& spec) {
    std::string out = "kinds=" + std::to_string(match.kinds);
    const auto add = [&](std::string_view name, std::vector<std::string> values) {
        std::ranges::sort(values);
        out += ";" + std::string(name) + "=";
        for (const std::string& value : values) out += value + ",";
    };
    std::vector<std::string> values;
    for (const NamedSet& region : match.regions) values.push_back(region.name);
    add("regions", std::move(values));
    add("countries", {match.countries.begin(), match.countries.end()});
    values.clear();
    for (const NamedSet& list : match.lists) values.push_back(list.name);
    add("lists", std::move(values));
    values.clear();
    for (const PolicyPrefix& prefix : spec.list_prefixes)
        if (match.prefixes == prefix.list) values.push_back(prefix.prefix.to_string());
    add("remote", std::move(values));
    add("unknown", match.unknown_fields);
    const auto ports = [&](std::string_view name, const std::vector<PortRange>& ranges) {
        std::vector<std::string> texts;
        for (const PortRange& range : ranges)
            texts.push_back(std::to_string(range.first) + "-" + std::to_string(range.last) + "/" +
                            std::to_string(range.l4_proto));
        add(name, std::move(texts));
    };
    ports("port", match.ports);
    ports("local_port", match.local_ports);
    values.clear();
    for (const std::uint8_t proto : match.l4_protos) values.push_back(std::to_string(proto));
    add("l4_proto", std::move(values));
    return out + ";country_unknown=" + std::to_string(match.country_unknown) +
           ";allowed=" + (match.allowed ? std::to_string(*match.allowed) : "any") +
           ";initiator=" + (match.initiator ? std::to_string(*match.initiator) : "any") +
           ";tunnels=" + std::to_string(match.tunnels);
}

}  // namespace egresswatch::rules
