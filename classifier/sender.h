// classifier/sender.h - the words for who sends a flow, and why that is not known.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "classifier/datapath/sender.h"

namespace egresswatch {

// Of enum sender_outcome: "unseen", "process", "routed", "kernel", "handshake", "no-socket", "older",
// "packet-socket", "daemon-away".
[[nodiscard]] std::string_view sender_outcome_name(std::uint8_t outcome) noexcept;
// Of enum sender_how: "unknown", "sent", "opened", "accepted", "listened", "inherited", "found".
[[nodiscard]] std::string_view sender_how_name(std::uint8_t how) noexcept;

}  // namespace egresswatch
