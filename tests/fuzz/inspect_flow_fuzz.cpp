// tests/fuzz/inspect_flow_fuzz.cpp - one flow from any packets in any order: no crash, facts are bounded and
// printable, an end comes. SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <memory>

#include "classifier/inspect/flow_inspector.h"
#include "tests/fuzz/samples.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;
using testing::must;

void check(const FlowFacts& facts) {
    must(facts.name.empty() == (facts.name_source == NameSource::none));
    if (!facts.name.empty()) must(plausible_host_name(facts.name.view()));
    for (const char c : facts.name.view()) must(c < 'A' || c > 'Z');
    for (const auto& fingerprint : {facts.hassh_client, facts.hassh_server})
        if (fingerprint)
            for (const char c : *fingerprint) must((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto inspector = std::make_unique<FlowInspector>();
    static QuicDecryptor decryptor;
    inspector->clear();
    std::span<const std::uint8_t> rest(data, size);
    testing::FuzzSample sample;
    unsigned packets = 0;
    while (testing::take_sample(rest, sample) && !inspector->done()) {
        const std::vector<std::uint8_t> payload(sample.payload.begin(), sample.payload.end());
        PayloadPacket packet;
        packet.direction = sample.inbound ? datapath::DIRECTION_IN : datapath::DIRECTION_OUT;
        packet.l4_proto = sample.datagram ? 17 : 6;
        packet.tcp_flags = sample.tcp_flags;
        packet.tcp_sequence = sample.sequence;
        packet.source_port = sample.inbound ? testing::fuzz_ports[sample.flow] : 50000;
        packet.destination_port = sample.inbound ? 50000 : testing::fuzz_ports[sample.flow];
        if (sample.action == 1) packet.client = datapath::DIRECTION_OUT;
        if (sample.action == 2) packet.client = datapath::DIRECTION_IN;
        packet.payload = payload;
        packets += payload.empty() ? 0 : 1;
        (void)inspector->add(packet, decryptor);
        (void)inspector->unread();
        check(inspector->facts());
    }
    must(packets < FlowInspector::packets_max || inspector->done());
    return 0;
}
