// capture/process/command_line.h - the arguments of a process, as far as they may be shown.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace egresswatch::capture {

// full: as it is. masked: the program, and of each option its name; every other word is "***". none: nothing.
// Command lines carry passwords, tokens, names of files and of people.
enum class ArgumentPolicy : std::uint8_t { full, masked, none };

// `words`: as in /proc/PID/cmdline, each ended by a zero; the last one may be cut.
[[nodiscard]] std::string command_line_of(std::string_view words, ArgumentPolicy policy);

}  // namespace egresswatch::capture
