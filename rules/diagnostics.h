// rules/diagnostics.h - what is wrong with a policy file, where, and the cure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <vector>

namespace egresswatch::rules {

// 1-based; line 0 means the whole file. `column` and `length` count characters (code points), not bytes.
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
    std::string help;         // the cure; empty: the message says it
    std::string context;      // `rule "backup-to-s3" (line 12)`; empty: not inside an entry
    std::string source_line;  // text of span.line, without its line feed
};

template <typename T>
using Compiled = std::expected<T, std::vector<Diagnostic>>;

// Several lines, the last one ended; as docs/man/egresswatch-check.1 shows. Control characters of the source
// line are shown as '?', so that a hostile file cannot steer a terminal.
[[nodiscard]] std::string format_diagnostic(const Diagnostic& diagnostic, bool colour = false);
// "file:line:column: error: message [code]": for logs, status and records.
[[nodiscard]] std::string format_short(const Diagnostic& diagnostic);
[[nodiscard]] std::size_t count_errors(std::span<const Diagnostic> diagnostics) noexcept;
// "1 error, 2 warnings"; "no errors".
[[nodiscard]] std::string format_counts(std::span<const Diagnostic> diagnostics);

}  // namespace egresswatch::rules
