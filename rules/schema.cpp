// rules/schema.cpp - the tables.
// SPDX-License-Identifier: Apache-2.0
#include "rules/schema.h"

#include "rules/rule_test_schema.h"

#include <algorithm>
#include <array>

#include "rules/field_rows.h"

namespace egresswatch::rules {

namespace schema {

namespace {

using enum Form;
using enum Need;
using Words = std::span<const std::string_view>;

constexpr std::array<std::string_view, 1> language_words{"egresswatch/v1"};
constexpr std::array<std::string_view, 2> unknown_words{"outside", "home"};
constexpr std::array<std::string_view, 5> group_words{"EU", "EEA", "EFTA", "EU-ADEQUACY",
                                                      "EU-ADEQUACY-PARTIAL"};
constexpr std::array<std::string_view, 3> direction_words{"any", "out", "in"};
constexpr std::array<std::string_view, 5> sum_words{"bytes_out", "packets_out", "bytes_in", "packets_in",
                                                    "flows"};
constexpr std::array<std::string_view, 2> status_words{"live", "test"};
// The words of `by` and of `distinct`: every field that is good for it.
template <std::uint8_t Use>
constexpr auto words_of = [] {
    std::array<std::string_view, rows::count_of(Use)> out{};
    std::size_t next = 0;
    for (const FieldInfo& field : rows::fields)
        if ((field.uses & Use) != 0) out[next++] = field.name;
    return out;
}();
constexpr auto& by_words = words_of<USE_GROUP>;
constexpr auto& distinct_words = words_of<USE_DISTINCT>;
constexpr std::string_view by_doc =
    "Fields whose values make a group of their own each. An empty list makes the whole host one group.";

constexpr std::array<Key, 11> policy_keys{{
    {"policy", word, required, "The language of this file. The first key of every file.", language_words},
    {"name", id, required, "Name of the whole policy."},
    {"revision", integer, required, "Raised by its authors with every change; findings carry it."},
    {"owner", text, required, "Who answers for the policy."},
    {"requires", version, optional, "The least language version that reads it as meant, as in >=1.0."},
    {"sites", named_mappings, optional, "Datacentre sites by name.", {}, &site},
    {"regions", named_mappings, required, "Sets of countries and prefixes by name.", {}, &region},
    {"home", id, required, "Name of the region that traffic should not leave."},
    {"unknown_country", word, optional,
     "What an address of unknown country counts as. Whichever: no allow entry for a country covers it. "
     "Default: "
     "outside, that is, it is reported as unknown and never as home.",
     unknown_words},
    {"lists", named_mappings, optional, "Named sets of values, for allow entries and rules.", {}, &list},
    {"allow",
     mapping_list,
     optional,
     "Destinations that may be reached, each with an owner and an end.",
     {},
     &allow},
}};
constexpr std::array<Key, 2> rules_keys{{
    {"rules", mapping_list, optional, "What is suspicious.", {}, &rule},
    {"overrides",
     mapping_list,
     optional,
     "What changes in entries, of this file or another, in the order in which they are read.",
     {},
     &override_entry},
}};
constexpr std::array<Key, 6> override_keys{{
    {"rule", id, optional, "Id of the rule that is changed. Either this or allow or list."},
    {"allow", id, optional, "Id of the allow entry that is changed."},
    {"list", id, optional, "Name of the list that is changed."},
    {"append", fragment, optional,
     "Keys of the entry: their values are added to those that are there, below a mapping key by key."},
    {"replace", fragment, optional,
     "Keys of the entry: their values take the place of those that are there."},
    {"disable", boolean, optional, "true: the entry is left out."},
}};

constexpr std::array<Key, 5> site_keys{{
    {"title", text, optional, "The site as people call it."},
    {"country", country, required, "Where it stands."},
    {"timezone", zone, optional,
     "Its time zone, as in Europe/Dublin, for `time_of_day` and `weekday`. Default: UTC."},
    {"latitude", decimal, optional, "Degrees north, -90 to 90."},
    {"longitude", decimal, optional, "Degrees east, -180 to 180."},
}};
constexpr std::array<Key, 5> region_keys{{
    {"groups", word_list, optional, "Groups of countries; see GROUPS OF COUNTRIES.", group_words},
    {"as_of", date, optional, "The day whose membership of the groups counts. Required with groups."},
    {"countries", country_list, optional, "Further countries."},
    {"cidr", cidr_list, optional, "Prefixes that belong to the region, whatever the geo data says."},
    {"asn", asn_list, optional, "AS numbers that belong to the region.", {}, nullptr, Source::asn_data},
}};
constexpr std::array<Key, 5> list_keys{{
    {"cidr", cidr_list, optional, "Prefixes."},
    {"country", country_list, optional, "Countries."},
    {"asn", asn_list, optional, "AS numbers.", {}, nullptr, Source::asn_data},
    {"domain",
     domain_list,
     optional,
     "Names; *.example.org is every name below example.org and not example.org itself.",
     {},
     nullptr,
     Source::names},
    {"executable", path_list, optional, "Executables; for `from` only.", {}, nullptr, Source::process},
}};
constexpr std::array<Key, 11> allow_keys{{
    {"id", id, required, "Name of the entry, in findings and records."},
    {"to", mapping, required, "Where to.", {}, &to},
    {"from", mapping, optional, "Which sender.", {}, &from},
    {"when", mapping, optional, "What else must hold, by the keys of `match`.", {}, &match},
    {"direction", word, optional, "Who connects: out (this host), in (the remote end), any. Default: any.",
     direction_words},
    {"ceiling", mapping, optional, "How much may leave in a period.", {}, &ceiling},
    {"owner", text, required, "Who answers for the entry."},
    {"reason", text, required, "Why the destination is allowed."},
    {"ticket", text, optional, "Where that was decided."},
    {"legal_basis", text, optional, "The ground on which data may be transferred, as in art-46-scc."},
    {"expires", expiry, required,
     "The last day on which it allows (UTC), or the instant from which it no longer does."},
}};
constexpr std::array<Key, 7> to_keys{{
    {"cidr", cidr_list, optional, "Remote prefixes."},
    {"list", id_list, optional, "Lists of destinations."},
    {"country", country_list, optional,
     "Countries of the remote address. Not where the geo sources disagree about it."},
    {"region", id_list, optional, "Named regions."},
    {"port", port_list, optional, "Remote ports, as in 443/tcp or 8000-8100/tcp; without a protocol any."},
    {"asn", asn_list, optional, "AS numbers of the remote address.", {}, nullptr, Source::asn_data},
    {"domain",
     domain_list,
     optional,
     "Names of the remote end. What the sender says in TLS, QUIC or HTTP decides; before it has said "
     "anything, the names that DNS answers gave the address. Not where the two contradict each other.",
     {},
     nullptr,
     Source::names},
}};
constexpr std::array<Key, 8> from_keys{{
    {"list", id_list, optional, "Lists of executables.", {}, nullptr, Source::process},
    {"executable", path_list, optional, "Executables.", {}, nullptr, Source::process, false, true},
    {"sha256", hash_list, optional, "SHA-256 of the executable.", {}, nullptr, Source::process},
    {"user", text_list, optional, "Users.", {}, nullptr, Source::process, false, true},
    {"uid", number_list, optional, "User ids.", {}, nullptr, Source::process},
    {"cgroup", text_list, optional, "Control groups.", {}, nullptr, Source::process, false, true},
    {"unit", text_list, optional, "Systemd units.", {}, nullptr, Source::process, false, true},
    {"container", text_list, optional, "Container ids.", {}, nullptr, Source::process, false, true},
}};
constexpr std::array<Key, 2> ceiling_keys{{
    {"bytes_out", size, required, "Volume."},
    {"per", duration, required, "Period."},
}};
constexpr std::array<Key, 18> rule_keys{{
    {"id", id, required, "Name of the rule; stable, since records refer to it."},
    {"title", text, required, "One line for the analyst."},
    {"description", text, optional, "What it counts, in words."},
    {"rationale", text, optional, "Why that is suspicious, and why from this amount on."},
    {"false_positives", text_list, optional, "What else looks like it, and what to do then."},
    {"revision", integer, optional, "Raised with every change of the rule. Default: 1."},
    {"status", word, optional,
     "live, or test: findings are recorded and marked, and not sent by outputs that do not ask for them. "
     "Default: live.",
     status_words},
    {"level", Form::level, required, "low, medium, high or critical."},
    {"tags", tag_list, optional, "Free words; ATT&CK techniques as attack.t1041."},
    {"when", mapping, optional, "Which flows it counts. Required but for a sequence.", {}, &when},
    {"window",
     mapping,
     optional,
     "A sum, or a number of different values, in a sliding window.",
     {},
     &window},
    {"upload_ratio", mapping, optional, "More out than in, in a sliding window.", {}, &upload_ratio},
    {"periodic", mapping, optional, "Contacts at even intervals: beaconing.", {}, &periodic},
    {"long_lived", mapping, optional, "A flow that lasts long.", {}, &long_lived},
    {"first_contact",
     mapping,
     optional,
     "What this host was never in touch with before.",
     {},
     &first_contact},
    {"sequence", mapping, optional, "Two rules, one after the other.", {}, &sequence},
    {"suppress", mapping, optional, "For how long the same group is not reported again.", {}, &suppress},
    {"exceptions", mapping_list, optional, "Flows that the rule does not count.", {}, &exception},
}};
// One key for each field that selects, and the three that nest.
constexpr std::size_t selecting = rows::count_of(USE_SELECT);
constexpr auto condition_keys = [](const Mapping* itself, bool with_allowed) {
    std::array<Key, selecting + 3> out{};
    std::size_t next = 0;
    for (const FieldInfo& field : rows::fields)
        if ((field.uses & USE_SELECT) != 0 && (with_allowed || field.field != Field::allowed))
            out[next++] = {field.name,   field.form,          optional,
                           field.doc,    field.words,         nullptr,
                           field.source, field.takes_unknown, field.takes_pattern};
    out[next++] = {"all", mapping_list, optional, "Conditions of the same keys: every one must hold.",
                   {},    itself};
    out[next++] = {"any", mapping_list, optional, "Conditions of which one is enough.", {}, itself};
    out[next] = {"not", mapping, optional, "A condition that must not hold. Unknown stays unknown.",
                 {},    itself};
    return out;
};
constexpr std::array<Key, selecting + 3> when_keys = condition_keys(&when, true);
constexpr std::array<Key, 7> window_keys{{
    {"sum", word, optional, "What is added up. Either this or distinct.", sum_words},
    {"distinct", word, optional, "The field whose different values are counted.", distinct_words},
    {"over", duration, required, "Length of the window, 1s to 90d."},
    {"by", word_list, required, by_doc, by_words},
    {"at_least", size, required,
     "The sum from which on it reports: bytes with a unit; packets, flows and values (2 to 4096) without."},
    {"bytes_each_at_most", size, optional,
     "With distinct: mean bytes out for each value, above which it is no scan and nothing is reported."},
    {"entropy_at_least", decimal, optional,
     "With distinct: name: mean Shannon entropy, in bits a character, of what stands in front of the "
     "registered "
     "domain. Words that people chose have 2 to 3.5."},
}};
constexpr std::array<Key, 4> upload_ratio_keys{{
    {"over", duration, required, "Length of the window, 1s to 90d."},
    {"by", word_list, required, by_doc, by_words},
    {"at_least", decimal, required, "Bytes out for each byte in, 1 to 1000000."},
    {"floor", size, required, "Bytes out in the window below which nothing is compared."},
}};
constexpr std::array<Key, 4> periodic_keys{{
    {"by", word_list, required, by_doc, by_words},
    {"at_least", integer, required,
     "Intervals between contacts, 4 to 32: the last 32 are looked at. A contact is activity after at least "
     "half of "
     "the shortest period without any."},
    {"every", duration_range, optional, "Median interval. Default: 10s..1d."},
    {"jitter_at_most", decimal, optional,
     "Median of the absolute deviations from the median interval, divided by it; 0 to 1. Default: 0.1."},
}};
constexpr std::array<Key, 2> long_lived_keys{{
    {"at_least", duration, required, "From the flow's first packet to its last so far."},
    {"by", word_list, optional,
     "Fields of the group that is reported. Default: remote, port, local_port, l4_proto, that is, each flow.",
     by_words},
}};
constexpr std::array<Key, 3> first_contact_keys{{
    {"of", word_list, required, "Fields whose values, together, were not seen before.", by_words},
    {"learn", duration, optional, "For how long after its start the rule only learns. Default: 7d."},
    {"forget", duration, optional, "A value not seen for so long counts as new again. Default: 90d."},
}};
constexpr std::array<Key, 4> sequence_keys{{
    {"first", id, required, "Rule that reaches its threshold first; a repeat that is suppressed counts too."},
    {"then", id, required, "Rule that reaches its threshold after it."},
    {"within", duration, required, "Time between the two, 1s to 90d."},
    {"by", word_list, required, by_doc, by_words},
}};
constexpr std::array<Key, 2> suppress_keys{{
    {"for", duration, required, "How long, in packet time. Without `suppress`: as long as the window."},
    {"by", word_list, optional, "Fields of the group; default: those of the window.", by_words},
}};
constexpr std::array<Key, 5> exception_keys{{
    {"match", mapping, required, "The flows, by the same keys as `when` has, but for `allowed`.", {}, &match},
    {"owner", text, required, "Who answers for the exception."},
    {"reason", text, optional, "Why it is one."},
    {"ticket", text, optional, "Where that was decided."},
    {"expires", expiry, required,
     "The last day on which it excuses (UTC), or the instant from which it no longer does."},
}};

// `policy` with what stands behind it: `rule` needs the tables above.
constexpr auto whole_policy_keys = [] {
    std::array<Key, policy_keys.size() + rules_keys.size()> out{};
    std::ranges::copy(rules_keys, std::ranges::copy(policy_keys, out.begin()).out);
    return out;
}();
// `match` is `when` without `allowed`.
constexpr std::array<Key, selecting + 2> match_keys = [] {
    const auto with_one_too_many = condition_keys(&match, false);
    std::array<Key, selecting + 2> out{};
    std::ranges::copy_n(with_one_too_many.begin(), static_cast<std::ptrdiff_t>(out.size()), out.begin());
    return out;
}();

}  // namespace

const Mapping policy{"policy", "Top of a file", whole_policy_keys};
const Mapping site{"site", "sites: NAME", site_keys};
const Mapping region{"region", "regions: NAME", region_keys};
const Mapping list{"list", "lists: NAME", list_keys};
const Mapping allow{"allow entry", "allow", allow_keys};
const Mapping to{"to", "allow: to", to_keys};
const Mapping from{"from", "allow: from", from_keys};
const Mapping ceiling{"ceiling", "allow: ceiling", ceiling_keys};
const Mapping rule{"rule", "rules", rule_keys};
const Mapping override_entry{"override", "overrides", override_keys};
const Mapping when{"when", "rules: when", when_keys};
const Mapping window{"window", "rules: window", window_keys};
const Mapping upload_ratio{"upload_ratio", "rules: upload_ratio", upload_ratio_keys};
const Mapping periodic{"periodic", "rules: periodic", periodic_keys};
const Mapping long_lived{"long_lived", "rules: long_lived", long_lived_keys};
const Mapping first_contact{"first_contact", "rules: first_contact", first_contact_keys};
const Mapping sequence{"sequence", "rules: sequence", sequence_keys};
const Mapping suppress{"suppress", "rules: suppress", suppress_keys};
const Mapping exception{"exception", "rules: exceptions", exception_keys};
const Mapping match{"match", "rules: exceptions: match", match_keys};

}  // namespace schema

namespace {

const std::array policy_mappings{
    &schema::policy,   &schema::site,       &schema::region,        &schema::list,
    &schema::allow,    &schema::to,         &schema::from,          &schema::ceiling,
    &schema::rule,     &schema::when,       &schema::window,        &schema::upload_ratio,
    &schema::periodic, &schema::long_lived, &schema::first_contact, &schema::sequence,
    &schema::suppress, &schema::exception,  &schema::match,         &schema::override_entry};

constexpr std::array renamed{
    Renamed{"policy", "version", "revision"},
    Renamed{"policy", "home_region", "home"},
    Renamed{"policy", "rule", "rules"},
    Renamed{"policy", "allowlist", "allow"},
    Renamed{"policy", "whitelist", "allow"},
    Renamed{"rule", "severity", "level"},
    Renamed{"rule", "priority", "level"},
    Renamed{"rule", "name", "id"},
    Renamed{"rule", "falsepositives", "false_positives"},
    Renamed{"rule", "condition", "when"},
    Renamed{"rule", "match", "when"},
    Renamed{"allow entry", "name", "id"},
    Renamed{"allow entry", "expiry", "expires"},
    Renamed{"allow entry", "description", "reason"},
    Renamed{"allow entry", "cidr", "to"},
    Renamed{"window", "threshold", "at_least"},
    Renamed{"window", "timeframe", "over"},
    Renamed{"window", "group_by", "by"},
    Renamed{"when", "and", "all"},
    Renamed{"when", "or", "any"},
    Renamed{"when", "direction", "initiator"},
    Renamed{"match", "and", "all"},
    Renamed{"match", "or", "any"},
    Renamed{"match", "direction", "initiator"},
    Renamed{"when", "protocol", "l4_proto"},
    Renamed{"when", "proto", "l4_proto"},
    Renamed{"when", "cidr", "remote"},
    Renamed{"when", "process", "executable"},
    Renamed{"match", "cidr", "remote"},
    Renamed{"match", "process", "executable"},
    Renamed{"match", "protocol", "l4_proto"},
    Renamed{"to", "ports", "port"},
    Renamed{"region", "country", "countries"},
    Renamed{"list", "countries", "country"},
    Renamed{"from", "process", "executable"},
    Renamed{"ceiling", "over", "per"},
};

std::string_view need_word(const Key& key) {
    return key.need == Need::required ? "required" : "optional";
}

// mdoc takes a line's leading dot or quote for a command, and wants each sentence on a line of its own.
std::string mdoc_text(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool sentence_ends = text[i] == ' ' && i > 0 && text[i - 1] == '.';
        out += text[i] == '\\' ? std::string("\\e") : std::string(1, sentence_ends ? '\n' : text[i]);
    }
    if (out.starts_with('.') || out.starts_with('\'')) out.insert(0, "\\&");
    return out;
}

}  // namespace

const Key* Mapping::find(std::string_view key) const noexcept {
    const auto found = std::ranges::find(keys, key, &Key::name);
    return found == keys.end() ? nullptr : &*found;
}

std::span<const Mapping* const> all_mappings() noexcept {
    return policy_mappings;
}

std::span<const Renamed> renamed_keys() noexcept {
    return renamed;
}

bool takes_list(Form form) noexcept {
    return form >= Form::text_list && form <= Form::tag_list;
}

std::string_view form_name(Form form) noexcept {
    switch (form) {
        case Form::text:
            return "text";
        case Form::id:
            return "name";
        case Form::count:
        case Form::integer:
            return "whole number";
        case Form::decimal:
            return "number";
        case Form::country:
            return "country";
        case Form::date:
            return "date";
        case Form::expiry:
            return "date or instant";
        case Form::size:
            return "size";
        case Form::duration:
            return "duration";
        case Form::level:
            return "level";
        case Form::version:
            return "version";
        case Form::word:
            return "word";
        case Form::boolean:
            return "true or false";
        case Form::text_list:
            return "list of texts";
        case Form::id_list:
            return "list of names";
        case Form::word_list:
            return "list of words";
        case Form::country_list:
            return "list of countries";
        case Form::cidr_list:
            return "list of prefixes";
        case Form::asn_list:
            return "list of AS numbers";
        case Form::domain_list:
            return "list of domains";
        case Form::path_list:
            return "list of paths";
        case Form::port_list:
            return "list of ports";
        case Form::protocol_list:
            return "list of protocols";
        case Form::number_list:
            return "list of numbers";
        case Form::hash_list:
            return "list of SHA-256 sums";
        case Form::time_of_day_list:
            return "list of times of day";
        case Form::tag_list:
            return "list of tags";
        case Form::size_range:
            return "range of sizes";
        case Form::count_range:
            return "range of numbers";
        case Form::duration_range:
            return "range of durations";
        case Form::rate_range:
            return "range of rates";
        case Form::instant_range:
            return "range of instants";
        case Form::zone:
            return "time zone";
        case Form::mapping:
            return "mapping";
        case Form::mapping_list:
            return "list of mappings";
        case Form::fragment:
            return "mapping of keys of the entry";
        case Form::named_mappings:
            return "named mappings";
    }
    return "";
}

std::string manual_fields() {
    std::string out =
        ".Bl -column registered_domain xxxxx xxxxxxxxxx xxxxxxxx xxxxx\n"
        ".It Sy field Ta Sy since Ta Sy used in Ta Sy source Ta Sy compared by\n";
    for (const FieldInfo& field : all_fields()) {
        std::string uses;
        for (const auto& [bit, word] :
             {std::pair{USE_SELECT, "when"}, std::pair{USE_GROUP, "by"}, std::pair{USE_DISTINCT, "distinct"}})
            if ((field.uses & bit) != 0) uses += (uses.empty() ? "" : ", ") + std::string(word);
        constexpr std::array<std::string_view, 4> sources{"given", "AS data", "names", "process"};
        out += ".It Cm " + std::string(field.name) + " Ta " + std::string(field.since) + " Ta " + uses +
               " Ta " + std::string(sources[static_cast<std::size_t>(field.source)]) + " Ta";
        const auto operators = operators_of(field);
        for (const std::string_view op : operators) out += " " + std::string(op);
        if (operators.empty()) out += " -";
        out += "\n";
    }
    return out + ".El\n";
}

std::string manual_tables() {
    return manual_tables_of(all_mappings());
}

std::string manual_tables_of(std::span<const Mapping* const> mappings) {
    std::string out;
    for (const Mapping* mapping : mappings) {
        out += ".Ss " + std::string(mapping->title) + "\n.Bl -tag -width Ds\n";
        for (const Key& key : mapping->keys) {
            out += ".It Cm " + std::string(key.name) + " Pq " + std::string(form_name(key.form)) + ", " +
                   std::string(need_word(key)) + "\n" + mdoc_text(key.doc) + "\n";
            if (!key.words.empty() && key.words.size() > 1) {
                out += "One of: ";
                for (std::size_t i = 0; i < key.words.size(); ++i)
                    out += (i == 0 ? "" : ", ") + std::string(key.words[i]);
                out += ".\n";
            }
            if (key.takes_unknown) out += "Or unknown.\n";
            if (key.takes_pattern) out += "Or re: and a regular expression.\n";
            if (key.source == Source::asn_data) out += "Unknown without AS data.\n";
        }
        out += ".El\n";
    }
    return out;
}

}  // namespace egresswatch::rules
