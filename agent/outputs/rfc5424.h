// agent/outputs/rfc5424.h - a journal record as one RFC 5424 message, never longer than the destination
// takes. SPDX-License-Identifier: Apache-2.0
//
// Out:     header, structured data (egresswatch@32473, origin, timeQuality, meta), body. No control
// characters: a line
//          feed inside a message is impossible, so LF framing is safe.
// UTF-8:   a text body with characters beyond ASCII begins with the byte order mark (MSG-UTF8, RFC 5424
// section 6.4). An
//          ECS body never does: JSON must not have one (RFC 8259 section 8.1), and it is pure ASCII anyway.
// Limits:  `bytes_max`; what goes first, what last: docs/siem.md. `cut` in the structured data counts what
// went.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/records/body.h"

namespace egresswatch::outputs {

struct MessageContext {
    std::uint8_t facility = 20;
    records::BodyKind body = records::BodyKind::ecs;
    std::size_t bytes_max = 4'000;
    unsigned time_digits = 9;  // of a second; the header has six at most
    std::string host;          // where a record names none
    std::string version;
    std::string process_id;            // PROCID
    std::uint64_t sequence_id = 1;     // of this output since it started: 1, 2, ...
    std::optional<bool> clock_synced;  // nothing: the kernel does not say
};

struct Message {
    std::string text;
    std::size_t dropped = 0;  // optional fields and parameters left out
    bool cut = false;         // the body itself did not fit
};

[[nodiscard]] Message format_message(const records::Json& record, const MessageContext& context);
// The body alone, for destinations that are no syslog receivers.
[[nodiscard]] Message format_bare(const records::Json& record, const MessageContext& context);

[[nodiscard]] std::uint8_t syslog_severity(
    records::Level level) noexcept;  // critical 2, high 3, medium 4, low 5, info 6
// RFC 5424 section 6.3.3: `"`, `\` and `]` behind a backslash; control characters as \xNN text.
[[nodiscard]] std::string escape_param(std::string_view value);
[[nodiscard]] std::optional<bool> kernel_clock_synced() noexcept;

}  // namespace egresswatch::outputs
