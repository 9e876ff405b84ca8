// capture/process/command_line.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/command_line.h"

namespace egresswatch::capture {
namespace {

constexpr std::string_view MASK = "***";

// "--password=x" becomes "--password=***", "-px" becomes "-p***": a short option may have its value attached.
std::string masked(std::string_view word) {
    if (word.size() < 2 || word.front() != '-') return std::string(MASK);
    if (const auto equals = word.find('='); equals != std::string_view::npos)
        return std::string(word.substr(0, equals + 1)).append(MASK);
    if (word.starts_with("--")) return std::string(word);
    return word.size() == 2 ? std::string(word) : std::string(word.substr(0, 2)).append(MASK);
}

}  // namespace

std::string command_line_of(std::string_view words, ArgumentPolicy policy) {
    std::string line;
    if (policy == ArgumentPolicy::none) return line;
    bool first = true;
    while (!words.empty()) {
        const auto end = words.find('\0');
        const std::string_view word = words.substr(0, end);
        if (!first) line += ' ';
        if (first || policy == ArgumentPolicy::full)
            line += word;
        else
            line += masked(word);
        first = false;
        if (end == std::string_view::npos) break;
        words.remove_prefix(end + 1);
    }
    return line;
}

}  // namespace egresswatch::capture
