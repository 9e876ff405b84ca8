// tests/fuzz/inspect_ssh_fuzz.cpp - any bytes: no crash, no read beyond them, what is found lies within them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "classifier/inspect/flow_inspector.h"

using namespace egresswatch::inspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> bytes(data, data + size);  // exact: a sanitizer sees one byte too far
    SshHello hello;
    const Verdict verdict = parse_ssh(bytes, hello);
    if ((verdict == Verdict::match) != hello.has_algorithms) std::abort();
    if (hello.banner.size() > ssh_banner_bytes_max) std::abort();
    if (verdict == Verdict::match)
        (void)hassh_of(hello.kex, hello.encryption_out, hello.mac_out, hello.compression_out);
    (void)recognise_tcp(bytes, {}, {50000, 53});
    (void)recognise_tcp({}, bytes, {50000, 53});
    return 0;
}
