// agent/naming.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/naming.h"

namespace egresswatch {

NamedFlow::NamedFlow(const inspect::Inspection& inspection, const FlowUpdate& update)
    : names_(inspection.names_of(update)) {}

void NamedFlow::add_to(rules::FlowFacts& facts) const noexcept {
    add_name_facts(names_, facts);
}

void add_name_facts(const inspect::FlowNames& names, rules::FlowFacts& facts) noexcept {
    facts.dns = names.dns();
    facts.dns_unlisted = names.dns_unlisted().size();
    facts.sni = names.said(inspect::NameSource::sni);
    facts.http_host = names.said(inspect::NameSource::http);
    if (names.protocol != inspect::Protocol::unknown) facts.app = inspect::protocol_name(names.protocol);
    facts.contradiction = names.contradiction;
    facts.unread = names.unread;
    if (names.facts != nullptr) facts.hidden = static_cast<std::uint8_t>(names.facts->hidden);
    facts.names_local = names.names_local;
}

rules::OwnedFacts owned_facts_of(const inspect::FlowNames* names) {
    rules::OwnedFacts out;
    if (names == nullptr) return out;
    out.dns.assign(names->dns_listed().begin(), names->dns_listed().end());
    out.dns_unlisted.assign(names->dns_unlisted().begin(), names->dns_unlisted().end());
    out.sni = names->said(inspect::NameSource::sni);
    out.http_host = names->said(inspect::NameSource::http);
    if (names->protocol != inspect::Protocol::unknown) out.app = inspect::protocol_name(names->protocol);
    out.unread = names->unread;
    if (names->facts != nullptr) out.hidden = static_cast<std::uint8_t>(names->facts->hidden);
    out.contradiction = names->contradiction;
    return out;
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
