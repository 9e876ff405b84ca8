// rules/plan.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/plan.h"

#include <algorithm>
#include <array>

namespace egresswatch::rules {

namespace {

// Fewer candidates than this are looked at one after the other; more ports than this of one entry are no
// index.
constexpr std::size_t indexed_from = 8;
constexpr std::size_t single_ports_max = 64;

constexpr std::array<std::uint8_t, 5> protocols_with_ports{6, 17, 33, 132, 136};

std::uint64_t port_key(std::uint8_t l4_proto, std::uint16_t port, std::uint32_t index) {
    return (static_cast<std::uint64_t>(l4_proto) << 16 | port) << 32 | index;
}

// The sets that an address has to be in, one of them: where a condition asks for prefixes outside of the
// region table and for nothing else in that place.
std::vector<std::uint32_t> sets_of(const Condition& condition) {
    std::vector<std::uint32_t> out;
    if (const Predicate* remote = condition.find(Field::remote)) out.push_back(*remote->prefixes.place_set);
    if (!out.empty()) return out;
    const Predicate* list = condition.find(Field::list);
    if (list == nullptr) return out;
    for (const NamedSet& set : list->sets) {
        if (!set.prefixes.place_set || !set.countries.empty() || !set.asns.empty() || !set.domains.empty())
            return {};
        out.push_back(*set.prefixes.place_set);
    }
    return out;
}

std::size_t ports_in(const Predicate& predicate) {
    std::size_t out = 0;
    for (const PortRange& range : predicate.ports)
        out += static_cast<std::size_t>(range.last - range.first + 1) *
               (range.l4_proto == 0 ? protocols_with_ports.size() : 1);
    return out;
}

}  // namespace

Plan::Plan(const Policy& policy, const std::string& site) : policy_(&policy), site_(site) {
    const auto sort_by_set = [](const Condition& condition, std::uint32_t index, BySet& by_set,
                                std::vector<std::uint32_t>& others, std::vector<bool>& settled) {
        const std::vector<std::uint32_t> sets = sets_of(condition);
        settled[index] = sets.empty();
        if (sets.empty()) others.push_back(index);
        for (const std::uint32_t set : sets) {
            if (set >= by_set.size()) by_set.resize(set + 1);
            by_set[set].push_back(index);
        }
    };
    rule_settled_.resize(policy.rules.size());
    for (std::uint32_t i = 0; i < policy.rules.size(); ++i)
        if (policy.rules[i].kind != RuleKind::sequence)
            sort_by_set(policy.rules[i].when, i, rules_by_set_, rules_, rule_settled_);
    allow_settled_.resize(policy.allows.size());
    for (std::uint32_t i = 0; i < policy.allows.size(); ++i)
        sort_by_set(policy.allows[i].match, i, allows_by_set_, allows_, allow_settled_);
}

void Plan::sort_in(const Condition& condition, const Candidate& candidate, Ports& ports, bool by_port) const {
    const Predicate* port = condition.find(Field::port);
    if (!by_port || port == nullptr || port->unknown || ports_in(*port) > single_ports_max) {
        ports.any.push_back(candidate);
        return;
    }
    for (const PortRange& range : port->ports)
        for (unsigned number = range.first; number <= range.last; ++number)
            for (const std::uint8_t proto : protocols_with_ports)
                if (range.l4_proto == 0 || range.l4_proto == proto)
                    ports.single.push_back(
                        port_key(proto, static_cast<std::uint16_t>(number), candidate.index));
}

const Plan::OfClass& Plan::plan_class(std::uint16_t class_id, const ClassInfo& info) {
    if (class_id >= classes_.size()) classes_.resize(static_cast<std::size_t>(class_id) + 1);
    OfClass& out = classes_[class_id];
    out = {true, info, {}, {}, false};
    const auto fill = [&](const std::vector<std::uint32_t>& candidates, Purpose purpose, Ports& ports,
                          auto condition_of) {
        std::vector<std::uint32_t> left;
        for (const std::uint32_t index : candidates)
            if (possible(condition_of(index), info, site_, purpose)) left.push_back(index);
        for (const std::uint32_t index : left)
            sort_in(condition_of(index), {index, residue(condition_of(index), info, site_, purpose)}, ports,
                    left.size() > indexed_from);
        std::ranges::sort(ports.single);
        ports.single.erase(std::ranges::unique(ports.single).begin(), ports.single.end());
    };
    fill(rules_, Purpose::rule, out.rules,
         [&](std::uint32_t i) -> const Condition& { return policy_->rules[i].when; });
    fill(allows_, Purpose::allow, out.allows,
         [&](std::uint32_t i) -> const Condition& { return policy_->allows[i].match; });
    out.idle = rules_by_set_.empty() && allows_by_set_.empty() && out.rules.any.empty() &&
               out.rules.single.empty() && out.allows.any.empty() && out.allows.single.empty();
    return out;
}

std::span<const Plan::Candidate> Plan::join_sets(const Ports& ports, const BySet& by_set,
                                                 const FlowUpdate& flow, PrefixIndex::Place place,
                                                 std::vector<Candidate>& scratch) const {
    scratch.assign(ports.any.begin(), ports.any.end());
    if (!ports.single.empty()) {
        const std::uint64_t first = port_key(flow.key.l4_proto, flow.remote_port(), 0);
        for (auto at = std::ranges::lower_bound(ports.single, first);
             at != ports.single.end() && *at >> 32 == first >> 32; ++at)
            scratch.push_back({static_cast<std::uint32_t>(*at), {}});
    }
    policy_->prefix_index().each_set(place, [&](std::uint32_t set) {
        if (set >= by_set.size()) return;
        for (const std::uint32_t index : by_set[set]) scratch.push_back({index, {}});
    });
    if (scratch.size() > ports.any.size()) {
        std::ranges::sort(scratch, {}, &Candidate::index);
        scratch.erase(std::ranges::unique(scratch, {}, &Candidate::index).begin(), scratch.end());
    }
    return scratch;
}

}  // namespace egresswatch::rules
