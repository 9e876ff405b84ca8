// agent/outputs/rfc5424.cpp - see rfc5424.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/outputs/rfc5424.h"

#include <sys/timex.h>

#include <algorithm>
#include <vector>

#include "agent/outputs/structured_data.h"
#include "agent/records/ecs.h"
#include "agent/records/fit.h"

namespace egresswatch::outputs {
namespace {

using records::Json;
using records::member;

constexpr std::size_t param_bytes_max = 128;  // of one value, before escaping
constexpr std::size_t cut_param_bytes = 24;   // room kept for ` cut="..."`
constexpr std::string_view bom = "\xEF\xBB\xBF";

std::string plain(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    return value.is_null() ? std::string{} : value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

// A header field: printable ASCII without spaces, "-" for nothing.
std::string header_field(std::string_view text, std::size_t bytes_max) {
    std::string out;
    for (const char c : text.substr(0, bytes_max)) out += c > 32 && c < 127 ? c : '?';
    return out.empty() ? "-" : out;
}

// RFC 5424 allows six digits of a second; the record has nine.
std::string timestamp(const Json& record, unsigned digits) {
    const std::string time = plain(member(record, "time"));
    if (!records::parse_time(time)) return "-";
    return records::shorter_time(time, std::min(digits, 6U));
}

void add(std::vector<Param>& params, const char* name, const Json& value, Tier tier = Tier::optional) {
    std::string text = plain(value);
    if (text.empty()) return;
    params.push_back({name, records::cut_utf8(records::valid_utf8(text), param_bytes_max), tier});
}

}  // namespace

std::vector<Param> own_params(const Json& record) {
    const Json& flow = member(record, "flow");
    std::vector<Param> params;
    // 0: stands in no journal. Findings that could not be written there say so.
    const Json& seq = member(record, "seq");
    add(params, "seq", seq.is_number() ? seq : Json(0), Tier::required);
    if (record.contains("unjournaled")) add(params, "unjournaled", "1", Tier::required);
    add(params, "kind", member(record, "kind"), Tier::required);
    add(params, "level", records::level_name(records::level_of(record)), Tier::required);
    add(params, "rule", records::rule_or_kind(record), Tier::required);
    if (flow.is_object()) {
        const Json& country = member(flow, "country");
        add(params, "country", country.is_null() ? Json("local") : country, Tier::required);
        add(params, "verdict", member(member(record, "decision"), "verdict"), Tier::required);
        add(params, "remote", member(flow, "remote"));
        add(params, "bytes_out", member(flow, "bytes_out"));
        add(params, "initiator", member(flow, "initiator"));
        add(params, "proto", member(flow, "transport"));
        if (member(flow, "remote_port") != 0) add(params, "remote_port", member(flow, "remote_port"));
    }
    add(params, "site", member(record, "site"));
    add(params, "reason", member(record, "reason"));
    add(params, "event", member(record, "event"));
    if (flow.is_object()) {
        add(params, "allow", member(member(record, "decision"), "allow_id"), Tier::repeated);
        add(params, "measure", member(record, "measure"), Tier::repeated);
        add(params, "value", member(record, "value"), Tier::repeated);
        add(params, "threshold", member(record, "threshold"), Tier::repeated);
        add(params, "window_s", member(record, "window_s"), Tier::repeated);
        add(params, "local", member(flow, "local"), Tier::repeated);
        if (member(flow, "local_port") != 0)
            add(params, "local_port", member(flow, "local_port"), Tier::repeated);
        add(params, "bytes_in", member(flow, "bytes_in"), Tier::repeated);
        add(params, "revision", member(member(record, "rule"), "revision"), Tier::repeated);
        const Json& process = member(record, "process");
        add(params, "pid", member(process, "pid"), Tier::repeated);
        add(params, "executable", member(process, "executable"), Tier::repeated);
        add(params, "user", member(process, "user"), Tier::repeated);
        add(params, "community_id", member(flow, "community_id"), Tier::repeated);
    }
    return params;
}

namespace {

struct Elements {
    std::vector<Param> own;
    bool time_quality = true;
};

std::string structured_data(const Elements& elements, const MessageContext& context, const std::string& cut) {
    std::string out = "[egresswatch@32473";
    for (const auto& param : elements.own)
        out += std::string(" ") + param.name + "=\"" + escape_param(param.value) + "\"";
    if (!cut.empty()) out += " cut=\"" + cut + "\"";
    out += "]";
    out += "[origin software=\"egresswatch\" swVersion=\"" + escape_param(context.version) + "\"]";
    if (elements.time_quality) {
        out += "[timeQuality tzKnown=\"1\"";
        if (context.clock_synced) out += *context.clock_synced ? " isSynced=\"1\"" : " isSynced=\"0\"";
        out += "]";
    }
    // RFC 5424 section 7.3.1: 1 to 2147483647, then from 1 again.
    out += "[meta sequenceId=\"" + std::to_string((context.sequence_id - 1) % 2'147'483'647 + 1) + "\"]";
    return out;
}

// The last parameter that may go; false when there is none.
bool drop_param(Elements& elements, bool repeated_only) {
    for (auto param = elements.own.rbegin(); param != elements.own.rend(); ++param) {
        if (param->tier == Tier::required || (repeated_only && param->tier != Tier::repeated)) continue;
        elements.own.erase(std::next(param).base());
        return true;
    }
    return false;
}

// The next optional thing of the structured data; false when only the required part is left.
bool drop_one(Elements& elements) {
    if (drop_param(elements, false)) return true;
    return std::exchange(elements.time_quality, false);
}

std::string header(const Json& record, const MessageContext& context) {
    const int priority = context.facility * 8 + syslog_severity(records::level_of(record));
    const std::string host = plain(member(record, "host"));
    return "<" + std::to_string(priority) + ">1 " + timestamp(record, context.time_digits) + " " +
           header_field(host.empty() ? context.host : host, 255) + " egresswatch " +
           header_field(context.process_id, 128) + " " + header_field(plain(member(record, "kind")), 32) +
           " ";
}

std::string with_mark(const records::Body& body, const MessageContext& context) {
    const bool ascii = std::all_of(body.text.begin(), body.text.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    if (records::is_json(context.body) || ascii) return body.text;
    return std::string(bom) + body.text;
}

}  // namespace

std::uint8_t syslog_severity(records::Level level) noexcept {
    switch (level) {
        case records::Level::critical:
            return 2;
        case records::Level::high:
            return 3;
        case records::Level::medium:
            return 4;
        case records::Level::low:
            return 5;
        case records::Level::info:
            break;
    }
    return 6;
}

std::string escape_param(std::string_view value) {
    static constexpr char hex[] = "0123456789abcdef";
    std::string out;
    for (const char c : value) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\' || c == ']') {
            out += '\\';
            out += c;
        } else if (byte < 0x20 || byte == 0x7F) {
            out += "\\\\x";
            out += hex[byte >> 4];
            out += hex[byte & 15];
        } else {
            out += c;
        }
    }
    return out;
}

std::optional<bool> kernel_clock_synced() noexcept {
    timex query{};
    const int state = ::ntp_adjtime(&query);
    if (state < 0) return std::nullopt;
    return state != TIME_ERROR;
}

Message format_message(const Json& record, const MessageContext& context) {
    const std::string head = header(record, context);
    Elements elements{own_params(record), true};
    Message message;
    std::string data = structured_data(elements, context, "");
    const records::Body whole =
        records::fit_body(context.body, record, records::body_unlimited, context.time_digits);
    message.text = head + data + " " + with_mark(whole, context);
    if (message.text.size() <= context.bytes_max) return message;

    const auto room = [&] {
        const std::size_t used = head.size() + data.size() + cut_param_bytes + 1 + bom.size();
        return context.bytes_max > used ? context.bytes_max - used : 0;
    };
    std::size_t dropped_here = 0;
    const auto dropped_one = [&] {
        ++dropped_here;
        data = structured_data(elements, context, "");
    };
    // First goes what the body says as well, then the body's optional fields, then those of the structured
    // data, then the body itself.
    while (context.body != records::BodyKind::text && whole.text.size() > room() &&
           drop_param(elements, true))
        dropped_one();
    const auto fit = [&] { return records::fit_body(context.body, record, room(), context.time_digits); };
    records::Body body = fit();
    while (body.cut && drop_one(elements)) {
        dropped_one();
        body = fit();
    }
    message.dropped = body.dropped + dropped_here;
    message.cut = body.cut;
    data = structured_data(elements, context, std::to_string(message.dropped) + (body.cut ? "+body" : ""));
    message.text = head + data + " " + with_mark(body, context);
    return message;
}

Message format_bare(const Json& record, const MessageContext& context) {
    records::Body body = records::fit_body(context.body, record, context.bytes_max, context.time_digits);
    return {std::move(body.text), body.dropped, body.cut};
}

}  // namespace egresswatch::outputs
