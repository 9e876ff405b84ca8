// rules/flow_facts.h - what is known of a flow beyond its packets' headers. What is empty is unknown.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "classifier/datapath/sender.h"
#include "classifier/flow_update.h"

namespace egresswatch::rules {

// Views: they have to live as long as the call that they are handed to. Names are in small letters.
struct FlowFacts {
    std::span<const std::string_view> dns;  // names that a DNS answer gave the remote address
    // So many of them, the first ones, come only from name servers that the operators do not list: they open
    // nothing.
    std::size_t dns_unlisted = 0;
    std::string_view sni;
    std::string_view http_host;
    std::string_view app;  // "tls", "http", "dns", ...
    // What the sender says (sni, http_host) is none of the names that DNS answers gave the address.
    bool contradiction = false;
    // What the sender asks for could not be read: an answer of DNS does not stand for it.
    bool unread = false;
    std::uint8_t hidden = 0;   // inspect::HiddenName: `sni` may not be whom it is for
    bool names_local = false;  // the remote end connected: sni and http_host name this host

    std::string_view executable;
    std::string_view sha256;  // hex, small letters
    std::string_view user;
    std::optional<std::uint32_t> uid;
    std::string_view cgroup;
    std::string_view unit;
    std::string_view container;
    std::uint8_t sender = datapath::SENDER_UNSEEN;  // enum sender_outcome

    [[nodiscard]] bool has_process() const noexcept { return !executable.empty() || uid || !cgroup.empty(); }
    // What the sender says it talks to; empty: nothing.
    [[nodiscard]] std::string_view said() const noexcept {
        return names_local ? std::string_view() : sni.empty() ? http_host : sni;
    }
    [[nodiscard]] std::span<const std::string_view> dns_listed() const noexcept {
        return dns.subspan(dns_unlisted);
    }
    [[nodiscard]] bool has_names() const noexcept {
        return !dns.empty() || !sni.empty() || !http_host.empty() || !app.empty();
    }
};

}  // namespace egresswatch::rules
