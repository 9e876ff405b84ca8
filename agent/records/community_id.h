// agent/records/community_id.h - Community ID v1: one name for a flow across monitors (Zeek, Suricata, ...).
// SPDX-License-Identifier: Apache-2.0
//
// Specification: github.com/corelight/community-id-spec (v1, seed 0): "1:" base64(SHA-1(seed | lower address
// | higher address | protocol | 0 [| port | port])). What we give: TCP, UDP, SCTP with their ports; ICMP and
// ICMPv6 only where type and code are known (a flow key has none, so the id of an ICMP flow is absent, as the
// specification allows); every other protocol from its addresses. Non-first fragments (ports 0 and 0 on a
// protocol with ports) have none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "classifier/address.h"
#include "classifier/datapath/layout.h"

namespace egresswatch::records {

// Ports in host order; type and code of ICMP and ICMPv6 stand in `source_port` and `destination_port`.
[[nodiscard]] std::string community_id_v1(const Address& source, const Address& destination,
                                          std::uint16_t source_port, std::uint16_t destination_port,
                                          std::uint8_t l4_proto, std::uint16_t seed = 0);

[[nodiscard]] std::optional<std::string> community_id_of(const datapath::flow_key& key);

}  // namespace egresswatch::records
