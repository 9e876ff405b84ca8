// rules/finding.h - what the evaluator hands up: whose window was filled, by what, why it was not allowed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"

namespace egresswatch::rules {

enum class Level : std::uint8_t { low, medium, high, critical };
[[nodiscard]] std::string_view level_name(Level level) noexcept;  // "low" ... "critical"

// What a window adds up.
enum class Measure : std::uint8_t { bytes_out, packets_out, bytes_in, packets_in, flows };
[[nodiscard]] std::string_view measure_name(Measure measure) noexcept;  // "bytes_out", "packets_out", ...

// Whether the policy's allow entries cover a flow.
struct Decision {
    bool allowed = false;
    std::string allow_id;  // the entry that covers it; empty where not allowed
    // Allowed: the entry's reason. Not allowed: the entries that came close and the field on which each
    // failed
    // ("card-scheme: port 8443/tcp is not in 443/tcp"), or "no allow entry names this destination".
    std::string reason;
};

// One field of the group whose window was filled: {"remote", "203.0.113.9"}, {"remote_prefix",
// "203.0.113.0/24"}, {"country", "US"}.
struct GroupField {
    std::string name;
    std::string value;
};

// A further figure of a finding: {"jitter", 0.03}.
struct FindingDetail {
    std::string name;
    double value = 0;
};

struct Finding {
    std::string rule_id;
    std::uint32_t rule_revision = 1;
    std::string title;
    Level level = Level::low;
    std::vector<std::string> tags;

    std::vector<GroupField> group;  // in the order of the rule's `by`; empty: the whole host is one group
    // Of the rule: sum, distinct, upload_ratio, periodic, long_lived, first_contact, sequence. Of an allow
    // entry, by a rule "egresswatch/...", which no rule of a policy can be called: ceiling, expiry.
    std::string kind = "sum";
    bool test = false;                  // `status: test`: recorded, not alerted
    std::string measure = "bytes_out";  // what `value` and `threshold` count
    std::uint64_t value = 0;            // counted in the window when it was filled; >= threshold
    std::uint64_t threshold = 0;        // `at_least`, in the unit of `measure`
    std::vector<FindingDetail> details;
    std::string message;            // what happened, where no sum says it; empty otherwise
    std::chrono::seconds window{};  // `over`
    Timestamp window_start{};       // start of the oldest bucket that was counted
    Timestamp window_end{};         // packet time reached when the window was filled
    std::uint64_t flows_in_window =
        0;  // updates counted in the window: 1 for one big transfer, many for a trickle
    std::uint64_t suppressed = 0;  // times the window filled again while suppressed, since the last finding

    bool has_flow = true;                 // false: nothing below but `time` and the policy
    FlowUpdate flow;                      // the update that filled the window
    ClassInfo info;                       // its destination class: country, kind
    std::vector<std::string> list_names;  // of the policy's named lists, those that contain the destination
    Decision decision;
    Timestamp time{};  // packet time of that update: flow.last_seen

    std::string policy_name;
    std::uint64_t policy_revision = 0;
};

}  // namespace egresswatch::rules
