// tests/support/same_update.h - whether two flow tables tell the same, byte for byte.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "classifier/flow_update.h"

namespace egresswatch::test {

inline bool same(const FlowUpdate& a, const FlowUpdate& b) {
    return std::memcmp(&a.key, &b.key, sizeof a.key) == 0 && a.total == b.total && a.delta == b.delta &&
           a.first_seen == b.first_seen && a.last_seen == b.last_seen && a.initiator == b.initiator &&
           a.initiator_sure == b.initiator_sure && a.handshake_rtt_us == b.handshake_rtt_us &&
           a.tcp_flags_out == b.tcp_flags_out && a.tcp_flags_in == b.tcp_flags_in && a.reason == b.reason &&
           a.outer_local == b.outer_local && a.outer_remote == b.outer_remote;
}

inline std::vector<std::uint8_t> raw(const void* from, std::size_t bytes) {
    const auto* begin = static_cast<const std::uint8_t*>(from);
    return {begin, begin + bytes};
}

}  // namespace egresswatch::test
