// tests/fuzz/inspect_dns_fuzz.cpp - any bytes: no crash, no read beyond them, what is found lies within them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "classifier/inspect/dns.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;

struct Bindings final : DnsBindings {
    void on_binding(std::string_view asked, const Address&, std::uint32_t) noexcept override { check(asked); }
    void on_no_address(std::string_view asked, std::uint16_t) noexcept override { check(asked); }
    static void check(std::string_view name) {
        if (name.size() > DnsName::text_bytes_max) std::abort();
        for (const char c : name)
            if (c < 0x21 || c > 0x7e) std::abort();
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> bytes(data, data + size);  // exact: a sanitizer sees one byte too far
    Bindings bindings;
    (void)read_bindings(bytes, bindings);
    DnsReader reader(bytes);
    DnsRecord record;
    std::size_t records = 0;
    for (DnsName target; reader.next(record); ++records) {
        if (reader.target_of(record, target)) Bindings::check(target.text());
        Bindings::check(record.owner.text());
    }
    if (records > DnsReader::records_max) std::abort();
    return 0;
}
