// rules/evaluator.h - turns flow updates into findings: allow decision, rule selection, sliding windows.
// SPDX-License-Identifier: Apache-2.0
//
// In:      FlowUpdate with the ClassInfo of its class id, from a region table compiled from the policy in
//          force.
// Out:     findings, in a deterministic order: updates as they come, rules in file order.
// Threads: one; replace_policy() and evaluate() from the same thread or under one lock.
// Clock:   packet time only. A window ends at the largest `now` seen.
// Limits:  window_groups_max and its neighbours (limits.h): evictions are counted.
// Cost:    an update touches only the rules and entries that its class can still match; rules/README.md.
// Fails:   never.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"
#include "rules/explanation.h"
#include "rules/finding.h"
#include "rules/flow_facts.h"
#include "rules/policy.h"

namespace egresswatch::rules {

struct RuleStatus {
    std::string id;
    std::string kind;
    bool test = false;
    bool active = true;  // false: it groups by AS number alone, and there are no AS data
    std::uint64_t findings = 0;
    std::uint64_t suppressed = 0;  // times its windows filled while suppressed
    std::uint64_t evicted = 0;     // groups that lost their window to a newer one: their sums are too small
    std::size_t groups = 0;        // remembered now
    std::size_t groups_max = 0;
};

struct AllowStatus {
    std::string id, owner;
    std::uint64_t matched = 0;  // updates that it selected
    std::optional<Timestamp> last_match;
    Timestamp since{};                // in force
    bool unused = false;              // has matched nothing for limits::unused_after
    std::uint64_t ceiling_bytes = 0;  // 0: it has none
    std::uint64_t used_bytes = 0;     // of it, now
};

// A name that was asked of a DNS server; `flow` is the flow of the question.
struct NameObservation {
    FlowUpdate flow;
    std::string_view name;  // small letters, no dot at the end
    Timestamp at{};
};

// A finding as a record tells it.
struct ReportedFinding {
    std::string_view rule_id;
    const FlowUpdate& flow;
    const ClassInfo& info;
    std::span<const GroupField> group;
    Timestamp at{};
};

struct RestoredState {
    Timestamp saved_at{};     // packet time
    std::size_t rules = 0;    // taken over
    std::size_t dropped = 0;  // of rules that are gone or changed
};

// Monotonic since construction; they survive replace_policy().
struct EvaluatorCounters {
    std::uint64_t updates = 0;
    std::uint64_t findings = 0;
    std::uint64_t suppressed = 0;
    std::uint64_t window_evictions = 0;       // groups, all rules
    std::uint64_t suppression_evictions = 0;  // suppressions forgotten early: a finding may repeat
    std::uint64_t late = 0;   // (update, rule) pairs older than the rule's window: not counted in it
    std::uint64_t ahead = 0;  // updates stamped later than `now`: counted at `now`
    std::size_t groups = 0;   // now, all rules
    std::size_t cells = 0;    // now, buckets in use
};

// Whoever has a batch of updates evaluated: asked about each that a rule or an entry may look at, told what
// came of these and of those that it wants to hear of (reasons_told()), in their order. What it does may ask
// the evaluator, and not change it.
class BatchHandler {
public:
    virtual ~BatchHandler() = default;
    // Of its class: the same for all of a batch that are of it, and asked once for them, before their turn.
    [[nodiscard]] virtual const ClassInfo& info_of(const FlowUpdate& update) = 0;
    // At its turn, where a rule or an entry can look at it; lives until evaluated().
    [[nodiscard]] virtual const FlowFacts& facts_of(const FlowUpdate& update) = 0;
    // Asked once a batch: a bit for each UpdateReason. Of other updates those that no rule and no entry can
    // look at are passed over: evaluated() is not called for them.
    [[nodiscard]] virtual std::uint32_t reasons_told() const noexcept { return every_reason; }
    static constexpr std::uint32_t every_reason = ~std::uint32_t{0};
    [[nodiscard]] static constexpr std::uint32_t reason_bit(UpdateReason reason) noexcept {
        return std::uint32_t{1} << static_cast<unsigned>(reason);
    }
    // `missing` as Evaluator::evaluate() answers it.
    virtual void evaluated(const FlowUpdate& update, std::uint64_t missing) = 0;
};

class Evaluator {
public:
    // The class of an address: the region table's lookup. Asked for the outer remote of tunnelled flows: an
    // allow entry covers such a flow only where it also covers the far end of the tunnel, or that end is
    // local or home. Without it a tunnelled flow is never allowed.
    using ClassOf = std::function<const ClassInfo*(const Address&)>;

    // Of this host. What is left out is unknown to every rule that asks for it.
    struct Host {
        std::string site;
        std::function<std::uint32_t(const Address&)> asn_of;       // 0: unknown
        std::function<std::string(std::uint32_t)> interface_name;  // of an ifindex
    };

    explicit Evaluator(std::shared_ptr<const Policy> policy, ClassOf class_of = {});
    Evaluator(std::shared_ptr<const Policy> policy, ClassOf class_of, Host host);
    ~Evaluator();
    Evaluator(Evaluator&&) noexcept;
    Evaluator& operator=(Evaluator&&) noexcept;

    // Windows and suppressions of rules with the same id and definition go on; all others start empty.
    void replace_policy(std::shared_ptr<const Policy> policy);
    [[nodiscard]] const std::shared_ptr<const Policy>& policy() const noexcept;

    static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
    // Appends to `out`. `now` is the packet time reached (FlowSink); it never goes back. Answers how many
    // more bytes out of this flow fill one of its windows: ask for the next update at total.bytes_out + that.
    // `never` where no unsuppressed byte window counts the flow. Packet windows ask for nothing: they fill at
    // the next regular update.
    std::uint64_t evaluate(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                           std::vector<Finding>& out, const FlowFacts& facts = {});
    // One after the other, and nothing comes out that would not if each were evaluated alone; but while one
    // is looked at, what the next ones touch is on its way from memory.
    void evaluate(std::span<const FlowUpdate> updates, Timestamp now, std::vector<Finding>& out,
                  BatchHandler& handler);
    // Names for the rules that count them. Whoever parses DNS calls it, once for each question: packet time
    // has come so far, whether a rule counts names or not.
    void observe(const NameObservation& seen, const ClassInfo& info, Timestamp now, std::vector<Finding>& out,
                 const FlowFacts& facts = {});
    // Time passes without traffic: windows that have emptied give their memory back, and the ends of allow
    // entries are told.
    void advance(Timestamp now, std::vector<Finding>& out);

    // Whether the allow entries cover the flow at packet time `now`, and why not.
    [[nodiscard]] Decision decide(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                  const FlowFacts& facts = {}) const;
    // The same without the words, for every update: the entry's index in Policy::allows, or -1.
    [[nodiscard]] int allowed_by(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                 const FlowFacts& facts = {}) const;

    // Every entry and rule beside the flow, at packet time `now`: for people, not for every update.
    [[nodiscard]] Explanation explain(const FlowUpdate& update, const ClassInfo& info, Timestamp now,
                                      const FlowFacts& facts = {}) const;

    // Whether the policy asks for names: without, evaluate() needs no FlowFacts of them.
    [[nodiscard]] bool wants_names() const noexcept;

    [[nodiscard]] EvaluatorCounters counters() const noexcept;
    [[nodiscard]] std::vector<RuleStatus> rule_status() const;
    [[nodiscard]] std::vector<AllowStatus> allow_status() const;

    // What is to survive a restart: windows of limits::kept_over_min and longer, contacts, suppressions,
    // allow entries. The bytes are for this program's versions only. restore() is for a new evaluator, before
    // its first update; when it fails, nothing has changed. A flow that lived at the save and is told whole
    // again by the engine that adopts it counts by its share of time since.
    [[nodiscard]] std::string save() const;
    [[nodiscard]] std::expected<RestoredState, std::string> restore(std::string_view bytes);
    // Of a finding that was made after the save: its group is quiet for as long as it would have been, and
    // what it counted is not counted again. True where that was news. After restore(), before the first
    // update, in order.
    bool recall(const ReportedFinding& reported);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::rules
