// rules/matcher.h - whether a condition holds for a flow, and what a class can still match. Internal to
// rules/. SPDX-License-Identifier: Apache-2.0
//
// Answers are Truth: `no` beats `unknown` beats `yes` over what must all hold; the other way round where one
// is enough; not of unknown is unknown. Total functions, no allocation but in why_not().
#pragma once

#include <functional>
#include <string>

#include "rules/flow_facts.h"
#include "rules/policy.h"
#include "rules/site_clock.h"

namespace egresswatch::rules {

// A country on which the geo sources disagree is a fact for a rule and no permission for an allow entry;
// names that the sender itself says are none either.
enum class Purpose : std::uint8_t { rule, allow };

// What is the same for all flows of a host.
struct Surroundings {
    std::string site;                                          // empty: not configured, unknown
    std::function<std::uint32_t(const Address&)> asn_of;       // none, and 0: unknown
    std::function<std::string(std::uint32_t)> interface_name;  // of an ifindex; none, and empty: unknown
    SiteClock clock;
};

// What one comparison can look at: a bit for each value of a few fields, of which a flow has one a field.
using FlowBits = std::uint32_t;
[[nodiscard]] FlowBits flow_bits(const FlowUpdate& flow) noexcept;   // of one that is not allowed
inline constexpr unsigned allowed_bit = datapath::TUNNEL_COUNT + 3;  // not allowed, and allowed
inline constexpr FlowBits allowed_bits = FlowBits{3} << allowed_bit;

// What a condition still asks of the flows of a class.
struct Residue {
    FlowBits bits = ~FlowBits{0};  // a flow with any other bit cannot satisfy it
    bool decided = false;          // a flow without any other bit does
};

// One flow at one moment. What is dear to find out is found out when something asks for it.
class Subject {
public:
    Subject(const FlowUpdate& update, const ClassInfo& class_info, const FlowFacts& known, Timestamp when,
            const PrefixIndex& index, PrefixIndex::Place where, const Surroundings& around,
            FlowBits bits_of_update) noexcept
        : flow(update),
          info(class_info),
          facts(known),
          at(when),
          prefixes(index),
          place(where),
          bits(bits_of_update),
          around_(around) {}

    const FlowUpdate& flow;
    const ClassInfo& info;
    const FlowFacts& facts;
    Timestamp at;
    const PrefixIndex& prefixes;
    PrefixIndex::Place place;  // of flow.remote()
    FlowBits bits;
    bool allowed = false;
    std::string_view name;  // asked of a DNS server, where the subject is a question

    void set_allowed(bool value) noexcept {
        if (value != allowed) bits ^= allowed_bits;
        allowed = value;
    }
    [[nodiscard]] std::uint32_t asn() const {
        if (!asn_known_) asn_ = around_.asn_of ? around_.asn_of(flow.remote()) : 0;
        asn_known_ = true;
        return asn_;
    }
    [[nodiscard]] SiteClock::Moment moment() const noexcept { return around_.clock.at(at); }
    [[nodiscard]] std::string interface() const {
        return around_.interface_name ? around_.interface_name(flow.ifindex) : std::string();
    }
    [[nodiscard]] const std::string& site() const noexcept { return around_.site; }
    [[nodiscard]] const Surroundings& around() const noexcept { return around_; }

private:
    const Surroundings& around_;
    mutable std::uint32_t asn_ = 0;
    mutable bool asn_known_ = false;
};

[[nodiscard]] Truth match(const Condition& condition, const Subject& subject, Purpose purpose);
// The same for one that possible() has found to hold as far as the class decides.
[[nodiscard]] Truth match_flow(const Condition& condition, const Subject& subject, Purpose purpose);
[[nodiscard]] Truth match(const Predicate& predicate, const Subject& subject, Purpose purpose);
// Whether some flow of the class on a host of the site can satisfy the condition.
[[nodiscard]] bool possible(const Condition& condition, const ClassInfo& info, const std::string& site,
                            Purpose purpose);
[[nodiscard]] Residue residue(const Condition& condition, const ClassInfo& info, const std::string& site,
                              Purpose purpose);
// The first thing on which match() failed, in words: "port 8443/tcp is not in 443/tcp". Empty where it holds.
[[nodiscard]] std::string why_not(const Condition& condition, const Subject& subject, Purpose purpose);

}  // namespace egresswatch::rules
