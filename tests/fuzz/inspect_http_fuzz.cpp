// tests/fuzz/inspect_http_fuzz.cpp - any bytes: no crash, no read beyond them, what is found lies within
// them. SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "classifier/inspect/http.h"

using namespace egresswatch::inspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> bytes(data, data + size);  // exact: a sanitizer sees one byte too far
    HttpRequest request;
    const Verdict verdict = parse_http_request(bytes, request);
    if (verdict == Verdict::match && request.method.empty()) std::abort();
    if (request.host.size() > 253 || request.user_agent.size() > http_head_bytes_max) std::abort();
    return 0;
}
