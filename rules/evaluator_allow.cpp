// rules/evaluator_allow.cpp - whether allow entries cover a flow, their ceilings and their ends.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "rules/evaluator_state.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

constexpr std::size_t reasons_max = 3;  // near misses named in a Decision

bool at_home(const ClassInfo& info) {
    return info.kind == datapath::KIND_LOCAL || info.kind == datapath::KIND_HOME;
}

bool selects_destination(Field field) {
    switch (field) {
        case Field::region:
        case Field::country:
        case Field::list:
        case Field::remote:
        case Field::asn:
        case Field::domain:
            return true;
        default:
            return false;
    }
}

std::string entry_text(const AllowEntry& entry) {
    std::string out = "allow entry " + entry.id + " (owner " + entry.owner;
    if (!entry.ticket.empty()) out += ", ticket " + entry.ticket;
    return out + ")";
}

// The same flow as if its sender had said no name.
FlowFacts said_nothing(const FlowFacts& facts) {
    FlowFacts out = facts;
    out.sni = out.http_host = {};
    out.contradiction = false;
    return out;
}

}  // namespace

// A tunnelled flow goes to two places: the far end of the tunnel, and from there on. The entry has to cover
// both, where they are not home: otherwise an inner address that is allowed would open the way to any far
// end.
bool Evaluator::State::covers_tunnel(const Condition& match, const Subject& flow) const {
    if (!class_of) return false;
    for (const Address& end : {flow.flow.outer_remote, flow.flow.remote()}) {
        const ClassInfo* info = class_of(end);
        if (info == nullptr) return false;
        if (at_home(*info)) continue;
        FlowUpdate there = flow.flow;
        std::copy(end.bytes.begin(), end.bytes.end(), there.key.remote_addr);
        if (rules::match(match, subject(there, *info, flow.at, flow.facts), Purpose::allow) != Truth::yes)
            return false;
    }
    return true;
}

bool Evaluator::State::selects(const Plan::Candidate& candidate, const Subject& flow) const {
    if ((flow.bits & ~candidate.residue.bits) != 0) return false;
    const std::uint32_t index = candidate.index;
    const AllowEntry& entry = policy->allows[index];
    if (flow.at >= entry.expires.at) return false;
    if (!candidate.residue.decided) {
        const Truth matched = plan.class_settles_allow(index) ? match_flow(entry.match, flow, Purpose::allow)
                                                              : match(entry.match, flow, Purpose::allow);
        if (matched != Truth::yes) return false;
    }
    return flow.flow.key.tunnel == datapath::TUNNEL_NONE || covers_tunnel(entry.match, flow);
}

int Evaluator::State::covering_entry(const Plan::OfClass& of_class, const Subject& flow) {
    for (const Plan::Candidate& candidate : plan.allows(of_class, flow, some_allows)) {
        const std::uint32_t index = candidate.index;
        const AllowEntry& entry = policy->allows[index];
        if (!selects(candidate, flow)) continue;
        if (entry.ceiling && allows->used(index, reached) > entry.ceiling->bytes_out) continue;
        return static_cast<int>(index);
    }
    return -1;
}

int Evaluator::State::cover(const Plan::OfClass& of_class, const Subject& flow, std::vector<Finding>& out) {
    for (const Plan::Candidate& candidate : plan.allows(of_class, flow, some_allows)) {
        const std::uint32_t index = candidate.index;
        const AllowEntry& entry = policy->allows[index];
        if (!selects(candidate, flow)) {
            if (flow.facts.contradiction) tell_contradiction(candidate, flow, out);
            continue;
        }
        AllowState& state = allows->at(index);
        ++state.matched;
        state.last_match = std::max(state.last_match.value_or(flow.at), flow.at);
        if (entry.ceiling && !within_ceiling(index, flow, out)) continue;
        return static_cast<int>(index);
    }
    return -1;
}

// An entry that one of the two names would open and the other does not: somebody uses the address of an
// allowed name for another one, or says an allowed name to another address. Told once an hour for each
// address and entry; the flow is not allowed either way.
void Evaluator::State::tell_contradiction(const Plan::Candidate& candidate, const Subject& flow,
                                          std::vector<Finding>& out) {
    const AllowEntry& entry = policy->allows[candidate.index];
    const FlowFacts by_dns = said_nothing(flow.facts);
    FlowFacts by_sender = flow.facts;
    by_sender.contradiction = false;
    const auto opens = [&](const FlowFacts& facts) {
        return selects(candidate, subject(flow.flow, flow.info, flow.at, facts));
    };
    if (!opens(by_dns) && !opens(by_sender)) return;
    GroupKey key;
    key.base = flow.flow.remote();
    key.text = hash.of_text(entry.id) ^ hash.of_text(flow.facts.said());
    if (contradictions.repeat(key, flow.at)) return;
    Finding finding;
    finding.suppressed = contradictions.start(key, flow.at + limits::contradiction_quiet);
    ++counters.findings;
    finding.rule_id = "egresswatch/name-contradiction";
    finding.title = "A sender asks for a name that DNS did not give the address";
    finding.level = Level::high;
    finding.tags = {"attack.t1090.004"};  // domain fronting
    finding.kind = "contradiction";
    finding.group = {{"allow", entry.id}, {"remote", flow.flow.remote().to_string()}};
    finding.measure = "flows";
    finding.value = 1;
    finding.threshold = 1;
    finding.window_start = flow.at;
    finding.window_end = reached;
    finding.flows_in_window = 1;
    finding.message = "to " + flow.flow.remote().to_string() + ": " + entry_text(entry) +
                      " does not allow it: " + why_not(entry.match, flow, Purpose::allow);
    describe(finding, flow, -1);
    out.push_back(std::move(finding));
}

// All that the entry selects is counted, allowed or not: what goes on sending stays over the ceiling.
bool Evaluator::State::within_ceiling(std::size_t index, const Subject& flow, std::vector<Finding>& out) {
    const AllowEntry& entry = policy->allows[index];
    AllowState& state = allows->at(index);
    if (allows->add(entry, index, flow.flow.delta.bytes_out, flow.at, reached)) {
        state.over = false;
        return true;
    }
    if (std::exchange(state.over, true)) return false;
    ++counters.findings;
    Finding finding;
    finding.rule_id = "egresswatch/allow-ceiling";
    finding.title = "An allow entry is over its ceiling";
    finding.level = Level::medium;
    finding.kind = "ceiling";
    finding.group = {{"allow", entry.id}};
    finding.value = allows->used(index, reached);
    finding.threshold = entry.ceiling->bytes_out;
    finding.window = entry.ceiling->per;
    finding.window_start = flow.at - entry.ceiling->per;
    finding.window_end = reached;
    finding.message = entry_text(entry) + " is over its ceiling: it allows nothing until the volume of " +
                      to_text(entry.ceiling->per) + " falls below it";
    describe(finding, flow, -1);
    out.push_back(std::move(finding));
    return false;
}

std::uint64_t Evaluator::State::until_ceiling(int entry) const {
    if (entry < 0) return never;
    const auto index = static_cast<std::size_t>(entry);
    const auto& ceiling = policy->allows[index].ceiling;
    if (!ceiling) return never;
    const std::uint64_t used = allows->used(index, reached);
    return used > ceiling->bytes_out ? never : ceiling->bytes_out - used + 1;
}

void Evaluator::State::tell_ends(std::vector<Finding>& out) {
    allows->ends(*policy, reached, [&](std::size_t index, bool expired) {
        const AllowEntry& entry = policy->allows[index];
        ++counters.findings;
        Finding finding;
        finding.rule_id = expired ? "egresswatch/allow-expired" : "egresswatch/allow-expires";
        finding.title = expired ? "An allow entry has expired" : "An allow entry expires soon";
        finding.level = expired ? Level::medium : Level::low;
        finding.kind = "expiry";
        finding.group = {{"allow", entry.id}};
        finding.measure = "days_left";
        finding.value = expired
                            ? 0
                            : static_cast<std::uint64_t>(
                                  std::chrono::ceil<std::chrono::days>(entry.expires.at - reached).count());
        finding.threshold = static_cast<std::uint64_t>(limits::expiry_notice.count());
        finding.details = {{"days_left", static_cast<double>(finding.value)}};
        finding.message =
            entry_text(entry) +
            (expired ? " has expired " + entry.expires.text + ": it allows nothing any more"
                     : " expires " + entry.expires.text + ": its owner has to renew it or let it end");
        finding.has_flow = false;
        finding.time = reached;
        finding.policy_name = policy->name;
        finding.policy_revision = policy->revision;
        out.push_back(std::move(finding));
    });
}

std::string Evaluator::State::near_miss(std::size_t index, const Subject& flow) const {
    const AllowEntry& entry = policy->allows[index];
    Truth destination = Truth::yes, rest = Truth::yes;
    for (const Predicate& predicate : entry.match.predicates) {
        Truth& part = selects_destination(predicate.field) ? destination : rest;
        Truth answer = match(predicate, flow, Purpose::allow);
        // What DNS would have opened came close.
        if (answer == Truth::no && flow.facts.contradiction && predicate.field == Field::domain) {
            const FlowFacts by_dns = said_nothing(flow.facts);
            if (match(predicate, subject(flow.flow, flow.info, flow.at, by_dns), Purpose::allow) ==
                Truth::yes)
                answer = Truth::unknown;
        }
        part = std::min(part, answer);
    }
    // An entry of which even the destination is unknown came close only if all the rest holds.
    if (destination == Truth::no) return {};
    if (destination == Truth::unknown && (rest != Truth::yes || flow.at >= entry.expires.at)) return {};
    if (const std::string failed = why_not(entry.match, flow, Purpose::allow); !failed.empty())
        return entry.id + ": " + failed;
    if (flow.at >= entry.expires.at) return entry.id + " expired " + entry.expires.text;
    if (flow.flow.key.tunnel != datapath::TUNNEL_NONE && !covers_tunnel(entry.match, flow))
        return entry.id + ": the flow is tunnelled to " + flow.flow.outer_remote.to_string() +
               ", and the entry does not cover both ends";
    if (entry.ceiling && allows->used(index, reached) > entry.ceiling->bytes_out)
        return entry.id + ": its ceiling of " + std::to_string(entry.ceiling->bytes_out) + " bytes in " +
               to_text(entry.ceiling->per) + " is used up";
    return {};
}

Decision Evaluator::State::decide(int index, const Subject& flow) const {
    if (index >= 0) {
        const AllowEntry& entry = policy->allows[static_cast<std::size_t>(index)];
        return {true, entry.id, entry.reason};
    }
    Decision out;
    std::size_t misses = 0;
    for (std::size_t i = 0; i < policy->allows.size(); ++i) {
        const std::string miss = near_miss(i, flow);
        if (miss.empty() || ++misses > reasons_max) continue;
        out.reason += (out.reason.empty() ? "" : "; ") + miss;
    }
    if (misses == 0) out.reason = "no allow entry names this destination";
    if (misses > reasons_max) out.reason += "; and " + std::to_string(misses - reasons_max) + " more";
    return out;
}

std::vector<AllowStatus> Evaluator::allow_status() const {
    std::vector<AllowStatus> out;
    const State& state = *state_;
    for (std::size_t i = 0; i < state.policy->allows.size(); ++i) {
        const AllowEntry& entry = state.policy->allows[i];
        const AllowState& known = state.allows->at(i);
        const Timestamp since = known.since.value_or(state.reached);
        const bool idle =
            state.reached - std::max(since, known.last_match.value_or(since)) >= limits::unused_after;
        out.push_back({entry.id, entry.owner, known.matched, known.last_match, since, idle,
                       entry.ceiling ? entry.ceiling->bytes_out : 0, state.allows->used(i, state.reached)});
    }
    return out;
}

// A sequence counts what its two rules report: it is half full where the first of them has, not long ago.
void Evaluator::State::explain_sequence(std::size_t index, const Subject& flow, RuleExplanation& out) const {
    const Rule& rule = policy->rules[index];
    const Rule& first = policy->rules[rule.first];
    const Rule& then = policy->rules[rule.then];
    out.measure = "parts, " + first.id + " and then " + then.id + ",";
    out.threshold = 2;
    if (match(first.when, flow, Purpose::rule) != Truth::yes &&
        match(then.when, flow, Purpose::rule) != Truth::yes) {
        out.why_not = "neither of its rules, " + first.id + " and " + then.id + ", counts it";
        return;
    }
    if (!can_group(rule.by, flow)) {
        out.why_not = "no field of its group is known";
        return;
    }
    out.counts = true;
    out.group = group_fields(rule.by, flow);
    const Timestamp at = std::max(reached, flow.at);
    const auto reported = rules[index]->firsts->find(rules[index]->group_by.key(flow, hash));
    out.value = reported && *reported <= at && at - *reported <= rule.over ? 1 : 0;
    out.suppressed = rules[index]->suppressions.active(rules[index]->quiet_by.key(flow, hash), at);
}

RuleExplanation Evaluator::State::explain_rule(std::size_t index, const Subject& flow) const {
    const Rule& rule = policy->rules[index];
    RuleExplanation out;
    out.id = rule.id;
    out.kind = rule_kind_name(rule.kind);
    out.threshold = rule.at_least;
    out.measure = rule.measure_text;
    out.window = rule.over;
    if (rule.kind == RuleKind::sequence) {
        explain_sequence(index, flow, out);
        return out;
    }
    if (rule.counts_names && flow.facts.app != "dns") {
        // It is asked about questions, which only flows to a name server have (Evaluator::observe).
        constexpr std::uint16_t port_dns = 53;
        if (!flow.facts.app.empty() || flow.flow.remote_port() != port_dns) {
            out.why_not = "it counts questions to name servers, and this flow is none";
            return out;
        }
        FlowFacts asking = flow.facts;
        asking.app = "dns";
        Subject question = subject(flow.flow, flow.info, flow.at, asking);
        question.set_allowed(flow.allowed);
        return explain_rule(index, question);
    }
    if (match(rule.when, flow, Purpose::rule) != Truth::yes)
        out.why_not = why_not(rule.when, flow, Purpose::rule);
    else if (!can_group(rule.by, flow))
        out.why_not = "no field of its group is known";
    for (std::size_t i = 0; i < rule.exceptions.size() && out.why_not.empty(); ++i) {
        const RuleException& exception = rule.exceptions[i];
        if (flow.at < exception.expires.at && match(exception.match, flow, Purpose::allow) == Truth::yes)
            out.why_not = "exception " + std::to_string(i + 1) + " of " + exception.owner +
                          " excuses it until " + exception.expires.text;
    }
    if (!out.why_not.empty()) return out;
    out.counts = true;
    out.group = group_fields(rule.by, flow);
    const Timestamp at = std::max(reached, flow.at);
    const GroupKey group = rules[index]->group_by.key(flow, hash);
    out.value = rule.kind == RuleKind::long_lived
                    ? static_cast<std::uint64_t>(std::max<std::int64_t>(
                          std::chrono::floor<std::chrono::seconds>(flow.flow.last_seen - flow.flow.first_seen)
                              .count(),
                          0))
                    : rules[index]->value(rule, group, at);
    out.second = rules[index]->second_condition(rule, group, at);
    out.suppressed = rules[index]->suppressions.active(rules[index]->quiet_by.key(flow, hash), at);
    return out;
}

Explanation Evaluator::explain(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                               const FlowFacts& facts) const {
    State& state = *state_;
    Subject flow = state.subject(update, info, sane(now), facts);
    const int entry = state.covering_entry(state.plan.of_class(update.key.class_id, info), flow);
    flow.set_allowed(entry >= 0);
    Explanation out;
    out.decision = state.decide(entry, flow);
    for (std::size_t i = 0; i < state.policy->allows.size(); ++i) {
        const AllowEntry& allow = state.policy->allows[i];
        const std::string miss = state.near_miss(i, flow);
        AllowExplanation line{allow.id, static_cast<int>(i) == entry,
                              why_not(allow.match, flow, Purpose::allow), !miss.empty()};
        // What near_miss() knows beyond the fields: that it has expired, that a tunnel leads elsewhere.
        if (line.why_not.empty() && !line.covers)
            line.why_not = miss.substr(std::min(miss.size(), allow.id.size() + 1));
        out.allows.push_back(std::move(line));
    }
    for (std::size_t i = 0; i < state.policy->rules.size(); ++i)
        out.rules.push_back(state.explain_rule(i, flow));
    return out;
}

}  // namespace egresswatch::rules
