// agent/records/record.h - the JSON of every kind of journal record; docs/records.md is its field table.
// SPDX-License-Identifier: Apache-2.0
//
// In:      plain structs of the rooms below.   Out: one JSON object, without `seq` and `written`: the journal
// adds them. Threads: pure functions, any thread. Fails:   never; text that is not UTF-8 is carried as
// U+FFFD, control characters are escaped when written. Not here: what a SIEM gets (body.h), where records are
// kept (agent/journal/journal.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/records/level.h"
#include "capture/engine.h"
#include "classifier/flow_update.h"
#include "classifier/region/region_spec.h"

namespace egresswatch::rules {
struct Finding;
struct Decision;
}  // namespace egresswatch::rules

namespace egresswatch::records {

using Json =
    nlohmann::ordered_json;  // keys stay in the order in which they are written: people read these lines

// The level of a record of any kind, from its `level` member; info where it has none.
[[nodiscard]] Level level_of(const Json& record);

inline constexpr std::string_view kinds[] = {"genesis",    "finding", "flow",     "policy", "coverage", "gap",
                                             "checkpoint", "key",     "recovery", "stop",   "heartbeat"};
[[nodiscard]] bool is_kind(std::string_view kind) noexcept;

// Who writes: part of every record, so that a line makes sense without its neighbours.
struct Origin {
    std::string site;     // "dublin"; empty: not configured
    std::string host;     // host name as the SIEM knows it
    std::string host_id;  // machine id (/etc/machine-id); empty: unknown
    std::string version;  // of egresswatch
    [[nodiscard]] static Origin of_this_host(std::string site);  // uname, /etc/machine-id
};

inline constexpr int schema_version =
    1;  // of the records; in the genesis record, raised when a member changes its meaning

// The members that every record has: time (absent for a zero time: the journal's clock), kind, host, host_id,
// site, version. What adds a kind of its own starts with it.
[[nodiscard]] Json record_head(const Origin& origin, std::string_view kind, Timestamp time);

// "2026-11-23T12:00:00.123456789Z"; always nine digits, so that text order is time order.
[[nodiscard]] std::string format_time(Timestamp time);
[[nodiscard]] std::optional<Timestamp> parse_time(std::string_view text) noexcept;
// The same text with fewer digits of a second, cut, not rounded; anything else as it is.
[[nodiscard]] std::string shorter_time(const std::string& time, unsigned digits);

// Names of protocol numbers that ECS `network.transport` knows ("tcp", "udp", "icmp", "ipv6-icmp", "sctp",
// "gre", ...); other numbers as decimal text.
[[nodiscard]] std::string transport_name(std::uint8_t l4_proto);
[[nodiscard]] std::string_view initiator_name(
    datapath::initiator initiator) noexcept;  // local, remote, unknown
// The member names of `losses` in coverage records and in the status, index: datapath::loss_reason.
[[nodiscard]] std::string_view loss_name(std::size_t reason) noexcept;

// The members that describe a flow, shared by finding and flow records and by `replay --flows`: local,
// remote, local_port, remote_port, l4_proto, transport, packets_out, bytes_out, packets_in, bytes_in, class,
// country, initiator, tunnel, outer_local, outer_remote (null without a tunnel), community_id (null: see
// community_id.h), ...
[[nodiscard]] Json flow_fields(const FlowUpdate& flow, const ClassInfo& info);
// `country` as every record has it: "US"; "unknown" where no database knows; null for local addresses.
[[nodiscard]] Json country_field(const ClassInfo& info);

[[nodiscard]] Json finding_record(const Origin& origin, const rules::Finding& finding);
// Ended or long-lived flow with an outside or unknown remote end. `list_names`: RegionSpec::list_names.
[[nodiscard]] Json flow_record(const Origin& origin, const FlowUpdate& flow, const ClassInfo& info,
                               const rules::Decision* decision);

struct PolicyEvent {
    Timestamp time{};
    std::string event;  // "loaded", "reloaded", "rejected" (the old one stays in force)
    std::string name;
    std::uint64_t revision = 0;
    std::string content_hash;  // SHA-256, hex, of what is in force after this event
    std::string geo_hash;      // of the geo data in force
    std::string directory;
    std::size_t rules = 0;
    std::size_t allows = 0;
    std::vector<std::string>
        problems;  // of a rejected policy: "file:line:column: message"; warnings otherwise
};
[[nodiscard]] Json policy_record(const Origin& origin,
                                 const PolicyEvent& event);  // level: medium when rejected

// What happened between two snapshots of an engine's totals. Coverage records tile time: `from` is the `to`
// of the one before. Figures are differences, not running sums.
struct Coverage {
    Timestamp from{};
    Timestamp to{};
    capture::TotalsSnapshot before;  // default-constructed for the first one: differences to zero
    capture::TotalsSnapshot after;
    std::vector<ClassInfo> classes;  // index: class id
    std::string engine;
    std::string policy_hash;
    std::string geo_hash;
    std::uint64_t findings = 0;  // in this interval
    std::uint64_t findings_suppressed = 0;
    std::uint64_t window_evictions = 0;
    std::uint64_t unjournaled = 0;  // records that could not be written, since start
};
[[nodiscard]] Json coverage_record(const Origin& origin, const Coverage& coverage);

struct Gap {
    std::string reason;  // "retention", "unjournaled", "not-durable", "evaluation", "queue-full"
    Timestamp from{};    // zero: not known
    Timestamp to{};
    std::optional<std::uint64_t> first_seq;  // journal records concerned
    std::optional<std::uint64_t> last_seq;
    std::uint64_t records = 0;
    std::vector<std::string> outputs;  // those that had not delivered what went
    std::string detail;
};
[[nodiscard]] Json gap_record(const Origin& origin, const Gap& gap);  // level: medium

struct Recovery {
    std::string segment;              // file in which the torn tail was
    std::uint64_t cut_at = 0;         // byte offset
    std::uint64_t cut_bytes = 0;      // 0: nothing torn, only no stop record
    std::uint64_t damaged_lines = 0;  // unreadable lines in front of readable ones: left as they are
    std::uint64_t last_seq = 0;       // of the last complete record before
    std::optional<std::uint64_t>
        lost_first_seq;  // numbers that had been given out and whose records are gone (or may be)
    std::optional<std::uint64_t> lost_last_seq;
    bool host_restarted = false;  // the boot id changed: up to one commit interval may be missing
};
[[nodiscard]] Json recovery_record(const Origin& origin, const Recovery& recovery);  // level: medium

// Begins a log of the evidence (agent/evidence). Empty members are null: a journal without signatures.
[[nodiscard]] Json genesis_record(const Origin& origin, std::string_view log_origin,
                                  std::string_view verifier_key = {}, std::string_view note = {});
// A signed tree head; `key` records hold one that puts the next key in force.
struct SignedHead {
    std::string origin;
    std::uint64_t size = 0;
    std::string root;              // base64
    std::uint64_t generation = 0;  // of the key that signed
    std::string note;
    std::string verifier_key;  // key records: the one from now on
};
[[nodiscard]] Json checkpoint_record(const Origin& origin, const SignedHead& head);
[[nodiscard]] Json key_record(const Origin& origin, const SignedHead& head);
[[nodiscard]] Json stop_record(const Origin& origin, std::string_view reason);  // "signal", "config", ...

}  // namespace egresswatch::records
