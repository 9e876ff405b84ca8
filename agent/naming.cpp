// agent/naming.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/naming.h"

namespace egresswatch {

NamedFlow::NamedFlow(const inspect::Inspection& inspection, const FlowUpdate& update)
    : names_(inspection.names_of(update)) {}

void NamedFlow::add_to(rules::FlowFacts& facts) const noexcept {
    facts.dns = names_.dns();
    facts.sni = names_.said(inspect::NameSource::sni);
    facts.http_host = names_.said(inspect::NameSource::http);
    if (names_.protocol != inspect::Protocol::unknown) facts.app = inspect::protocol_name(names_.protocol);
    facts.contradiction = names_.contradiction;
    facts.unread = names_.unread;
    facts.names_local = names_.names_local;
}

FlowUpdate update_of(const PayloadSample& question) noexcept {
    FlowUpdate out;
    out.key = question.key;
    out.total.packets_out = 1;
    out.total.bytes_out = question.ip_bytes;
    out.delta = out.total;
    out.first_seen = out.last_seen = question.at;
    out.ifindex = question.ifindex;
    out.initiator = datapath::INITIATOR_LOCAL;
    return out;
}

}  // namespace egresswatch
