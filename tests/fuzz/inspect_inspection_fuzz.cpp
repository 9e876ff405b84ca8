// tests/fuzz/inspect_inspection_fuzz.cpp - any samples of eight flows and their name servers: no crash, and
// what is told of a flow agrees with itself. SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "classifier/inspect/inspection.h"
#include "tests/fuzz/samples.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;
using testing::must;

struct Names final : QuestionSink {
    void on_question(const PayloadSample&, std::string_view name) noexcept override { check(name); }
    static void check(std::string_view name) {
        for (const char c : name) must(c > 0x20 && c < 0x7f);
    }
};

datapath::flow_key key_of(const testing::FuzzSample& sample) {
    datapath::flow_key key{};
    const Address local = Address::from_ipv4(0x0a000005);
    const Address remote = Address::from_ipv4(sample.flow == 0 ? 0x0a000001 : 0xcb007100u + sample.flow);
    std::memcpy(key.local_addr, local.bytes.data(), 16);
    std::memcpy(key.remote_addr, remote.bytes.data(), 16);
    key.local_port = datapath::host16(static_cast<std::uint16_t>(50000 + sample.flow));
    key.remote_port = datapath::host16(testing::fuzz_ports[sample.flow]);
    key.l4_proto = sample.datagram ? 17 : 6;
    return key;
}

void check(const FlowNames& names) {
    must(names.name.empty() == (names.source == NameSource::none));
    must(!names.contradiction || !names.name.empty());
    must(names.answered.unlisted <= names.answered.count);
    must(names.dns_listed().size() + names.dns_unlisted().size() == names.dns().size());
    for (const std::string_view name : names.dns()) Names::check(name);
    if (names.source == NameSource::dns) must(!names.dns_listed().empty());
    if (names.source == NameSource::dns_unlisted) must(names.dns_listed().empty());
}

void check(const InspectionCounters& counters) {
    must(counters.flows <= 16);
    must(counters.flows_full == 0 && counters.inspectors_evicted == 0 && counters.streams_evicted == 0);
    must(counters.dns_unasked <= counters.dns_messages && counters.dns_unlisted <= counters.dns_messages);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Names names;
    Inspection inspection(Resolvers{false, {Prefix::containing(Address::from_ipv4(0x0a000000), 8)}});
    Timestamp now(std::chrono::seconds(1'700'000'000));
    std::span<const std::uint8_t> rest(data, size);
    testing::FuzzSample next;
    while (testing::take_sample(rest, next)) {
        const std::vector<std::uint8_t> payload(next.payload.begin(), next.payload.end());
        PayloadSample sample;
        sample.key = key_of(next);
        sample.tracked = true;
        sample.direction = next.inbound ? datapath::DIRECTION_IN : datapath::DIRECTION_OUT;
        sample.initiator = next.remote_connects ? datapath::INITIATOR_REMOTE : datapath::INITIATOR_LOCAL;
        sample.tcp_flags = next.tcp_flags;
        sample.tcp_sequence = next.sequence;
        sample.at = now;
        sample.payload = payload;
        if (!payload.empty()) (void)inspection.on_payload(sample, names);
        FlowUpdate update;
        update.key = sample.key;
        update.first_seen = update.last_seen = now;
        update.initiator = sample.initiator;
        check(inspection.names_of(update));
        now += std::chrono::milliseconds(10);
        if (next.action == 1) inspection.forget(sample.key);
        if (next.action == 2) inspection.set_resolvers({.any = true});
        if (next.action == 3) now += std::chrono::hours(next.sequence % 30);
        inspection.touch(sample.key, now);
    }
    check(inspection.counters());
    return 0;
}
