// classifier/flow_table_clock.cpp - what a FlowTable tells its sink, and when.
//
// Each flow is in one list of a wheel, by the second at which something may be due: that it has been idle, or
// closed, for long enough, or has lasted. Packets do not move it; when its second has come it is looked at,
// and put into another list where nothing is due yet. So a flow is looked at about once a timeout, and
// nothing is ever scanned. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "classifier/flow_table_state.h"

namespace egresswatch {

using namespace datapath;

namespace {

// Flows whose heads, and whose counters, are fetched from memory meanwhile.
constexpr std::size_t heads_ahead = 32, counts_ahead = 12;

Timestamp stamp_of(std::uint64_t ns) noexcept {
    return Timestamp(std::chrono::nanoseconds(static_cast<std::int64_t>(ns)));
}

CounterHalves since(const CounterHalves& now, const CounterHalves& before) noexcept {
    return {now.out - before.out, now.in - before.in};
}

bool is_zero(const CounterHalves& counters) noexcept {
    const Halves both = counters.out | counters.in;
    return (both[0] | both[1]) == 0;
}

std::uint64_t ns_of(std::chrono::seconds seconds) noexcept {
    return static_cast<std::uint64_t>(seconds.count()) * second_ns;
}

}  // namespace

void FlowTable::State::deliver(FlowSink& sink, std::uint64_t at_ns) {
    sink_now_ns = std::max(sink_now_ns, at_ns);
    sink.on_flow_updates(std::span(updates).first(updates_count), stamp_of(sink_now_ns));
    updates_count = 0;
}

[[gnu::always_inline]] inline void FlowTable::State::push_update(std::uint32_t number,
                                                                 const CounterHalves& total,
                                                                 const CounterHalves& delta,
                                                                 UpdateReason reason) {
    const flow_head& head = heads[number];
    FlowUpdate& update = updates[updates_count];
    update_entries[updates_count++] = number;
    update.key = head.key;
    update.total = std::bit_cast<FlowCounters>(total);
    update.delta = std::bit_cast<FlowCounters>(delta);
    update.first_seen = stamp_of(head.first_seen_ns);
    update.last_seen = stamp_of(last_seen_ns(number));
    const bool tunnelled_flow = head.key.tunnel != TUNNEL_NONE;
    update.outer_local = tunnelled_flow ? Address::from_bytes(outers[number].local_addr) : Address{};
    update.outer_remote = tunnelled_flow ? Address::from_bytes(outers[number].remote_addr) : Address{};
    update.ifindex = head.ifindex;
    update.handshake_rtt_us = is_single(head) ? 0 : head.handshake_rtt_us;
    update.initiator = static_cast<initiator>(head.initiator);
    update.initiator_sure = head.initiator_sure != 0;
    update.tcp_flags_out = head.tcp_flags_out;
    update.tcp_flags_in = head.tcp_flags_in;
    update.reason = reason;
}

void FlowTable::State::tell_volume(std::uint32_t number, FlowSink& sink) {
    Moved& flow = moved[moved_at[number]];
    const CounterHalves total = counters_of(counts[number]);
    push_update(number, total, flow.told == no_told ? total : since(total, told[flow.told]),
                UpdateReason::volume);
    if (flow.told == no_told) flow.told = told_count++;
    told[flow.told] = total;
    deliver(sink, now_ns);
}

void FlowTable::State::report_moved(FlowSink& sink, std::uint64_t at_ns) {
    bool told_anything = false;
    for (std::size_t i = 0; i < moved_count; ++i) {
        if (i + heads_ahead < moved_count) prefetch_head(moved[i + heads_ahead].number);
        if (i + counts_ahead < moved_count) prefetch_counts(moved[i + counts_ahead].number);
        const std::uint32_t number = moved[i].number;
        moved_bits[number / 64] &= ~(std::uint64_t{1} << number % 64);
        if (UNLIKELY(config.closed_timeout.count() > 0) && is_closed(number)) {
            unschedule(number);
            schedule(number);
        }
        const CounterHalves total = counters(number);
        if (moved[i].told == no_told) {
            push_update(number, total, total, UpdateReason::created);
        } else {
            const CounterHalves delta = since(total, told[moved[i].told]);
            if (is_zero(delta)) continue;  // a volume update has told everything
            push_update(number, total, delta, UpdateReason::active);
        }
        if (updates_count < updates_max) continue;
        deliver(sink, at_ns);
        told_anything = true;
    }
    moved_count = 0;
    told_count = 0;
    if (updates_count != 0 || !told_anything) deliver(sink, at_ns);  // none at all: time passes
}

// Flows of which the sink knows everything.
void FlowTable::State::report(const std::vector<std::uint32_t>& numbers, UpdateReason reason, FlowSink& sink,
                              std::uint64_t at_ns, bool more_follow) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (i + heads_ahead < numbers.size()) prefetch_head(numbers[i + heads_ahead]);
        if (i + counts_ahead < numbers.size()) prefetch_counts(numbers[i + counts_ahead]);
        push_update(numbers[i], counters(numbers[i]), CounterHalves{}, reason);
        if (updates_count == updates_max) deliver(sink, at_ns);
    }
    if (updates_count != 0 && !more_follow) deliver(sink, at_ns);
}

// The last record of every flow, where their entries lie in the order in which they began: those of one
// moment are put in order and told, and no list is made of all.
void FlowTable::State::report_all_in_order(FlowSink& sink) {
    constexpr std::size_t together = 128;  // at least, but at the end: what the first-level cache holds
    std::vector<std::uint32_t> numbers;
    for (std::uint32_t number = 0; number < entries_used; ++number) {
        prefetch_head(number + heads_ahead);  // beyond the last one, too: an address is all that it takes
        if (heads[number].tag == FLOW_FREE) continue;
        if (numbers.size() >= together &&
            heads[number].first_seen_ns != heads[numbers.back()].first_seen_ns) {
            sort(numbers);
            report(numbers, UpdateReason::ended, sink, now_max_ns, true);
            numbers.clear();
        }
        numbers.push_back(number);
    }
    sort(numbers);
    report(numbers, UpdateReason::ended, sink, now_max_ns);
}

void FlowTable::State::advance_to(std::uint64_t at_ns, FlowSink& sink) {
    if (next_tick_ns != 0 && at_ns < next_tick_ns) return;
    const std::uint64_t second = at_ns / second_ns;
    if (next_tick_ns != 0) {
        report_moved(sink, next_tick_ns);
        if (!wheel.empty()) run_timers(sink, second * second_ns);
    } else {
        timers_done_second = second;
    }
    next_tick_ns = (second + 1) * second_ns;
}

// ------------------------------------------------------------------------------------------------ timers

bool FlowTable::State::is_closed(std::uint32_t number) const noexcept {
    const flow_head& head = heads[number];
    if (head.key.l4_proto != PROTO_TCP) return false;
    return ((head.tcp_flags_out | head.tcp_flags_in) & TCP_RST) != 0 ||
           (head.tcp_flags_out & head.tcp_flags_in & TCP_FIN) != 0;
}

// After so long without packets the flow ends; the largest value: never.
std::uint64_t FlowTable::State::idle_limit_ns(std::uint32_t number) const noexcept {
    std::uint64_t limit = config.idle_timeout.count() > 0 ? ns_of(config.idle_timeout) : ~std::uint64_t{0};
    if (config.closed_timeout.count() > 0 && is_closed(number))
        limit = std::min(limit, ns_of(config.closed_timeout));
    return limit;
}

void FlowTable::State::schedule(std::uint32_t number) {
    const std::uint64_t began_ns = heads[number].first_seen_ns;
    const std::uint64_t done_ns = timers_done_second * second_ns;
    // The first full second at which something may be due; a time before the clock's counts as now, one that
    // lies beyond the wheel is looked at when the wheel has turned once.
    std::uint64_t due_ns = (timers_done_second + wheel.size() - 1) * second_ns;
    if (const std::uint64_t limit = idle_limit_ns(number); limit != ~std::uint64_t{0})
        due_ns = std::min<std::uint64_t>(due_ns, std::max(last_seen_ns(number), done_ns) + limit);
    if (const std::uint64_t period = ns_of(config.active_timeout); period > 0) {
        const std::uint64_t age = done_ns > began_ns ? done_ns - began_ns : 0;
        due_ns = std::min<std::uint64_t>(due_ns, began_ns + (age / period + 1) * period);
    }
    const std::uint64_t second = std::clamp((due_ns + second_ns - 1) / second_ns, timers_done_second + 1,
                                            timers_done_second + wheel.size() - 1);
    const auto list = static_cast<std::uint32_t>(second % wheel.size());
    timers[number] = {wheel[list], wheel_head | list};
    if (wheel[list] != no_entry) timers[wheel[list]].previous = number;
    wheel[list] = number;
}

void FlowTable::State::unschedule(std::uint32_t number) {
    const Timer timer = timers[number];
    if ((timer.previous & wheel_head) != 0)
        wheel[timer.previous & ~wheel_head] = timer.next;
    else
        timers[timer.previous].next = timer.next;
    if (timer.next != no_entry) timers[timer.next].previous = timer.previous;
}

// Slots and entries come in an order that growth changes; the sink's order must not depend on it.
bool FlowTable::State::before(std::uint32_t a, std::uint32_t b) const noexcept {
    const flow_head& x = heads[a];
    const flow_head& y = heads[b];
    if (x.first_seen_ns != y.first_seen_ns) return x.first_seen_ns < y.first_seen_ns;
    return std::memcmp(&x.key, &y.key, sizeof x.key) < 0;
}

// Numbers mostly come in the order in which the flows were made: then only those that began together are
// sorted.
void FlowTable::State::sort(std::vector<std::uint32_t>& numbers) const {
    const auto in_order = [this](std::uint32_t a, std::uint32_t b) { return before(a, b); };
    for (auto run = numbers.begin(); run != numbers.end();) {
        const std::uint64_t began = heads[*run].first_seen_ns;
        auto end = std::next(run);
        while (end != numbers.end() && heads[*end].first_seen_ns == began) ++end;
        if (end != numbers.end() && heads[*end].first_seen_ns < began) {
            std::sort(numbers.begin(), numbers.end(), in_order);
            return;
        }
        if (std::distance(run, end) > 1) std::sort(run, end, in_order);
        run = end;
    }
}

void FlowTable::State::run_timers(FlowSink& sink, std::uint64_t at_ns) {
    const std::uint64_t target = at_ns / second_ns;
    const std::uint64_t done_ns = timers_done_second * second_ns;
    const std::uint64_t period = ns_of(config.active_timeout);
    const auto age = [](std::uint64_t now_at, std::uint64_t since) {
        return now_at > since ? now_at - since : 0;
    };
    // After a long silence every list is due, once.
    const std::uint64_t steps =
        target > timers_done_second ? std::min<std::uint64_t>(target - timers_done_second, wheel.size()) : 0;
    std::vector<std::uint32_t> due;
    std::vector<std::uint32_t> ended;
    std::vector<std::uint32_t> lasting;
    for (std::uint64_t i = 0; i < steps; ++i) {
        std::uint32_t number = std::exchange(wheel[(timers_done_second + 1 + i) % wheel.size()], no_entry);
        for (; number != no_entry; number = timers[number].next) due.push_back(number);
    }
    timers_done_second = std::max(timers_done_second, target);
    for (const std::uint32_t number : due) {
        const std::uint64_t began_ns = heads[number].first_seen_ns;
        if (age(at_ns, last_seen_ns(number)) >= idle_limit_ns(number)) {
            ended.push_back(number);
            continue;
        }
        if (period > 0 && age(at_ns, began_ns) / period > age(done_ns, began_ns) / period)
            lasting.push_back(number);
        schedule(number);
    }
    sort(lasting);
    report(lasting, UpdateReason::active, sink, at_ns);
    sort(ended);
    report(ended, UpdateReason::ended, sink, at_ns);
    for (const std::uint32_t number : ended) free_entry(number);
}

// ------------------------------------------------------------------------------------------------ end

void FlowTable::advance(std::uint64_t at_ns, FlowSink& sink) {
    state_->now_max_ns = std::max(state_->now_max_ns, at_ns);
    state_->advance_to(at_ns, sink);
}

void FlowTable::drain(FlowSink& sink) {
    state_->report_moved(sink, state_->now_max_ns);
}

void FlowTable::finish(FlowSink& sink) {
    State& s = *state_;
    s.report_moved(sink, s.now_max_ns);
    if (s.made_in_order) {
        s.report_all_in_order(sink);
    } else {
        std::vector<std::uint32_t> numbers;
        numbers.reserve(s.live);
        for (std::uint32_t number = 0; number < s.entries_used; ++number)
            if (s.heads[number].tag != FLOW_FREE) numbers.push_back(number);
        s.sort(numbers);
        s.report(numbers, UpdateReason::ended, sink, s.now_max_ns);
    }
    s.clear();
}

}  // namespace egresswatch
