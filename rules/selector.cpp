// rules/selector.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/selector.h"

#include <algorithm>
#include <functional>
#include <string_view>

namespace egresswatch::rules {

namespace {

// Keys and how many flows are likely to have one: what is lower is the better index.
struct Ranked {
    SelectorKeys keys;
    unsigned rank = 0;
};
constexpr unsigned prefix_rank = 0;
constexpr unsigned word_rank = 1;    // and the WordKind
constexpr unsigned list_rank = 100;  // of whatever a list holds

std::uint64_t mixed(WordKind kind, bool below, std::uint64_t hash) {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;
    return (hash ^ (static_cast<std::uint64_t>(kind) * 2 + (below ? 1 : 0) + 1) * golden) * golden;
}

std::uint64_t word(WordKind kind, std::string_view text, bool below = false) {
    return mixed(kind, below, std::hash<std::string_view>{}(text));
}

std::uint64_t word(WordKind kind, std::uint32_t number) {
    return mixed(kind, false, number);
}

WordKinds bit(WordKind kind) {
    return WordKinds{1} << static_cast<unsigned>(kind);
}

std::optional<WordKind> kind_of(Field field) {
    switch (field) {
        case Field::sha256:
            return WordKind::sha256;
        case Field::executable:
            return WordKind::executable;
        case Field::container:
            return WordKind::container;
        case Field::unit:
            return WordKind::unit;
        case Field::cgroup:
            return WordKind::cgroup;
        case Field::domain:
        case Field::dns:
        case Field::sni:
        case Field::http_host:
            return WordKind::name;
        case Field::asn:
            return WordKind::asn;
        case Field::user:
            return WordKind::user;
        case Field::uid:
            return WordKind::uid;
        default:
            return std::nullopt;
    }
}

void add_domains(const std::vector<DomainName>& domains, SelectorKeys& out) {
    for (const DomainName& domain : domains)
        out.words.push_back(word(WordKind::name, domain.name, domain.below));
    if (!domains.empty()) out.kinds |= bit(WordKind::name);
}

void add_asns(const std::vector<std::uint32_t>& asns, SelectorKeys& out) {
    for (const std::uint32_t asn : asns) out.words.push_back(word(WordKind::asn, asn));
    if (!asns.empty()) out.kinds |= bit(WordKind::asn);
}

std::optional<Ranked> of_list(const Predicate& predicate) {
    Ranked out{{}, list_rank};
    for (const NamedSet& set : predicate.sets) {
        if (set.prefixes.list || !set.countries.empty())
            return std::nullopt;  // the class of the address tells
        if (set.prefixes.place_set) out.keys.sets.push_back(*set.prefixes.place_set);
        add_domains(set.domains, out.keys);
        add_asns(set.asns, out.keys);
    }
    return out;
}

std::optional<Ranked> of_predicate(const Predicate& predicate) {
    if (predicate.unknown || !predicate.patterns.empty()) return std::nullopt;
    if (predicate.field == Field::list) return of_list(predicate);
    if (predicate.field == Field::remote)
        return Ranked{{{*predicate.prefixes.place_set}, {}, 0}, prefix_rank};
    const auto kind = kind_of(predicate.field);
    if (!kind) return std::nullopt;
    Ranked out{{}, word_rank + static_cast<unsigned>(*kind)};
    for (const std::string& text : predicate.texts) out.keys.words.push_back(word(*kind, text));
    if (*kind == WordKind::asn)
        add_asns(predicate.numbers, out.keys);
    else
        for (const std::uint32_t number : predicate.numbers) out.keys.words.push_back(word(*kind, number));
    add_domains(predicate.domains, out.keys);
    out.keys.kinds = bit(*kind);
    return out;
}

void join(SelectorKeys& into, const SelectorKeys& from) {
    into.sets.insert(into.sets.end(), from.sets.begin(), from.sets.end());
    into.words.insert(into.words.end(), from.words.begin(), from.words.end());
    into.kinds |= from.kinds;
}

std::optional<Ranked> of_condition(const Condition& condition);

// Each of them needs keys of its own: whichever holds, one of the keys is there.
std::optional<Ranked> of_any(const std::vector<Condition>& parts) {
    Ranked out;
    for (const Condition& part : parts) {
        const auto keys = of_condition(part);
        if (!keys) return std::nullopt;
        out.rank = std::max(out.rank, keys->rank);
        join(out.keys, keys->keys);
    }
    return out;
}

std::optional<Ranked> of_condition(const Condition& condition) {
    std::optional<Ranked> best;
    const auto offer = [&](std::optional<Ranked> keys) {
        if (keys && (!best || keys->rank < best->rank)) best = std::move(keys);
    };
    for (const Predicate& predicate : condition.predicates) offer(of_predicate(predicate));
    for (const Condition& part : condition.all) offer(of_condition(part));
    if (!condition.any.empty()) offer(of_any(condition.any));
    return best;
}

void add_name(std::string_view name, std::vector<std::uint64_t>& out) {
    if (name.empty()) return;
    out.push_back(word(WordKind::name, name));
    for (std::size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
        out.push_back(word(WordKind::name, name.substr(dot + 1), true));
}

}  // namespace

std::optional<SelectorKeys> selector_keys(const Condition& condition) {
    auto best = of_condition(condition);
    if (!best) return std::nullopt;
    return std::move(best->keys);
}

void words_of(const Subject& flow, WordKinds kinds, std::vector<std::uint64_t>& out) {
    out.clear();
    const FlowFacts& facts = flow.facts;
    const auto text = [&](WordKind kind, std::string_view value) {
        if ((kinds & bit(kind)) != 0 && !value.empty()) out.push_back(word(kind, value));
    };
    text(WordKind::sha256, facts.sha256);
    text(WordKind::executable, facts.executable);
    text(WordKind::container, facts.container);
    text(WordKind::unit, facts.unit);
    text(WordKind::cgroup, facts.cgroup);
    text(WordKind::user, facts.user);
    if ((kinds & bit(WordKind::uid)) != 0 && facts.uid) out.push_back(word(WordKind::uid, *facts.uid));
    if ((kinds & bit(WordKind::name)) != 0) {
        for (const std::string_view name : facts.dns) add_name(name, out);
        // Mostly the name that DNS was asked for.
        for (const std::string_view said : {facts.sni, facts.http_host})
            if (std::ranges::find(facts.dns, said) == facts.dns.end()) add_name(said, out);
    }
    if ((kinds & bit(WordKind::asn)) != 0)
        if (const std::uint32_t asn = flow.asn(); asn != 0) out.push_back(word(WordKind::asn, asn));
}

}  // namespace egresswatch::rules
