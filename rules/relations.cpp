// rules/relations.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/relations.h"

#include <algorithm>
#include <cmath>

namespace egresswatch::rules {

namespace {

template <typename Outer, typename Inner, typename Equal>
bool all_in(const Outer& outer, const Inner& inner, Equal equal) {
    return std::ranges::all_of(inner, [&](const auto& i) {
        return std::ranges::any_of(outer, [&](const auto& o) { return equal(o, i); });
    });
}

template <typename Values, typename Overlap>
bool none_overlap(const Values& a, const Values& b, Overlap overlap) {
    return std::ranges::none_of(a, [&](const auto& x) {
        return std::ranges::any_of(b, [&](const auto& y) { return overlap(x, y); });
    });
}

bool prefix_in(const Prefix& outer, const Prefix& inner) {
    return outer.is_ipv4() == inner.is_ipv4() && outer.length <= inner.length && outer.contains(inner.base);
}

bool domain_in(const DomainName& outer, const DomainName& inner) {
    return outer == inner || (outer.below && inner.name.ends_with("." + outer.name));
}

bool range_in(const Range& outer, const Range& inner) {
    return outer.min <= inner.min && inner.max <= outer.max;
}

bool ports_overlap(const PortRange& a, const PortRange& b) {
    return a.first <= b.last && b.first <= a.last &&
           (a.l4_proto == 0 || b.l4_proto == 0 || a.l4_proto == b.l4_proto);
}

bool spans_overlap(const DaySpan& a, const DaySpan& b) {
    const auto holds = [](const DaySpan& span, unsigned minute) {
        return span.from < span.to ? span.from <= minute && minute < span.to
                                   : span.from <= minute || minute < span.to;
    };
    return holds(a, b.from) || holds(b, a.from);
}

// Of fields of which a flow has one value: whether no value satisfies both.
bool exclude(const Predicate& a, const Predicate& b) {
    if (a.field != b.field || (a.unknown && b.unknown) || !a.patterns.empty() || !b.patterns.empty())
        return false;
    switch (a.field) {
        case Field::domain:  // a flow can have several
        case Field::dns:
        case Field::list:
        case Field::region:
        case Field::country:  // which of them an address can have is tried out
        case Field::address_class:
            return false;
        default:
            break;
    }
    return (a.bits & b.bits) == 0 && none_overlap(a.ports, b.ports, ports_overlap) &&
           none_overlap(a.numbers, b.numbers, std::equal_to<>{}) &&
           none_overlap(a.texts, b.texts, std::equal_to<>{}) &&
           none_overlap(a.domains, b.domains,
                        [](const auto& x, const auto& y) { return domain_in(x, y) || domain_in(y, x); }) &&
           none_overlap(a.cidrs, b.cidrs,
                        [](const auto& x, const auto& y) { return prefix_in(x, y) || prefix_in(y, x); }) &&
           none_overlap(a.ranges, b.ranges,
                        [](const Range& x, const Range& y) { return x.min <= y.max && y.min <= x.max; }) &&
           none_overlap(a.spans, b.spans, spans_overlap);
}

// All predicates that must hold.
void collect(const Condition& condition, std::vector<const Predicate*>& out) {
    for (const Predicate& predicate : condition.predicates) out.push_back(&predicate);
    for (const Condition& part : condition.all) collect(part, out);
}

void collect_excluded(const Condition& condition, std::vector<const Condition*>& out) {
    for (const Condition& part : condition.none) out.push_back(&part);
    for (const Condition& part : condition.all) collect_excluded(part, out);
}

std::string in_words(const Predicate& predicate) {
    return "`" + std::string(field_info(predicate.field).name) + "` " + predicate.text;
}

bool covered(const std::vector<Prefix>& prefixes, const Prefix& part) {
    if (std::ranges::any_of(prefixes, [&](const Prefix& p) { return prefix_in(p, part); })) return true;
    if (std::ranges::none_of(prefixes, [&](const Prefix& p) { return prefix_in(part, p); })) return false;
    Prefix low = part;
    ++low.length;
    Prefix high = low;
    const unsigned bit = part.length + (part.is_ipv4() ? 96u : 0u);
    high.base.bytes[bit / 8] = static_cast<std::uint8_t>(high.base.bytes[bit / 8] | 0x80u >> bit % 8);
    return covered(prefixes, low) && covered(prefixes, high);
}

}  // namespace

bool covers(const Predicate& a, const Predicate& b) {
    if (a.field != b.field) return false;
    // What a hidden name shows is a name to one of them only.
    const bool names = a.field == Field::domain || a.field == Field::sni || a.field == Field::list;
    if (names && b.takes_hidden && !a.takes_hidden) return false;
    if (a.text == b.text) return true;
    if (!a.patterns.empty() || !b.patterns.empty() || !a.spans.empty()) return false;
    if ((b.bits & ~a.bits) != 0 || (b.unknown && !a.unknown)) return false;
    const auto same_name = [](const NamedSet& x, const NamedSet& y) { return x.name == y.name; };
    const auto port_in = [](const PortRange& outer, const PortRange& inner) {
        return outer.first <= inner.first && inner.last <= outer.last &&
               (outer.l4_proto == 0 || outer.l4_proto == inner.l4_proto);
    };
    return all_in(a.cidrs, b.cidrs, prefix_in) && all_in(a.sets, b.sets, same_name) &&
           all_in(a.countries, b.countries, std::equal_to<>{}) && all_in(a.ports, b.ports, port_in) &&
           all_in(a.numbers, b.numbers, std::equal_to<>{}) && all_in(a.texts, b.texts, std::equal_to<>{}) &&
           all_in(a.domains, b.domains, domain_in) && all_in(a.ranges, b.ranges, range_in);
}

bool covers(const Condition& a, const Condition& b) {
    if (!a.all.empty() || !a.any.empty() || !a.none.empty()) return false;
    std::vector<const Predicate*> needed;
    collect(b, needed);
    return std::ranges::all_of(a.predicates, [&](const Predicate& outer) {
        return std::ranges::any_of(needed, [&](const Predicate* inner) { return covers(outer, *inner); });
    });
}

std::string contradiction(const Condition& condition) {
    std::vector<const Predicate*> needed;
    collect(condition, needed);
    for (std::size_t i = 0; i < needed.size(); ++i)
        for (std::size_t j = i + 1; j < needed.size(); ++j)
            if (exclude(*needed[i], *needed[j]))
                return in_words(*needed[i]) + " and " + in_words(*needed[j]) + " exclude each other";
    std::vector<const Condition*> excluded;
    collect_excluded(condition, excluded);
    for (const Condition* part : excluded) {
        if (part->predicates.empty() || !covers(*part, condition)) continue;
        return "`not` excludes all that it asks for: " + in_words(part->predicates.front());
    }
    return {};
}

bool cover_everything(const std::vector<Prefix>& prefixes) {
    for (const bool ipv4 : {true, false}) {
        double share = 0;
        for (const Prefix& prefix : prefixes)
            if (prefix.is_ipv4() == ipv4) share += std::ldexp(1.0, -static_cast<int>(prefix.length));
        if (share < 1) continue;
        Prefix all;
        if (ipv4) all.base = Address::from_ipv4(0);
        if (covered(prefixes, all)) return true;
    }
    return false;
}

}  // namespace egresswatch::rules
