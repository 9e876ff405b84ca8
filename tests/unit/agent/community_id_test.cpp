// tests/unit/agent/community_id_test.cpp - the published vectors of Community ID v1.
// SPDX-License-Identifier: Apache-2.0
//
// Source: github.com/corelight/community-id-spec, baseline/baseline_deflt.json (seed 0), all of it.
#include "agent/records/community_id.h"

#include <cstring>

#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"

using namespace egresswatch;
using records::community_id_v1;

namespace {

struct Vector {
    std::uint8_t proto;
    const char* source;
    const char* destination;
    std::uint16_t source_port;
    std::uint16_t destination_port;
    const char* id;
};

constexpr Vector vectors[] = {
    {58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 136, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
    {58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 136, 135, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
    {58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 135, 136, "1:zavyT/cezQr1fmImYCwYnMXbgck="},
    {58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 136, 135, "1:zavyT/cezQr1fmImYCwYnMXbgck="},
    {58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0, "1:2ObVBgIn28oZvibYZhZMBgh7WdQ="},
    {58, "3ffe:501:410:0:2c0:dfff:fe47:33e", "3ffe:507:0:1:200:86ff:fe05:80da", 1, 4,
     "1:hLZd0XGWojozrvxqE0dWB1iM6R0="},
    {58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 129, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="},
    {58, "3ffe:501:0:1001::2", "3ffe:507:0:1:200:86ff:fe05:80da", 129, 128, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="},
    {58, "fe80::200:86ff:fe05:80da", "ff02::2", 133, 134, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0="},
    {58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 133, "1:pkvHqCL88/tg1k4cPigmZXUtL00="},
    {1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
    {1, "192.168.0.1", "192.168.0.89", 0, 8, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
    {1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="},
    {6, "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25,
     "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
    {6, "2607:f8b0:400c:c03::1a", "2001:470:e5bf:dead:4957:2174:e82c:4887", 25, 63943,
     "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
    {132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
    {132, "192.168.170.56", "192.168.170.8", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
    {6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
    {6, "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
    {17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
    {17, "8.8.8.8", "192.168.1.52", 53, 54585, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
    {46, "10.1.12.1", "10.1.12.2", 0, 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="},
    {46, "10.1.12.2", "10.1.12.1", 0, 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="},
};

}  // namespace

TEST_CASE("community ids equal the published baseline", "[records][community-id]") {
    for (const auto& vector : vectors) {
        CAPTURE(int{vector.proto}, vector.source, vector.destination);
        CHECK(community_id_v1(*Address::parse(vector.source), *Address::parse(vector.destination),
                              vector.source_port, vector.destination_port, vector.proto) == vector.id);
    }
}

TEST_CASE("a flow's community id is the same from both of its ends", "[records][community-id]") {
    auto flow = testing::sample_flow("66.35.250.204", "128.232.110.120");
    flow.key.local_port = datapath::host16(80);
    flow.key.remote_port = datapath::host16(34855);
    CHECK(records::community_id_of(flow.key) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
    std::swap(flow.key.local_addr, flow.key.remote_addr);
    std::swap(flow.key.local_port, flow.key.remote_port);
    CHECK(records::community_id_of(flow.key) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
}

TEST_CASE("flows whose type or ports are not known have no community id", "[records][community-id]") {
    auto flow = testing::sample_flow("192.0.2.1", "203.0.113.9");
    flow.key.local_port = flow.key.remote_port = 0;
    CHECK_FALSE(records::community_id_of(flow.key));  // TCP without ports: fragments
    flow.key.l4_proto = 1;
    CHECK_FALSE(records::community_id_of(flow.key));
    flow.key.l4_proto = 58;
    CHECK_FALSE(records::community_id_of(flow.key));
    flow.key.l4_proto = 47;  // GRE has none to know
    CHECK(records::community_id_of(flow.key));
}
