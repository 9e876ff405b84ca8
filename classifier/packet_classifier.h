// classifier/packet_classifier.h - the half of the data path that needs no order: what a packet means.
//
// In:       packets.   Out: a ClassifiedBatch for FlowTable::account_classified(); totals per class and
// interface. Use:      FlowTable::account() does both halves. An engine that classifies on several cores
// gives each a classifier
//           (FlowTable::classifier()), hands the batches to the table in the order of the packets, and its
//           totals at the end (FlowTable::absorb()).
// Threads:  one; the region block is shared and read only.
// Limits:   a batch grows to the largest number of packets ever given at once: 80 B a packet.
// Memory:   2 MiB for known tuples (known_tuples.h).
// Not here: who sent first, flows, ticks (flow_table.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "classifier/address.h"
#include "classifier/link_type.h"

namespace egresswatch {

struct PacketInput {
    std::span<const std::uint8_t> bytes;  // captured part, from the link header on
    std::uint32_t wire_bytes = 0;
    std::uint32_t interface = 0;  // index of its counters, see interface_totals()
    std::uint32_t ifindex = 0;    // as FlowUpdate::ifindex
    std::uint64_t at_ns = 0;      // since the epoch
    LinkPlace link;
    std::uint8_t direction = 2;  // enum direction, or 2: by address
};

struct ClassifierConfig {
    // Addresses of our end. Evidence for which end is ours, the first that decides: one end inside these and
    // the other not; the same of the carrier's addresses of a tunnelled packet; one end in the home region
    // and the other outside or unknown; who was seen sending first.
    std::vector<Prefix> local_networks;
    bool track_all = false;  // home and local flows get entries too
    std::uint64_t hash_seed = 0;
    // The third evidence is finer: one end nearer than the other, local before home before unknown before
    // outside, then the same of the carrier's ends. Two ends outside or unknown that are equally far count to
    // LOSS_DIRECTION_GUESSED.
    bool direction_by_region = false;
    bool sample_payload = false;  // see FlowTableConfig
};

// Private, shared, link-local and loopback addresses: where one end of a packet has one, that end is behind
// our border, for such addresses are not routed across it.
[[nodiscard]] std::vector<Prefix> default_local_networks();

class ClassifiedBatch {
public:
    ClassifiedBatch();
    ClassifiedBatch(ClassifiedBatch&&) noexcept;
    ClassifiedBatch& operator=(ClassifiedBatch&&) noexcept;
    ~ClassifiedBatch();
    [[nodiscard]] std::size_t size() const noexcept;

    struct Content;  // table_platform.h

private:
    friend class PacketClassifier;
    friend class FlowTable;
    std::unique_ptr<Content> content_;
};

class PacketClassifier {
public:
    explicit PacketClassifier(const ClassifierConfig& config);
    PacketClassifier(PacketClassifier&&) noexcept;
    PacketClassifier& operator=(PacketClassifier&&) noexcept;
    ~PacketClassifier();

    // The block must outlive its use here.
    void install_region(std::span<const std::byte> block) noexcept;
    // Replaces what the batch held. Copies all that is needed: the packets' bytes may go afterwards.
    void classify(std::span<const PacketInput> packets, ClassifiedBatch& batch);

private:
    struct State;
    friend class FlowTable;
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch
