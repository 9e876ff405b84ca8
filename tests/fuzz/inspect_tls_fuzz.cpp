// tests/fuzz/inspect_tls_fuzz.cpp - any bytes: no crash, no read beyond them, what is found lies within them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "classifier/inspect/flow_inspector.h"

using namespace egresswatch::inspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> bytes(data, data + size);  // exact: a sanitizer sees one byte too far
    if (const auto hello = parse_client_hello(bytes)) {
        if (hello->server_name.size() > 253) std::abort();
        (void)ja4_of(*hello, HelloTransport::tcp);
    }
    (void)parse_server_hello(bytes);
    (void)certificate_name(first_certificate(bytes));
    std::vector<std::uint8_t> buffer(hello_bytes_max);
    HandshakeReader reader(bytes, buffer);
    HandshakeReader::Message message;
    std::size_t taken = 0;
    while (reader.next(message) == Verdict::match) taken += 4 + message.body.size();
    if (taken > bytes.size()) std::abort();
    return 0;
}
