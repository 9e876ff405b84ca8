// agent/outputs/journald.h - a journal record as one entry of systemd's journal, in its native protocol
// (systemd's JOURNAL_NATIVE_PROTOCOL.md): every structured datum is a field of its own.
// SPDX-License-Identifier: Apache-2.0
//
// Why not sd_journal_sendv(): it returns success when there is no journald, and blocks when it is slow.
#pragma once

#include "agent/outputs/rfc5424.h"

namespace egresswatch::outputs {

inline constexpr const char* journald_socket = "/run/systemd/journal/socket";

// MESSAGE is the body, at most `context.bytes_max` bytes of it; fields beside it: docs/siem.md.
[[nodiscard]] Message format_journal_entry(const records::Json& record, const MessageContext& context);

}  // namespace egresswatch::outputs
