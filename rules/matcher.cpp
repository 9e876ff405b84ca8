// rules/matcher.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/matcher.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>

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
Truth inverse(Truth value) {
    return value == Truth::unknown ? value : truth(value == Truth::no);
}

template <typename Values, typename Value>
bool holds(const Values& values, const Value& value) {
    return std::ranges::find(values, value) != std::ranges::end(values);
}

bool in_domain(const DomainName& domain, std::string_view name) {
    if (!domain.below) return name == domain.name;
    return name.size() > domain.name.size() && name.ends_with(domain.name) &&
           name[name.size() - domain.name.size() - 1] == '.';
}

bool full_match(const re2::RE2& pattern, std::string_view text) {
    return re2::RE2::FullMatch(re2::StringPiece(text.data(), text.size()), pattern);
}

bool in_patterns(const Predicate& predicate, std::string_view text) {
    return std::ranges::any_of(predicate.patterns, [&](const auto& p) { return full_match(*p, text); });
}

// A value that may be missing.
Truth in_texts(const Predicate& predicate, std::string_view text) {
    if (text.empty()) return predicate.unknown ? Truth::yes : Truth::unknown;
    return truth(holds(predicate.texts, text) || in_patterns(predicate, text));
}

Truth in_numbers(const Predicate& predicate, std::optional<std::uint32_t> number) {
    if (!number) return predicate.unknown ? Truth::yes : Truth::unknown;
    return truth(holds(predicate.numbers, *number));
}

bool in_ranges(const Predicate& predicate, std::uint64_t value) {
    const auto limited =
        static_cast<std::int64_t>(std::min<std::uint64_t>(value, std::numeric_limits<std::int64_t>::max()));
    return std::ranges::any_of(predicate.ranges,
                               [&](const Range& r) { return r.min <= limited && limited <= r.max; });
}

// Calls visit(name) for the names that count; false where there is none. For an allow entry's `domain` that
// is what the sender says, for one address may serve many names, and else what DNS said, by a server that the
// operators list.
template <typename Visit>
bool each_name(Field field, const FlowFacts& facts, Purpose purpose, Visit visit) {
    bool any = false;
    const auto one = [&](std::string_view name) {
        if (name.empty()) return;
        any = true;
        visit(name);
    };
    const bool all = field == Field::domain;
    if (all && purpose == Purpose::allow && !facts.said().empty()) {
        one(facts.said());
        return any;
    }
    if (all || field == Field::dns)
        for (const std::string_view name : purpose == Purpose::allow ? facts.dns_listed() : facts.dns)
            one(name);
    if ((all && !facts.names_local) || field == Field::sni) one(facts.sni);
    if ((all && !facts.names_local) || field == Field::http_host) one(facts.http_host);
    return any;
}

// A name that the sender says and that DNS contradicts is no permission; nor is DNS where the sender may have
// said something else; nor what it shows where it hides whom it means.
bool is_doubtful(const Predicate& predicate, Field field, const FlowFacts& facts, Purpose purpose) {
    if (purpose != Purpose::allow) return false;
    const bool hidden = facts.hidden != 0 && !facts.names_local && !predicate.takes_hidden;
    if (field == Field::sni) return hidden;
    return field == Field::domain && (hidden || facts.contradiction || facts.unread);
}

Truth in_names(const Predicate& predicate, const FlowFacts& facts, Purpose purpose) {
    bool found = false;
    const bool any = each_name(predicate.field, facts, purpose, [&](std::string_view name) {
        found |= std::ranges::any_of(predicate.domains, [&](const auto& d) { return in_domain(d, name); }) ||
                 in_patterns(predicate, name);
    });
    if (!any) return predicate.unknown ? Truth::yes : Truth::unknown;
    return found && is_doubtful(predicate, predicate.field, facts, purpose) ? Truth::unknown : truth(found);
}

template <typename Countries>
Truth in_countries(const Countries& countries, const ClassInfo& info, Purpose purpose) {
    if (std::ranges::empty(countries) || info.kind == datapath::KIND_LOCAL) return Truth::no;
    if (info.country.empty()) return Truth::unknown;
    if (!holds(countries, info.country)) return Truth::no;
    return info.disputed && purpose == Purpose::allow ? Truth::unknown : Truth::yes;
}

Truth country_matches(const Predicate& predicate, const ClassInfo& info, Purpose purpose) {
    const bool unknown = info.country.empty() && info.kind != datapath::KIND_LOCAL;
    return either(truth(predicate.unknown && unknown), in_countries(predicate.countries, info, purpose));
}

// By the class alone.
Truth in_set_by_class(const NamedSet& set, const ClassInfo& info, Purpose purpose) {
    if (set.prefixes.list && std::ranges::binary_search(info.lists, *set.prefixes.list)) return Truth::yes;
    return in_countries(set.countries, info, purpose);
}

Truth in_set(const Predicate& predicate, const NamedSet& set, const Subject& subject, Purpose purpose) {
    Truth out = in_set_by_class(set, subject.info, purpose);
    if (out == Truth::yes) return out;
    if (set.prefixes.place_set && subject.prefixes.contains(subject.place, *set.prefixes.place_set))
        return Truth::yes;
    if (!set.asns.empty()) {
        const std::uint32_t asn = subject.asn();
        out = either(out, asn == 0 ? Truth::unknown : truth(holds(set.asns, asn)));
    }
    if (!set.domains.empty()) {
        bool found = false;
        const bool any = each_name(Field::domain, subject.facts, purpose, [&](std::string_view name) {
            found |= std::ranges::any_of(set.domains, [&](const auto& d) { return in_domain(d, name); });
        });
        const bool known = any && !(found && is_doubtful(predicate, Field::domain, subject.facts, purpose));
        out = either(out, known ? truth(found) : Truth::unknown);
    }
    return out;
}

Truth in_class(const Predicate& predicate, const ClassInfo& info) {
    return truth((predicate.bits >> info.kind & 1) != 0 ||
                 (info.kind == datapath::KIND_LOCAL && (predicate.bits >> (8 + info.local) & 1) != 0));
}

bool has_ports(std::uint8_t l4_proto) {
    return l4_proto == 6 || l4_proto == 17 || l4_proto == 132 || l4_proto == 33 || l4_proto == 136;
}

// Port 0 is what a fragment without a transport header counts to: its port is not known.
Truth in_ports(const Predicate& predicate, std::uint16_t port, std::uint8_t l4_proto) {
    if (!has_ports(l4_proto)) return Truth::no;
    if (port == 0 && predicate.unknown) return Truth::yes;
    Truth out = Truth::no;
    for (const PortRange& range : predicate.ports) {
        if (range.l4_proto != 0 && range.l4_proto != l4_proto) continue;
        if (port == 0) return Truth::unknown;
        if (range.first <= port && port <= range.last) out = Truth::yes;
    }
    return out;
}

std::uint64_t lasting(const FlowUpdate& flow) {  // nanoseconds
    return flow.last_seen > flow.first_seen
               ? static_cast<std::uint64_t>(flow.last_seen.time_since_epoch().count()) -
                     static_cast<std::uint64_t>(flow.first_seen.time_since_epoch().count())
               : 0;
}

std::uint64_t rate(std::uint64_t bytes, const FlowUpdate& flow) {
    constexpr double second = 1e9;
    return static_cast<std::uint64_t>(static_cast<double>(bytes) * second /
                                      std::max(static_cast<double>(lasting(flow)), second));
}

bool in_spans(const Predicate& predicate, std::uint16_t minute) {
    return std::ranges::any_of(predicate.spans, [&](const DaySpan& span) {
        return span.from < span.to ? span.from <= minute && minute < span.to
                                   : span.from <= minute || minute < span.to;
    });
}

Truth match_amount(const Predicate& predicate, const FlowUpdate& flow) {
    switch (predicate.field) {
        case Field::bytes_out:
            return truth(in_ranges(predicate, flow.total.bytes_out));
        case Field::bytes_in:
            return truth(in_ranges(predicate, flow.total.bytes_in));
        case Field::packets_out:
            return truth(in_ranges(predicate, flow.total.packets_out));
        case Field::packets_in:
            return truth(in_ranges(predicate, flow.total.packets_in));
        case Field::duration:
            return truth(in_ranges(predicate, lasting(flow) / 1'000'000'000));
        case Field::rate_out:
            return truth(in_ranges(predicate, rate(flow.total.bytes_out, flow)));
        case Field::rate_in:
            return truth(in_ranges(predicate, rate(flow.total.bytes_in, flow)));
        case Field::first_seen: {
            const std::int64_t began = flow.first_seen.time_since_epoch().count();
            return truth(std::ranges::any_of(
                predicate.ranges, [&](const Range& r) { return r.min <= began && began <= r.max; }));
        }
        default:
            return Truth::unknown;
    }
}

Truth match_process(const Predicate& predicate, const FlowFacts& facts) {
    switch (predicate.field) {
        case Field::executable:
            return in_texts(predicate, facts.executable);
        case Field::sha256:
            return in_texts(predicate, facts.sha256);
        case Field::user:
            return in_texts(predicate, facts.user);
        case Field::uid:
            return in_numbers(predicate, facts.uid);
        case Field::cgroup:
            return in_texts(predicate, facts.cgroup);
        case Field::unit:
            return in_texts(predicate, facts.unit);
        case Field::container:
            return in_texts(predicate, facts.container);
        case Field::sender:
            if (facts.sender == datapath::SENDER_UNSEEN)
                return predicate.unknown ? Truth::yes : Truth::unknown;
            return truth((predicate.bits >> facts.sender & 1) != 0);
        case Field::app:
            return in_texts(predicate, facts.app);
        default:
            return Truth::unknown;
    }
}

// Exactly what the class or the site decides; unset for every other field.
std::optional<Truth> match_by_class(const Predicate& predicate, const ClassInfo& info,
                                    const std::string& site, Purpose purpose) {
    switch (predicate.field) {
        case Field::site:
            return in_texts(predicate, site);
        case Field::address_class:
            return in_class(predicate, info);
        case Field::country:
            return country_matches(predicate, info, purpose);
        case Field::disputed:
            return truth((predicate.bits >> (info.disputed ? 1 : 0) & 1) != 0);
        default:
            return std::nullopt;
    }
}

// Over what a class leaves open, the best that can come of it and the worst.
struct Bounds {
    Truth worst, best;
};

Bounds bounds_of(const Predicate& predicate, const ClassInfo& info, const std::string& site,
                 Purpose purpose) {
    if (const auto exact = match_by_class(predicate, info, site, purpose)) return {*exact, *exact};
    if (predicate.field != Field::region && predicate.field != Field::list) return {Truth::no, Truth::yes};
    Truth worst = predicate.field == Field::region ? in_class(predicate, info) : Truth::no;
    bool open = false;
    for (const NamedSet& set : predicate.sets) {
        worst = either(worst, in_set_by_class(set, info, purpose));
        open |= set.prefixes.place_set || !set.asns.empty() || !set.domains.empty();
    }
    return {worst, open ? Truth::yes : worst};
}

Bounds bounds_of(const Condition& condition, const ClassInfo& info, const std::string& site,
                 Purpose purpose) {
    Bounds out{Truth::yes, Truth::yes};
    const auto add = [&](Bounds part) { out = {both(out.worst, part.worst), both(out.best, part.best)}; };
    for (const Predicate& predicate : condition.predicates) add(bounds_of(predicate, info, site, purpose));
    for (const Condition& part : condition.all) add(bounds_of(part, info, site, purpose));
    for (const Condition& part : condition.none) {
        const Bounds inner = bounds_of(part, info, site, purpose);
        add({inverse(inner.best), inverse(inner.worst)});
    }
    if (condition.any.empty()) return out;
    Bounds any{Truth::no, Truth::no};
    for (const Condition& part : condition.any) {
        const Bounds inner = bounds_of(part, info, site, purpose);
        any = {either(any.worst, inner.worst), either(any.best, inner.best)};
    }
    add(any);
    return out;
}

Truth match_by_flow(const Predicate& predicate, const Subject& subject, Purpose purpose);

Truth match_from(const Condition& condition, std::size_t first, const Subject& subject, Purpose purpose) {
    Truth out = Truth::yes;
    for (std::size_t i = first; i < condition.predicates.size(); ++i) {
        const Predicate& predicate = condition.predicates[i];
        out = both(out, i < condition.flow_from ? match(predicate, subject, purpose)
                                                : match_by_flow(predicate, subject, purpose));
        if (out == Truth::no) return out;
    }
    for (const Condition& part : condition.all) out = both(out, match(part, subject, purpose));
    for (const Condition& part : condition.none) out = both(out, inverse(match(part, subject, purpose)));
    if (condition.any.empty() || out == Truth::no) return out;
    Truth any = Truth::no;
    for (const Condition& part : condition.any) any = either(any, match(part, subject, purpose));
    return both(out, any);
}

}  // namespace

Truth match(const Predicate& predicate, const Subject& subject, Purpose purpose) {
    if (const auto exact = match_by_class(predicate, subject.info, subject.site(), purpose)) return *exact;
    return match_by_flow(predicate, subject, purpose);
}

namespace {

Truth match_by_flow(const Predicate& predicate, const Subject& subject, Purpose purpose) {
    const FlowUpdate& flow = subject.flow;
    switch (predicate.field) {
        case Field::region:
        case Field::list: {
            Truth out = predicate.field == Field::region ? in_class(predicate, subject.info) : Truth::no;
            for (const NamedSet& set : predicate.sets)
                out = either(out, in_set(predicate, set, subject, purpose));
            return out;
        }
        case Field::remote:
            return truth(subject.prefixes.contains(subject.place, *predicate.prefixes.place_set));
        case Field::port:
            return in_ports(predicate, flow.remote_port(), flow.key.l4_proto);
        case Field::local_port:
            return in_ports(predicate, flow.local_port(), flow.key.l4_proto);
        case Field::l4_proto:
            return in_numbers(predicate, flow.key.l4_proto);
        case Field::initiator:
            if (flow.initiator == datapath::INITIATOR_UNKNOWN)
                return predicate.unknown ? Truth::yes : Truth::unknown;
            return truth((predicate.bits >> flow.initiator & 1) != 0);
        case Field::tunnel:
            return truth((predicate.bits >> flow.key.tunnel & 1) != 0);
        case Field::allowed:
            return truth((predicate.bits >> (subject.allowed ? 1 : 0) & 1) != 0);
        case Field::interface:
            return in_texts(predicate, subject.interface());
        case Field::asn:
            return in_numbers(predicate, subject.asn() == 0 ? std::nullopt : std::optional(subject.asn()));
        case Field::domain:
        case Field::dns:
        case Field::sni:
        case Field::http_host:
            return in_names(predicate, subject.facts, purpose);
        case Field::hidden:
            return truth((predicate.bits >> subject.facts.hidden & 1) != 0);
        case Field::time_of_day:
            return truth(in_spans(predicate, subject.moment().minute));
        case Field::weekday:
            return truth((predicate.bits >> subject.moment().weekday & 1) != 0);
        default:
            return field_info(predicate.field).source == Source::given
                       ? match_amount(predicate, flow)
                       : match_process(predicate, subject.facts);
    }
}

}  // namespace

Truth match(const Condition& condition, const Subject& subject, Purpose purpose) {
    return match_from(condition, 0, subject, purpose);
}

Truth match_flow(const Condition& condition, const Subject& subject, Purpose purpose) {
    return match_from(condition, condition.flow_from, subject, purpose);
}

bool possible(const Condition& condition, const ClassInfo& info, const std::string& site, Purpose purpose) {
    return bounds_of(condition, info, site, purpose).best == Truth::yes;
}

namespace {

// FlowBits: 9 tunnel kinds, 3 of who connected, not allowed and allowed, 5 protocols.
constexpr unsigned initiator_bit = datapath::TUNNEL_COUNT;
static_assert(allowed_bit == initiator_bit + 3);
constexpr unsigned protocol_bit = allowed_bit + 2;
constexpr std::array<std::uint8_t, 4> named_protocols{6, 17, 1, 58};
constexpr unsigned bits_used = protocol_bit + named_protocols.size() + 1;
static_assert(bits_used <= 32);

constexpr FlowBits span_of(unsigned first, unsigned count) {
    return ((FlowBits{1} << count) - 1) << first;
}

constexpr FlowBits protocol_of(std::uint8_t l4_proto) {
    for (unsigned i = 0; i < named_protocols.size(); ++i)
        if (named_protocols[i] == l4_proto) return FlowBits{1} << (protocol_bit + i);
    return FlowBits{1} << (protocol_bit + named_protocols.size());
}

constexpr auto protocols = [] {
    std::array<FlowBits, 256> out{};
    for (unsigned i = 0; i < out.size(); ++i) out[i] = protocol_of(static_cast<std::uint8_t>(i));
    return out;
}();

// The bits with which a predicate can hold; `exact`: with any of them it does.
struct BitsOf {
    FlowBits bits = ~FlowBits{0};
    bool exact = false;
};

BitsOf with_bits(unsigned first, unsigned count, FlowBits wanted) {
    return {~span_of(first, count) | (wanted << first & span_of(first, count)), true};
}

BitsOf bits_of_protocols(const Predicate& predicate) {
    constexpr FlowBits all = span_of(protocol_bit, named_protocols.size() + 1);
    constexpr FlowBits others = FlowBits{1} << (protocol_bit + named_protocols.size());
    BitsOf out{~all, true};
    const auto add = [&](std::uint32_t number) {
        out.bits |= number < protocols.size() ? protocols[number] : 0;
        if (number < protocols.size() && protocols[number] == others) out.exact = false;
    };
    if (predicate.field == Field::l4_proto) {
        for (const std::uint32_t number : predicate.numbers) add(number);
        return out;
    }
    // Ports: the protocols of their ranges.
    if (predicate.unknown) return {};
    for (const PortRange& range : predicate.ports) {
        if (range.l4_proto == 0) return {};
        add(range.l4_proto);
    }
    out.exact = false;
    return out;
}

BitsOf bits_of(const Predicate& predicate) {
    switch (predicate.field) {
        case Field::tunnel:
            return with_bits(0, datapath::TUNNEL_COUNT, predicate.bits);
        case Field::initiator:  // the lowest bit: not known
            return with_bits(initiator_bit, 3, (predicate.bits & 6) | (predicate.unknown ? 1 : 0));
        case Field::allowed:
            return with_bits(allowed_bit, 2, predicate.bits);
        case Field::l4_proto:
        case Field::port:
        case Field::local_port:
            return bits_of_protocols(predicate);
        default:
            return {};
    }
}

}  // namespace

FlowBits flow_bits(const FlowUpdate& flow) noexcept {
    return FlowBits{1} << flow.key.tunnel % datapath::TUNNEL_COUNT |
           FlowBits{1} << (initiator_bit + flow.initiator % 3u) | FlowBits{1} << allowed_bit |
           protocols[flow.key.l4_proto];
}

Residue residue(const Condition& condition, const ClassInfo& info, const std::string& site, Purpose purpose) {
    Residue out{~FlowBits{0}, condition.all.empty() && condition.any.empty() && condition.none.empty()};
    for (const Predicate& predicate : condition.predicates) {
        if (bounds_of(predicate, info, site, purpose).worst == Truth::yes) continue;
        const BitsOf wanted = bits_of(predicate);
        out.bits &= wanted.bits;
        out.decided &= wanted.exact;
    }
    return out;
}

namespace {

std::string port_text(std::uint16_t port, std::uint8_t l4_proto) {
    if (!has_ports(l4_proto)) return "protocol " + l4_proto_name(l4_proto) + " has no port and";
    if (port == 0) return "the port of a fragment is unknown and";
    return "port " + std::to_string(port) + "/" + l4_proto_name(l4_proto);
}

std::string why_not_initiator(const Predicate& predicate, const FlowUpdate& flow) {
    const bool wants_local = (predicate.bits >> datapath::INITIATOR_LOCAL & 1) != 0;
    return (flow.initiator == datapath::INITIATOR_UNKNOWN  ? std::string("who connected is unknown")
            : flow.initiator == datapath::INITIATOR_REMOTE ? std::string("the remote end connected")
                                                           : std::string("this host connected")) +
           ", and it covers only where " + (wants_local ? "this host connects" : "the remote end connects");
}

std::string why_not_said(const Predicate& predicate, Truth answer, const FlowFacts& facts) {
    std::string out =
        "the sender asks for " + std::string(facts.said()) + ", which is not in " + shown(predicate.text);
    if (answer == Truth::unknown) out = "the sender asks for " + std::string(facts.said());
    if (!facts.contradiction) return out;
    return out + (facts.dns.empty() ? "; DNS says that there is no such name"
                                    : "; DNS gave the address the name " + std::string(facts.dns.back()));
}

std::string why_not(const Predicate& predicate, Truth answer, const Subject& subject, Purpose purpose) {
    const FlowUpdate& flow = subject.flow;
    const ClassInfo& info = subject.info;
    const std::string name(field_info(predicate.field).name);
    switch (predicate.field) {
        case Field::port:
            return port_text(flow.remote_port(), flow.key.l4_proto) + " is not in " + predicate.text;
        case Field::initiator:
            return why_not_initiator(predicate, flow);
        case Field::country:
        case Field::region:
        case Field::list:
            if (answer != Truth::unknown) break;
            if (info.country.empty()) return "the country is unknown";
            if (info.disputed) return "the geo sources disagree about country " + info.country;
            return name + " has values that are unknown of this flow";
        case Field::remote:
            return "address " + flow.remote().to_string() + " is not in " + shown(predicate.text);
        default:
            break;
    }
    const bool by_said = predicate.field == Field::domain || predicate.field == Field::sni;
    if (by_said && answer == Truth::unknown && is_doubtful(predicate, Field::sni, subject.facts, purpose))
        return "the ClientHello hides whom it is for" +
               (subject.facts.sni.empty() ? std::string() : " behind " + std::string(subject.facts.sni));
    if (predicate.field == Field::domain && purpose == Purpose::allow && subject.facts.unread)
        return "what the sender asks for could not be read";
    if (predicate.field == Field::domain && purpose == Purpose::allow && !subject.facts.said().empty())
        return why_not_said(predicate, answer, subject.facts);
    const bool by_names = predicate.field == Field::domain || predicate.field == Field::dns;
    if (answer == Truth::unknown && by_names && purpose == Purpose::allow && subject.facts.dns_unlisted != 0)
        return "only a name server that is not in names.resolvers says that the address is " +
               std::string(subject.facts.dns[subject.facts.dns_unlisted - 1]);
    if (answer == Truth::unknown) return name + " of this flow is unknown";
    return name + " is not " + shown(predicate.text);
}

}  // namespace

std::string why_not(const Condition& condition, const Subject& subject, Purpose purpose) {
    // A plain no says more than what is not known.
    for (const Truth wanted : {Truth::no, Truth::unknown})
        for (const Predicate& predicate : condition.predicates)
            if (const Truth answer = match(predicate, subject, purpose); answer == wanted)
                return why_not(predicate, answer, subject, purpose);
    for (const Condition& part : condition.all)
        if (match(part, subject, purpose) != Truth::yes) return why_not(part, subject, purpose);
    if (match(condition, subject, purpose) == Truth::yes) return {};
    return condition.any.empty() ? "what `not` excludes holds, or is unknown" : "nothing under `any` holds";
}

}  // namespace egresswatch::rules
