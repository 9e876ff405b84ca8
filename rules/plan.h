// rules/plan.h - which rules and allow entries an update can still match: everything that its class, the
// prefixes around its remote address and its port decide is decided before. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// An entry that names prefixes, names, executables, AS numbers or the like is kept with these (selector.h)
// and looked at only for flows that have one of them; of the others a class keeps those that it can match,
// and of many of those the ones that name single ports by port. Cost: linear in what is left, not in the
// policy.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "rules/matcher.h"
#include "rules/policy.h"
#include "rules/selector.h"

namespace egresswatch::rules {

class Plan {
public:
    Plan() = default;
    Plan(const Policy& policy, const std::string& site);

    // A rule or an allow entry that may match, and what it still asks of the flow.
    struct Candidate {
        std::uint32_t index = 0;
        Residue residue;
    };
    struct Ports {  // in file order, and those by port: (l4_proto << 16 | port) << 32 | index, ascending
        std::vector<Candidate> any;
        std::vector<std::uint64_t> single;
    };
    struct OfClass {
        bool known = false;
        ClassInfo info;
        Ports rules, allows;
        bool keyed_rules = false, keyed_allows = false;  // it can match some that are kept by key
        bool idle = false;  // neither rules nor allow entries, wherever in the class an address lies
    };
    // Cached by class id. An id whose meaning has changed under the same policy is planned anew: comparing
    // costs less than being wrong.
    const OfClass& of_class(std::uint16_t class_id, const ClassInfo& info) {
        if (class_id < classes_.size() && classes_[class_id].known && same(classes_[class_id].info, info))
            return classes_[class_id];
        return plan_class(class_id, info);
    }

    // Of what rules() and allows() answer: whether planning has settled what the class decides, so that
    // match_flow() is enough.
    [[nodiscard]] bool class_settles_rule(std::uint32_t rule) const noexcept { return rule_settled_[rule]; }
    [[nodiscard]] bool class_settles_allow(std::uint32_t entry) const noexcept {
        return allow_settled_[entry];
    }

    // What may match, in file order. The answer lives until the next call with the same `scratch`.
    [[nodiscard]] std::span<const Candidate> rules(const OfClass& of_class, const Subject& flow,
                                                   std::vector<Candidate>& scratch) {
        return join(of_class.rules, of_class.keyed_rules ? &keyed_rules_ : nullptr, flow, scratch);
    }
    [[nodiscard]] std::span<const Candidate> allows(const OfClass& of_class, const Subject& flow,
                                                    std::vector<Candidate>& scratch) {
        return join(of_class.allows, of_class.keyed_allows ? &keyed_allows_ : nullptr, flow, scratch);
    }

private:
    // For every update: without a call for a country of two letters.
    [[nodiscard]] static bool same(const ClassInfo& a, const ClassInfo& b) noexcept {
        const auto letters = [](const Country& country, std::size_t i) {
            return i < country.size() ? country[i] : '\0';
        };
        return a.kind == b.kind && a.local == b.local && a.disputed == b.disputed &&
               a.country.size() == b.country.size() && letters(a.country, 0) == letters(b.country, 0) &&
               letters(a.country, 1) == letters(b.country, 1) && a.lists.size() == b.lists.size() &&
               ((a.country.size() <= 2 && a.lists.empty()) || a == b);
    }

    // Rules, or allow entries, by what a flow has to have.
    struct Keyed {
        std::vector<std::uint32_t> members;
        std::vector<std::vector<std::uint32_t>> by_set;  // index: set of the policy's PrefixIndex
        std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> by_word;
        WordKinds kinds = 0;  // of `by_word`

        bool add(const Condition& condition, std::uint32_t index);  // false: it has no keys
    };

    [[nodiscard]] std::span<const Candidate> join(const Ports& ports, const Keyed* keyed, const Subject& flow,
                                                  std::vector<Candidate>& scratch) {
        if (ports.single.empty() && (keyed == nullptr || (keyed->kinds == 0 && flow.place == 0)))
            return ports.any;
        return join_keyed(ports, keyed, flow, scratch);
    }
    [[nodiscard]] std::span<const Candidate> join_keyed(const Ports& ports, const Keyed* keyed,
                                                        const Subject& flow, std::vector<Candidate>& scratch);
    [[nodiscard]] const OfClass& plan_class(std::uint16_t class_id, const ClassInfo& info);
    void sort_in(const Condition& condition, const Candidate& candidate, Ports& ports, bool by_port) const;

    const Policy* policy_ = nullptr;
    std::string site_;
    std::vector<std::uint32_t> rules_, allows_;  // those without keys
    Keyed keyed_rules_, keyed_allows_;
    std::vector<bool> rule_settled_, allow_settled_;
    std::vector<OfClass> classes_;
    std::vector<std::uint64_t> words_;  // of an update; kept for their memory
};

}  // namespace egresswatch::rules
