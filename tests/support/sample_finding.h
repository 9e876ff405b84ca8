// tests/support/sample_finding.h - one finding with every field set, for tests of records and outputs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <string>

#include "agent/records/record.h"
#include "rules/finding.h"

namespace egresswatch::testing {

inline records::Origin sample_origin() {
    return {"dublin", "web1.dub.example.org", "0123456789abcdef0123456789abcdef", "0.1.0"};
}

inline Timestamp sample_time(int seconds) {  // after 2026-11-23T12:00:00.123456789Z
    return *records::parse_time("2026-11-23T12:00:00.123456789Z") + std::chrono::seconds{seconds};
}

inline FlowUpdate sample_flow(const std::string& local, const std::string& remote) {
    FlowUpdate flow;
    std::memcpy(flow.key.local_addr, Address::parse(local)->bytes.data(), 16);
    std::memcpy(flow.key.remote_addr, Address::parse(remote)->bytes.data(), 16);
    flow.key.local_port = datapath::host16(50514);
    flow.key.remote_port = datapath::host16(443);
    flow.key.l4_proto = 6;
    flow.total = {44'000, 62'914'560, 21'000, 1'092'000};
    flow.first_seen = sample_time(-5);
    flow.last_seen = sample_time(0);
    flow.initiator = datapath::INITIATOR_LOCAL;
    flow.initiator_sure = true;
    flow.tcp_flags_out = 0x1A;
    flow.tcp_flags_in = 0x12;
    flow.handshake_rtt_us = 180'000;
    flow.ifindex = 2;
    return flow;
}

inline rules::Finding sample_finding(const std::string& remote = "203.0.113.9") {
    rules::Finding finding;
    finding.rule_id = "bulk-to-outside";
    finding.rule_revision = 3;
    finding.title = "Bulk transfer out of the region";
    finding.level = rules::Level::high;
    finding.tags = {"attack.t1041", "attack.t1567.002"};
    finding.group = {{"remote", remote}};
    finding.value = 62'914'560;
    finding.threshold = 52'428'800;
    finding.window = std::chrono::seconds{600};
    finding.window_start = sample_time(-60);
    finding.window_end = sample_time(0);
    finding.flows_in_window = 12;
    finding.suppressed = 2;
    finding.flow =
        sample_flow(remote.find(':') == std::string::npos ? "198.51.100.5" : "2001:db8:1::5", remote);
    finding.info = {datapath::KIND_OUTSIDE, datapath::LOCAL_NONE, "CN", {}, false};
    finding.list_names = {"watched_networks"};
    finding.decision = {false, "", "card-scheme: port 443/tcp is not in 8443/tcp"};
    finding.time = sample_time(0);
    finding.policy_name = "clover-eu";
    finding.policy_revision = 14;
    return finding;
}

}  // namespace egresswatch::testing
