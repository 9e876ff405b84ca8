// rules/diagnostics.h - what is wrong with a policy file, where, and the cure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

namespace egresswatch::rules {

// 1-based; line 0 means the whole file.
struct SourceSpan {
    std::string file;
    std::uint32_t line = 0;
    std::uint32_t column = 0;
    std::uint32_t length = 1;
};

enum class Severity : std::uint8_t { warning, error };

struct Diagnostic {
    Severity severity = Severity::error;
    std::string code;  // stable, "rules/host-bits-set"
    SourceSpan span;
    std::string message;
    std::string help;
};

template <typename T>
using Compiled = std::expected<T, std::vector<Diagnostic>>;

}  // namespace egresswatch::rules
