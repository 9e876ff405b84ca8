// classifier/inspect/http.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/http.h"

#include <algorithm>
#include <array>

#include "classifier/inspect/tls.h"  // plausible_host_name

namespace egresswatch::inspect {
namespace {

// RFC 9110 section 9, RFC 5789, and the methods of WebDAV (RFC 4918) and UPnP that are met in captures.
constexpr std::array<std::string_view, 22> methods = {
    "GET",    "POST",     "HEAD",      "PUT",   "DELETE",    "CONNECT", "OPTIONS", "TRACE",
    "PATCH",  "PROPFIND", "PROPPATCH", "MKCOL", "COPY",      "MOVE",    "LOCK",    "UNLOCK",
    "REPORT", "SEARCH",   "NOTIFY",    "MERGE", "SUBSCRIBE", "M-SEARCH"};
constexpr std::size_t method_bytes_max = 9;

bool equal_without_case(std::string_view a, std::string_view lower) noexcept {
    return std::ranges::equal(a, lower, [](char x, char y) {
        return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + ('a' - 'A')) : x) == y;
    });
}

std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

// "example.org:8080", "[2001:db8::1]:80".
void read_authority(std::string_view text, HttpRequest& request) noexcept {
    std::string_view host = text;
    std::string_view port;
    if (!text.empty() && text.front() == '[') {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos) return;
        host = text.substr(1, end - 1);
        if (text.size() > end + 1 && text[end + 1] == ':') port = text.substr(end + 2);
        const bool address = std::ranges::all_of(host, [](char c) {
            return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' ||
                   c == '.';
        });
        if (!address || host.empty()) return;
    } else {
        if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos) {
            host = text.substr(0, colon);
            port = text.substr(colon + 1);
        }
        if (!plausible_host_name(host)) return;
    }
    request.host = host;
    unsigned value = 0;
    for (const char c : port) {
        if (c < '0' || c > '9' || value > 65535) return;
        value = value * 10 + static_cast<unsigned>(c - '0');
    }
    if (value <= 65535) request.port = static_cast<std::uint16_t>(value);
}

bool read_request_line(std::string_view line, HttpRequest& request) noexcept {
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == std::string_view::npos || last == first) return false;
    request.method = line.substr(0, first);
    request.target = line.substr(first + 1, last - first - 1);
    return line.substr(last + 1).starts_with("HTTP/1.");
}

// The host that the request is for: of an absolute target or CONNECT that of the target (RFC 9112 section
// 3.2.2: it goes before the Host header).
void read_target(HttpRequest& request) noexcept {
    if (request.method == "CONNECT") {
        read_authority(request.target, request);
        return;
    }
    const std::size_t scheme = request.target.find("://");
    if (scheme == std::string_view::npos || scheme > 8 || request.target.front() == '/') return;
    const std::string_view rest = request.target.substr(scheme + 3);
    std::string_view authority = rest.substr(0, rest.find_first_of("/?#"));
    if (const std::size_t user = authority.rfind('@'); user != std::string_view::npos)
        authority.remove_prefix(user + 1);
    read_authority(authority, request);
}

}  // namespace

Verdict parse_http_request(ByteSpan stream, HttpRequest& request) noexcept {
    request = {};
    const std::string_view text = text_of(stream.first(std::min(stream.size(), http_head_bytes_max)));
    const std::size_t method_end = text.substr(0, method_bytes_max + 1).find(' ');
    if (method_end == std::string_view::npos) {
        const bool begins = std::ranges::any_of(methods, [&](std::string_view method) {
            return text.size() <= method.size() && method.starts_with(text);
        });
        return begins ? Verdict::incomplete : Verdict::other;
    }
    if (std::ranges::find(methods, text.substr(0, method_end)) == methods.end()) return Verdict::other;
    std::size_t at = 0;
    bool first_line = true;
    while (true) {
        std::size_t end = text.find('\n', at);
        if (end == std::string_view::npos) {
            if (first_line && text.size() == http_head_bytes_max) return Verdict::other;
            return text.size() == http_head_bytes_max ? Verdict::match : Verdict::incomplete;
        }
        std::string_view line = text.substr(at, end - at);
        if (line.ends_with('\r')) line.remove_suffix(1);
        at = end + 1;
        if (first_line) {
            if (!read_request_line(line, request)) return Verdict::other;
            read_target(request);
            first_line = false;
            continue;
        }
        if (line.empty()) return Verdict::match;
        const std::size_t colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = trimmed(line.substr(colon + 1));
        if (request.host.empty() && equal_without_case(name, "host")) read_authority(value, request);
        if (request.user_agent.empty() && equal_without_case(name, "user-agent")) request.user_agent = value;
    }
}

}  // namespace egresswatch::inspect
