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
#include <cstring>
#include <memory>
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
        ClassInfo info;
        std::uint64_t code = 0;  // of the same
        Ports rules, allows;
        bool keyed_rules = false, keyed_allows = false;  // it can match some that are kept by key
        bool idle = false;  // neither rules nor allow entries, wherever in the class an address lies
    };
    // Cached by class id. An id whose meaning has changed under the same policy is planned anew: comparing
    // costs less than being wrong.
    // The answer stays where it is, and as it is until its id is asked for with another meaning.
    const OfClass& of_class(std::uint16_t class_id, const ClassInfo& info) {
        const std::uint64_t code = code_of(info);
        if (class_id < classes_.size() && classes_[class_id] != nullptr) {
            const OfClass& known = *classes_[class_id];
            if (known.code == code && (code != no_code || known.info == info)) return known;
        }
        return plan_class(class_id, info);
    }

    // Of what rules() and allows() answer: whether planning has settled what the class decides, so that
    // match_flow() is enough.
    [[nodiscard]] bool class_settles_rule(std::uint32_t rule) const noexcept { return rule_settled_[rule]; }
    [[nodiscard]] bool class_settles_allow(std::uint32_t entry) const noexcept {
        return allow_settled_[entry];
    }

    // What may match, in file order: of those that a class can match the ones that are still `left`, and what
    // is kept by key and port. The answer lives as long as `left`, and until the next call with the same
    // `scratch`.
    [[nodiscard]] std::span<const Candidate> rules(const OfClass& of_class, std::span<const Candidate> left,
                                                   const Subject& flow, std::vector<Candidate>& scratch) {
        return join(of_class.rules, left, of_class.keyed_rules ? &keyed_rules_ : nullptr, flow, scratch);
    }
    [[nodiscard]] std::span<const Candidate> allows(const OfClass& of_class, const Subject& flow,
                                                    std::vector<Candidate>& scratch) {
        return join(of_class.allows, of_class.allows.any, of_class.keyed_allows ? &keyed_allows_ : nullptr,
                    flow, scratch);
    }

private:
    // For every update: a class in a word, where its country has two letters or none, and it no lists.
    static constexpr std::uint64_t no_code = 0;
    [[nodiscard]] static std::uint64_t code_of(const ClassInfo& info) noexcept {
        std::uint16_t letters = 0;
        if (info.country.size() == sizeof letters)
            std::memcpy(&letters, info.country.data(), sizeof letters);
        else if (!info.country.empty())
            return no_code;
        if (!info.lists.empty()) return no_code;
        return std::uint64_t{1} << 63 | std::uint64_t{info.disputed} << 32 |
               static_cast<std::uint64_t>(info.kind & 0xff) << 24 |
               static_cast<std::uint64_t>(info.local & 0xff) << 16 | letters;
    }

    // Rules, or allow entries, by what a flow has to have.
    struct Keyed {
        std::vector<std::uint32_t> members;
        std::vector<std::vector<std::uint32_t>> by_set;  // index: set of the policy's PrefixIndex
        std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> by_word;
        WordKinds kinds = 0;  // of `by_word`

        bool add(const Condition& condition, std::uint32_t index);  // false: it has no keys
    };

    [[nodiscard]] std::span<const Candidate> join(const Ports& ports, std::span<const Candidate> left,
                                                  const Keyed* keyed, const Subject& flow,
                                                  std::vector<Candidate>& scratch) {
        if (ports.single.empty() && (keyed == nullptr || (keyed->kinds == 0 && flow.place == 0))) return left;
        return join_keyed(ports, left, keyed, flow, scratch);
    }
    [[nodiscard]] std::span<const Candidate> join_keyed(const Ports& ports, std::span<const Candidate> left,
                                                        const Keyed* keyed, const Subject& flow,
                                                        std::vector<Candidate>& scratch);
    [[nodiscard]] const OfClass& plan_class(std::uint16_t class_id, const ClassInfo& info);
    void sort_in(const Condition& condition, const Candidate& candidate, Ports& ports, bool by_port) const;

    const Policy* policy_ = nullptr;
    std::string site_;
    std::vector<std::uint32_t> rules_, allows_;  // those without keys
    Keyed keyed_rules_, keyed_allows_;
    std::vector<bool> rule_settled_, allow_settled_;
    std::vector<std::unique_ptr<OfClass>> classes_;  // by id; null: not asked for yet
    std::vector<std::uint64_t> words_;               // of an update; kept for their memory
};

}  // namespace egresswatch::rules
