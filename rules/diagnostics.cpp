// rules/diagnostics.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/diagnostics.h"

#include <algorithm>

namespace egresswatch::rules {

namespace {

constexpr std::size_t line_shown_max = 160;  // code points of the source line that are printed

bool is_continuation(char c) {
    return (static_cast<unsigned char>(c) & 0xc0) == 0x80;
}

// What a terminal may see of a source line: tabs and printable text.
std::string printable(const std::string& line, std::size_t code_points_max) {
    std::string out;
    std::size_t shown = 0;
    for (const char c : line) {
        if (!is_continuation(c) && shown++ == code_points_max) return out + "...";
        const auto byte = static_cast<unsigned char>(c);
        out += (byte < 0x20 && c != '\t') || byte == 0x7f ? '?' : c;
    }
    return out;
}

// Blanks as wide as the first `columns` code points of the line: tabs stay tabs.
std::string padding(const std::string& line, std::size_t columns) {
    std::string out;
    for (const char c : line) {
        if (is_continuation(c)) continue;
        if (out.size() == columns) break;
        out += c == '\t' ? '\t' : ' ';
    }
    out.resize(columns, ' ');
    return out;
}

std::string place(const SourceSpan& span) {
    if (span.line == 0) return span.file;
    return span.file + ":" + std::to_string(span.line) + ":" + std::to_string(span.column);
}

std::string plural(std::size_t count, const char* word) {
    return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

}  // namespace

std::string format_diagnostic(const Diagnostic& diagnostic, bool colour) {
    const bool is_error = diagnostic.severity == Severity::error;
    const char* bold = colour ? "\033[1m" : "";
    const char* tint = colour ? (is_error ? "\033[1;31m" : "\033[1;35m") : "";
    const char* green = colour ? "\033[32m" : "";
    const char* plain = colour ? "\033[0m" : "";
    std::string out = std::string(bold) + place(diagnostic.span) + ":" + plain + " " + tint +
                      (is_error ? "error:" : "warning:") + plain + " " + bold + diagnostic.message + plain +
                      "  [" + diagnostic.code + "]\n";
    const SourceSpan& span = diagnostic.span;
    if (span.line != 0 && !diagnostic.source_line.empty() && span.column <= line_shown_max) {
        std::string number = std::to_string(span.line);
        if (number.size() < 5) number.insert(0, 5 - number.size(), ' ');
        const std::size_t before = span.column == 0 ? 0 : span.column - 1;
        const std::size_t length = std::clamp<std::size_t>(span.length, 1, line_shown_max - before);
        out += number + " | " + printable(diagnostic.source_line, line_shown_max) + "\n" +
               std::string(number.size(), ' ') + " | " + padding(diagnostic.source_line, before) + green +
               "^" + std::string(length - 1, '~') + plain + "\n";
    }
    if (!diagnostic.context.empty()) out += "  in " + diagnostic.context + "\n";
    if (!diagnostic.help.empty()) out += "  help: " + diagnostic.help + "\n";
    return out;
}

std::string format_short(const Diagnostic& diagnostic) {
    return place(diagnostic.span) + (diagnostic.severity == Severity::error ? ": error: " : ": warning: ") +
           diagnostic.message + " [" + diagnostic.code + "]";
}

std::size_t count_errors(std::span<const Diagnostic> diagnostics) noexcept {
    return static_cast<std::size_t>(std::ranges::count(diagnostics, Severity::error, &Diagnostic::severity));
}

std::string format_counts(std::span<const Diagnostic> diagnostics) {
    const std::size_t errors = count_errors(diagnostics);
    const std::size_t warnings = diagnostics.size() - errors;
    std::string out = errors == 0 ? "no errors" : plural(errors, "error");
    if (warnings != 0) out += ", " + plural(warnings, "warning");
    return out;
}

}  // namespace egresswatch::rules
