// classifier/sender.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/sender.h"

#include <array>

namespace egresswatch {

std::string_view sender_outcome_name(std::uint8_t outcome) noexcept {
    static constexpr std::array<std::string_view, datapath::SENDER_OUTCOME_COUNT> names{
        "unseen",    "process", "routed",        "kernel",     "handshake",
        "no-socket", "older",   "packet-socket", "daemon-away"};
    return outcome < names.size() ? names[outcome] : "unknown";
}

std::string_view sender_how_name(std::uint8_t how) noexcept {
    static constexpr std::array<std::string_view, datapath::HOW_COUNT> names{
        "unknown", "sent", "opened", "accepted", "listened", "inherited", "found"};
    return how < names.size() ? names[how] : "unknown";
}

}  // namespace egresswatch
