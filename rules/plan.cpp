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

std::size_t ports_in(const Predicate& predicate) {
    std::size_t out = 0;
    for (const PortRange& range : predicate.ports)
        out += static_cast<std::size_t>(range.last - range.first + 1) *
               (range.l4_proto == 0 ? protocols_with_ports.size() : 1);
    return out;
}

}  // namespace

bool Plan::Keyed::add(const Condition& condition, std::uint32_t index) {
    const auto keys = selector_keys(condition);
    if (!keys) return false;
    members.push_back(index);
    for (const std::uint32_t set : keys->sets) {
        if (set >= by_set.size()) by_set.resize(set + 1);
        by_set[set].push_back(index);
    }
    for (const std::uint64_t word : keys->words) by_word[word].push_back(index);
    kinds |= keys->kinds;
    return true;
}

Plan::Plan(const Policy& policy, const std::string& site) : policy_(&policy), site_(site) {
    rule_settled_.resize(policy.rules.size());
    for (std::uint32_t i = 0; i < policy.rules.size(); ++i) {
        const Rule& rule = policy.rules[i];
        if (rule.kind == RuleKind::sequence || keyed_rules_.add(rule.when, i)) continue;
        rule_settled_[i] = true;
        rules_.push_back(i);
    }
    allow_settled_.resize(policy.allows.size());
    for (std::uint32_t i = 0; i < policy.allows.size(); ++i) {
        if (keyed_allows_.add(policy.allows[i].match, i)) continue;
        allow_settled_[i] = true;
        allows_.push_back(i);
    }
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
    if (classes_[class_id] == nullptr) classes_[class_id] = std::make_unique<OfClass>();
    OfClass& out = *classes_[class_id];
    out = {};
    out.info = info;
    out.code = code_of(info);
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
    const auto some_possible = [&](const Keyed& keyed, Purpose purpose, auto condition_of) {
        return std::ranges::any_of(keyed.members, [&](std::uint32_t index) {
            return possible(condition_of(index), info, site_, purpose);
        });
    };
    const auto rule = [&](std::uint32_t i) -> const Condition& { return policy_->rules[i].when; };
    const auto allow = [&](std::uint32_t i) -> const Condition& { return policy_->allows[i].match; };
    fill(rules_, Purpose::rule, out.rules, rule);
    fill(allows_, Purpose::allow, out.allows, allow);
    out.keyed_rules = some_possible(keyed_rules_, Purpose::rule, rule);
    out.keyed_allows = some_possible(keyed_allows_, Purpose::allow, allow);
    out.idle = !out.keyed_rules && !out.keyed_allows && out.rules.any.empty() && out.rules.single.empty() &&
               out.allows.any.empty() && out.allows.single.empty();
    return out;
}

std::span<const Plan::Candidate> Plan::join_keyed(const Ports& ports, std::span<const Candidate> left,
                                                  const Keyed* keyed, const Subject& flow,
                                                  std::vector<Candidate>& scratch) {
    scratch.assign(left.begin(), left.end());
    if (!ports.single.empty()) {
        const std::uint64_t first = port_key(flow.flow.key.l4_proto, flow.flow.remote_port(), 0);
        for (auto at = std::ranges::lower_bound(ports.single, first);
             at != ports.single.end() && *at >> 32 == first >> 32; ++at)
            scratch.push_back({static_cast<std::uint32_t>(*at), {}});
    }
    const auto add = [&](const std::vector<std::uint32_t>& indices) {
        for (const std::uint32_t index : indices) scratch.push_back({index, {}});
    };
    if (keyed != nullptr && !keyed->by_set.empty())
        policy_->prefix_index().each_set(flow.place, [&](std::uint32_t set) {
            if (set < keyed->by_set.size()) add(keyed->by_set[set]);
        });
    if (keyed != nullptr && keyed->kinds != 0) {
        words_of(flow, keyed->kinds, words_);
        for (const std::uint64_t word : words_)
            if (const auto found = keyed->by_word.find(word); found != keyed->by_word.end())
                add(found->second);
    }
    if (scratch.size() > left.size()) {
        std::ranges::sort(scratch, {}, &Candidate::index);
        scratch.erase(std::ranges::unique(scratch, {}, &Candidate::index).begin(), scratch.end());
    }
    return scratch;
}

}  // namespace egresswatch::rules
