// rules/owned_facts.h - FlowFacts that own what they say: of flows that are read from a file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rules/flow_facts.h"

namespace egresswatch::rules {

// As in FlowFacts. Empty: unknown.
struct OwnedFacts {
    std::vector<std::string> dns;
    std::vector<std::string> dns_unlisted;  // only by name servers that are not listed
    std::string sni, http_host, app;
    std::string executable, sha256, user, cgroup, unit, container;
    std::optional<std::uint32_t> uid;
    std::uint8_t sender = datapath::SENDER_UNSEEN;
    bool unread = false;
    std::uint8_t hidden = 0;
    std::optional<bool> contradiction;  // unset: what is said is none of `dns`

    [[nodiscard]] bool said_nothing() const noexcept {
        return dns.empty() && dns_unlisted.empty() && sni.empty() && http_host.empty();
    }
    void take_names(OwnedFacts of) {
        dns = std::move(of.dns);
        dns_unlisted = std::move(of.dns_unlisted);
        sni = std::move(of.sni);
        http_host = std::move(of.http_host);
        if (app.empty()) app = std::move(of.app);
        unread = of.unread;
        hidden = of.hidden;
        contradiction = of.contradiction;
    }
};

// Refers to them, and to itself: stays where it is.
class FactsView {
public:
    explicit FactsView(const OwnedFacts& known, bool remote_connects)
        : dns_(known.dns_unlisted.begin(), known.dns_unlisted.end()) {
        dns_.insert(dns_.end(), known.dns.begin(), known.dns.end());
        facts.dns = dns_;
        facts.dns_unlisted = known.dns_unlisted.size();
        facts.sni = known.sni;
        facts.http_host = known.http_host;
        facts.app = known.app;
        facts.unread = known.unread;
        facts.hidden = known.hidden;
        facts.names_local = remote_connects;
        const std::string_view said = facts.said();
        facts.contradiction = known.contradiction.value_or(!said.empty() && !dns_.empty() &&
                                                           std::ranges::find(dns_, said) == dns_.end());
        facts.executable = known.executable;
        facts.sha256 = known.sha256;
        facts.user = known.user;
        facts.uid = known.uid;
        facts.cgroup = known.cgroup;
        facts.unit = known.unit;
        facts.container = known.container;
        facts.sender = known.sender;
    }
    FactsView(const FactsView&) = delete;
    FactsView& operator=(const FactsView&) = delete;

    FlowFacts facts;

private:
    std::vector<std::string_view> dns_;
};

}  // namespace egresswatch::rules
