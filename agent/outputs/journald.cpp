// agent/outputs/journald.cpp - see journald.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/journald.h"

#include "agent/outputs/structured_data.h"

namespace egresswatch::outputs {
namespace {

// "NAME=value\n", or for a value with line feeds its name, its length in 64 bits, little-endian, and itself.
void add_field(std::string& out, std::string_view name, std::string_view value) {
    out += name;
    if (value.find('\n') == std::string_view::npos) {
        out += '=';
    } else {
        out += '\n';
        for (int shift = 0; shift < 64; shift += 8) out += static_cast<char>((value.size() >> shift) & 0xFF);
    }
    out += value;
    out += '\n';
}

std::string upper(std::string_view name) {
    std::string out;
    for (const char c : name) out += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return out;
}

}  // namespace

Message format_journal_entry(const records::Json& record, const MessageContext& context) {
    Message message = format_bare(record, context);
    std::string& body = message.text;
    std::string out;
    add_field(out, "MESSAGE", body);
    add_field(out, "PRIORITY", std::to_string(syslog_severity(records::level_of(record))));
    add_field(out, "SYSLOG_FACILITY", std::to_string(context.facility));
    add_field(out, "SYSLOG_IDENTIFIER", "egresswatch");
    if (const auto time = record.find("time"); time != record.end() && time->is_string())
        add_field(out, "EGRESSWATCH_TIME", time->get<std::string>());
    if (const auto host = record.find("host"); host != record.end() && host->is_string())
        add_field(out, "EGRESSWATCH_HOST", host->get<std::string>());
    add_field(out, "EGRESSWATCH_VERSION", context.version);
    for (const Param& param : own_params(record))
        add_field(out, "EGRESSWATCH_" + upper(param.name), param.value);
    if (message.dropped != 0 || message.cut)
        add_field(out, "EGRESSWATCH_CUT", std::to_string(message.dropped) + (message.cut ? "+body" : ""));
    body = std::move(out);
    return message;
}

}  // namespace egresswatch::outputs
