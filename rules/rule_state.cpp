// rules/rule_state.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/rule_state.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "rules/group_key.h"
#include "rules/limits.h"
#include "rules/names.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

std::uint64_t percent(std::uint64_t out, std::uint64_t in) {
    return out / std::max<std::uint64_t>(in, 1) >= 1'000'000'000
               ? 100'000'000'000
               : static_cast<std::uint64_t>(100.0 * static_cast<double>(out) /
                                            static_cast<double>(std::max<std::uint64_t>(in, 1)));
}

}  // namespace

RuleState::RuleState(const Rule& rule, GroupHash hash, WindowBudget& budget)
    : group_by(rule.by),
      quiet_by(rule.suppress_by),
      suppressions(limits::suppressions_max, hash),
      value_({&rule.distinct, 1}),
      hash_(hash) {
    switch (rule.kind) {
        case RuleKind::sum:
        case RuleKind::upload_ratio:
            windows_ = std::make_unique<Windows>(Windows::Config{rule.over, limits::window_groups_max, hash},
                                                 budget);
            break;
        case RuleKind::distinct:
            distinct_ = std::make_unique<DistinctWindows>(
                DistinctWindows::Config{rule.over, rule.at_least, rule.distinct == Field::name,
                                        limits::window_groups_max, hash},
                budget);
            break;
        case RuleKind::periodic:
            periods_ = std::make_unique<Periods>(
                std::chrono::milliseconds(std::max<std::int64_t>(rule.every.min * 500, 500)),
                limits::window_groups_max, hash, budget);
            break;
        case RuleKind::first_contact:
            seen_ = std::make_unique<LastSeen>(limits::window_groups_max, hash, budget);
            break;
        case RuleKind::sequence:
            firsts = std::make_unique<LastSeen>(limits::window_groups_max, hash, budget);
            break;
        case RuleKind::long_lived:
            break;
    }
}

RuleState::Outcome RuleState::count_other(const Rule& rule, const Subject& flow, const GroupKey& key,
                                          std::uint64_t hash, Timestamp reached, Hit& hit) {
    switch (rule.kind) {
        case RuleKind::distinct:
            return count_distinct(rule, flow, key, hash, reached, hit);
        case RuleKind::upload_ratio:
            return count_ratio(rule, flow, key, hash, reached, hit);
        case RuleKind::periodic:
            return count_period(rule, flow, key, hash, hit);
        case RuleKind::first_contact:
            return count_contact(rule, flow, key, hash, reached, hit);
        case RuleKind::long_lived: {
            const auto lasts =
                std::chrono::floor<std::chrono::seconds>(flow.at - flow.flow.first_seen).count();
            Outcome out;
            out.crossed = lasts >= static_cast<std::int64_t>(rule.at_least);
            if (out.crossed)
                hit = {static_cast<std::uint64_t>(lasts), rule.at_least, flow.flow.first_seen, 1, {}};
            return out;
        }
        case RuleKind::sequence:  // counts what other rules report
        case RuleKind::sum:
            break;
    }
    return {};
}

RuleState::Outcome RuleState::count_distinct(const Rule& rule, const Subject& flow, const GroupKey& key,
                                             std::uint64_t hash, Timestamp reached, Hit& hit) {
    const bool names = rule.distinct == Field::name;
    const std::uint64_t value = names ? hash_.of_text(flow.name) : hash_(value_.key(flow, hash_));
    const auto weight = names ? static_cast<std::uint64_t>(std::lround(1000 * label_entropy(flow.name)))
                              : flow.flow.delta.bytes_out;
    const auto counted = distinct_->add(key, hash, value, weight, flow.at, reached);
    Outcome out;
    out.late = counted.late;
    if (counted.late || counted.values < rule.at_least) return out;
    const double mean = names ? counted.mean_weight / 1000 : counted.mean_weight;
    if ((rule.bytes_each_at_most && mean > static_cast<double>(*rule.bytes_each_at_most)) ||
        (rule.entropy_at_least && mean < *rule.entropy_at_least)) {
        distinct_->clear(key);  // as many as the group may hold, and they are none of the kind
        return out;
    }
    out.crossed = true;
    hit = {
        counted.values, rule.at_least, counted.start, 0, {{names ? "mean_entropy" : "mean_bytes_out", mean}}};
    return out;
}

RuleState::Outcome RuleState::count_ratio(const Rule& rule, const Subject& flow, const GroupKey& key,
                                          std::uint64_t hash, Timestamp reached, Hit& hit) {
    const FlowCounters& delta = flow.flow.delta;
    const Windows::Sum sum = windows_->add(
        key, hash, {delta.bytes_out, delta.bytes_in, is_first(flow.flow) ? 1u : 0u}, flow.at, reached);
    Outcome out;
    out.late = sum.late;
    if (sum.late) return out;
    if (sum.value < rule.floor) {
        out.missing = rule.floor - sum.value;
        return out;
    }
    const std::uint64_t value = percent(sum.value, sum.second);
    if (value < rule.at_least) return out;
    out.crossed = true;
    hit = {value,
           rule.at_least,
           sum.start,
           sum.flows,
           {{"bytes_out", static_cast<double>(sum.value)}, {"bytes_in", static_cast<double>(sum.second)}}};
    return out;
}

RuleState::Outcome RuleState::count_period(const Rule& rule, const Subject& flow, const GroupKey& key,
                                           std::uint64_t hash, Hit& hit) {
    const Timestamp contact = is_first(flow.flow) ? std::min(flow.flow.first_seen, flow.at) : flow.at;
    Outcome out;
    const auto found = periods_->add(key, hash, contact);
    if (!found || found->intervals < rule.at_least || found->jitter > rule.jitter_at_most) return out;
    if (found->period_s < static_cast<double>(rule.every.min) ||
        found->period_s > static_cast<double>(rule.every.max))
        return out;
    out.crossed = true;
    hit = {
        found->intervals,
        rule.at_least,
        contact - std::chrono::seconds(std::llround(found->period_s * static_cast<double>(found->intervals))),
        found->intervals + 1,
        {{"period_s", found->period_s}, {"jitter", found->jitter}}};
    return out;
}

RuleState::Outcome RuleState::count_contact(const Rule& rule, const Subject& flow, const GroupKey& key,
                                            std::uint64_t hash, Timestamp reached, Hit& hit) {
    Outcome out;
    if (!since_) since_ = reached;
    const auto before = seen_->see(key, hash, flow.at);
    const bool fresh = !before || flow.at - *before > rule.forget;
    out.crossed = fresh && reached - *since_ >= rule.learn;
    if (out.crossed) hit = {1, 1, flow.at, 1, {{"known", static_cast<double>(seen_->groups() - 1)}}};
    return out;
}

void RuleState::clear(const GroupKey& key) {
    if (windows_) windows_->clear(key);
    if (distinct_) distinct_->clear(key);
    if (periods_) periods_->clear(key);
}

std::uint64_t RuleState::value(const Rule& rule, const GroupKey& key, Timestamp reached) const {
    if (rule.kind == RuleKind::upload_ratio) {
        const auto amounts = windows_->amounts(key, reached);
        return amounts.value < rule.floor ? 0 : percent(amounts.value, amounts.second);
    }
    if (windows_) return windows_->value(key, reached);
    if (distinct_) return distinct_->count(key, reached);
    if (periods_) {
        const auto found = periods_->find(key);
        return found ? found->intervals : 0;
    }
    return 0;
}

std::string RuleState::second_condition(const Rule& rule, const GroupKey& key, Timestamp reached) const {
    const auto decimal = [](double value) {
        std::array<char, 32> text{};
        std::snprintf(text.data(), text.size(), "%.2f", value);
        return std::string(text.data());
    };
    switch (rule.kind) {
        case RuleKind::upload_ratio: {
            const std::uint64_t sent = windows_->amounts(key, reached).value;
            return sent >= rule.floor ? std::string()
                                      : "it compares nothing below its floor: " + std::to_string(sent) +
                                            " of " + std::to_string(rule.floor) + " bytes out";
        }
        case RuleKind::periodic: {
            const auto found = periods_->find(key);
            if (!found) return "no interval has ended yet";
            return "median interval " + decimal(found->period_s) + " s of " +
                   to_text(std::chrono::seconds(rule.every.min)) + ".." +
                   to_text(std::chrono::seconds(rule.every.max)) + ", jitter " + decimal(found->jitter) +
                   " of at most " + decimal(rule.jitter_at_most);
        }
        case RuleKind::first_contact: {
            const auto last = seen_->find(key);
            if (last && reached - *last <= rule.forget) return "it is known, and not new";
            if (!since_ || reached - *since_ < rule.learn)
                return "it is new, and the rule still learns, for " + to_text(rule.learn) +
                       " from its first flow on";
            return "it is new: its next flow is a finding";
        }
        case RuleKind::distinct:
            if (rule.bytes_each_at_most)
                return "at most " + std::to_string(*rule.bytes_each_at_most) +
                       " bytes out for each value in the mean, else it begins anew";
            if (rule.entropy_at_least)
                return "a mean entropy of at least " + decimal(*rule.entropy_at_least) +
                       " bits a character, else it begins anew";
            return {};
        case RuleKind::sum:
        case RuleKind::long_lived:
        case RuleKind::sequence:
            break;
    }
    return {};
}

void RuleState::drop_empty(const Rule& rule, Timestamp reached, std::size_t steps) {
    if (windows_) windows_->drop_empty(reached, steps);
    if (distinct_) distinct_->drop_empty(reached, steps);
    if (periods_) periods_->drop_silent(reached, std::chrono::seconds(4 * rule.every.max), steps);
    if (seen_) seen_->drop_before(reached - rule.forget, steps);
    if (firsts) firsts->drop_before(reached - rule.over, steps);
    suppressions.drop_ended(reached, steps);
}

std::size_t RuleState::groups() const noexcept {
    return (windows_ ? windows_->groups() : 0) + (distinct_ ? distinct_->groups() : 0) +
           (periods_ ? periods_->groups() : 0) + (seen_ ? seen_->groups() : 0) +
           (firsts ? firsts->groups() : 0);
}

std::uint64_t RuleState::evicted() const noexcept {
    return (windows_ ? windows_->evicted() : 0) + (distinct_ ? distinct_->evicted() : 0) +
           (periods_ ? periods_->evicted() : 0) + (seen_ ? seen_->evicted() : 0) +
           (firsts ? firsts->evicted() : 0);
}

void RuleState::save(StateWriter& out) const {
    suppressions.save(out);
    out.put(static_cast<std::uint8_t>(since_ ? 1 : 0));
    if (since_) out.put(*since_);
    if (windows_) windows_->save(out);
    if (distinct_) distinct_->save(out);
    if (periods_) periods_->save(out);
    if (seen_) seen_->save(out);
    if (firsts) firsts->save(out);
}

void RuleState::restore(StateReader& in) {
    suppressions.restore(in);
    if (in.get<std::uint8_t>() != 0) since_ = in.get<Timestamp>();
    if (windows_) windows_->restore(in);
    if (distinct_) distinct_->restore(in);
    if (periods_) periods_->restore(in);
    if (seen_) seen_->restore(in);
    if (firsts) firsts->restore(in);
}

}  // namespace egresswatch::rules
