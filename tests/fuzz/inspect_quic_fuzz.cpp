// tests/fuzz/inspect_quic_fuzz.cpp - any bytes: no crash, no read beyond them, what is found lies within
// them. SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "classifier/inspect/flow_inspector.h"

using namespace egresswatch::inspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> bytes(data, data + size);  // exact: a sanitizer sees one byte too far
    static QuicDecryptor decryptor;
    static QuicClient client;
    client.clear();
    (void)client.add(bytes, decryptor);
    static Assembler stream;
    stream.clear();
    (void)collect_crypto(bytes, stream);
    if (stream.prefix().size() > bytes.size()) std::abort();
    (void)recognise_udp(bytes, {50000, 53});
    (void)recognise_udp(bytes, {50000, 4500});
    return 0;
}
