// capture/process/command_line.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/command_line.h"

#include <algorithm>

namespace egresswatch::capture {
namespace {

constexpr std::string_view MASK = "***";

bool names_an_option(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

// "--password=x" becomes "--password=***", "--token:x" "--token***", "-px" "-p***": a short option may have
// its value attached, whatever is in it.
std::string masked(std::string_view word) {
    if (word.size() < 2 || word.front() != '-') return std::string(MASK);
    if (!word.starts_with("--"))
        return word.size() == 2 ? std::string(word) : std::string(word.substr(0, 2)).append(MASK);
    const auto* end = std::ranges::find_if_not(word, names_an_option);
    if (end == word.end()) return std::string(word);
    return std::string(word.begin(), *end == '=' ? end + 1 : end).append(MASK);
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
