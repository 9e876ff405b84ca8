// classifier/inspect/http.h - the head of an HTTP/1 request.
//
// In:      the first bytes that a client sent.   Out: method, target, host, user agent: views into them.
// Source:  RFC 9110, RFC 9112 sections 2 to 5.
// Limits:  head_bytes_max; a longer head is taken for what is there of it.
// Threads: any. No allocation, no exceptions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

inline constexpr std::size_t http_head_bytes_max = 8192;

struct HttpRequest {
    std::string_view method;  // "GET"
    std::string_view target;  // "/index.html", "example.org:443" of CONNECT
    std::string_view host;    // without port; of CONNECT and of an absolute target that of the target
    std::uint16_t port = 0;   // as written there; 0: none
    std::string_view user_agent;
};

// match: the head is whole, or all of it that is looked at.
[[nodiscard]] Verdict parse_http_request(ByteSpan stream, HttpRequest& request) noexcept;

}  // namespace egresswatch::inspect
