// agent/outputs/rate_limit.h - how many records a destination gets, and the account of those it does not get.
// SPDX-License-Identifier: Apache-2.0
//
// Clock:  the records' own `written` time: a backlog that is caught up after an outage is judged as it would
// have been
//         live, and not by the speed at which it is sent.
// Rule:   a bucket of `burst` tokens, filled at `per_second`. Low findings, flows and coverage need it more
// than half
//         full, medium findings more than a quarter: what is least important goes first. Critical findings
//         always pass.
// Limits: rules_named_max rules are named in a summary, the others are counted together.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "agent/outputs/output_config.h"
#include "classifier/flow_update.h"

namespace egresswatch::outputs {

class RateLimit {
public:
    static constexpr std::size_t rules_named_max = 16;
    static constexpr std::chrono::seconds summary_interval{10};

    struct Skipped {
        std::uint64_t records = 0;
        std::uint64_t first_seq = 0;
        std::uint64_t last_seq = 0;
        Timestamp first_written{};
        std::array<std::uint64_t, 5> by_level{};
        std::map<std::string, std::uint64_t> by_rule;
        Level highest = Level::info;
    };

    explicit RateLimit(RateLimitConfig config) : config_(config), tokens_(config.burst) {}

    [[nodiscard]] bool admit(Level level, Timestamp written) {
        if (written > last_) {
            if (last_ != Timestamp{})
                tokens_ = std::min<double>(
                    config_.burst,
                    tokens_ + config_.per_second * std::chrono::duration<double>(written - last_).count());
            last_ = written;
        }
        const double share = level == Level::critical || level == Level::high ? 0.0
                             : level == Level::medium                         ? 0.25
                                                                              : 0.5;
        if (level != Level::critical && tokens_ < std::max(1.0, share * config_.burst)) return false;
        tokens_ = std::max(0.0, tokens_ - 1);
        return true;
    }

    void skip(std::uint64_t seq, Level level, const std::string& rule) {
        if (skipped_.records++ == 0) {
            skipped_.first_seq = seq;
            skipped_.first_written = last_;
        }
        skipped_.last_seq = seq;
        skipped_.highest = std::max(skipped_.highest, level);
        ++skipped_.by_level[static_cast<std::size_t>(level)];
        const bool named = skipped_.by_rule.contains(rule) || skipped_.by_rule.size() < rules_named_max;
        ++skipped_.by_rule[named ? rule : "others"];
    }

    [[nodiscard]] const Skipped& skipped() const noexcept { return skipped_; }
    // By the records' time, or by `now`, whichever is further.
    [[nodiscard]] bool summary_due(Timestamp now) const noexcept {
        return skipped_.records != 0 && std::max(last_, now) - skipped_.first_written >= summary_interval;
    }
    [[nodiscard]] Skipped take() { return std::exchange(skipped_, {}); }

private:
    RateLimitConfig config_;
    double tokens_;
    Timestamp last_{};
    Skipped skipped_;
};

}  // namespace egresswatch::outputs
