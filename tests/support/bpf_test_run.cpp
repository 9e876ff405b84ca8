// tests/support/bpf_test_run.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/bpf_test_run.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>

#include "capture/ebpf/libbpf_words.h"
#include "capture/ebpf/object.h"
#include "capture/ebpf/sender_object.h"

namespace egresswatch::test {

using capture::BpfObject;
using capture::Mapping;
using capture::OsError;
using capture::SharedMaps;

struct BpfTestRun::State {
    Options options;
    cpu_set_t affinity_before{};
    BpfObject object;
    SharedMaps maps;
    Mapping entries, outers, senders;
    std::unique_ptr<capture::SenderObject> sender_object;
    std::vector<datapath::flow_event> events;
    ring_buffer* ring = nullptr;

    ~State() {
        if (ring != nullptr) ring_buffer__free(ring);
        ::sched_setaffinity(0, sizeof affinity_before, &affinity_before);
    }
    static int keep(void* self, void* data, std::size_t) {
        static_cast<State*>(self)->events.push_back(*static_cast<const datapath::flow_event*>(data));
        return 0;
    }
};

BpfTestRun::BpfTestRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
BpfTestRun::BpfTestRun(BpfTestRun&&) noexcept = default;
BpfTestRun& BpfTestRun::operator=(BpfTestRun&&) noexcept = default;
BpfTestRun::~BpfTestRun() = default;

std::expected<BpfTestRun, OsError> BpfTestRun::open(const Options& options,
                                                    std::span<const std::byte> block) {
    auto state = std::make_unique<State>();
    state->options = options;
    // All on CPU 0, so that one section holds every flow.
    ::sched_getaffinity(0, sizeof state->affinity_before, &state->affinity_before);
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    if (::sched_setaffinity(0, sizeof first, &first) != 0)
        return capture::os_error("run on CPU 0", {}, errno);

    capture::ObjectOptions object_options;
    object_options.flow_slots = options.flow_slots;
    object_options.hash_seed = options.hash_seed;
    object_options.track_all = options.track_all;
    object_options.take_samples = options.samples;
    object_options.look_for_senders = options.senders;
    object_options.clock_from_tstamp = options.clock_from_packet;
    auto object = BpfObject::load(object_options, block, nullptr);
    if (!object) return std::unexpected(object.error());
    state->object = std::move(*object);
    auto maps = state->object.shared_maps();
    if (!maps) return std::unexpected(maps.error());
    state->maps = std::move(*maps);
    const std::size_t slots = std::size_t{capture::possible_cpus()} * options.flow_slots;
    auto entries = Mapping::of_map(state->maps.flows.get(), slots * sizeof(datapath::flow_entry), "flows");
    if (!entries) return std::unexpected(entries.error());
    state->entries = std::move(*entries);
    auto outers = Mapping::of_map(state->maps.outers.get(), slots * sizeof(datapath::flow_outer), "outers");
    if (!outers) return std::unexpected(outers.error());
    state->outers = std::move(*outers);
    auto senders =
        Mapping::of_map(state->maps.senders.get(), slots * sizeof(datapath::flow_sender), "senders");
    if (!senders) return std::unexpected(senders.error());
    state->senders = std::move(*senders);
    if (options.senders) {
        auto loaded = capture::SenderObject::load(state->maps, options.flow_slots);
        if (!loaded) return std::unexpected(loaded.error());
        state->sender_object = std::move(*loaded);
    }
    state->ring = ring_buffer__new(state->maps.events.get(), State::keep, state.get(), nullptr);
    if (state->ring == nullptr) return capture::os_error("open the event ring", {}, errno);
    return BpfTestRun(std::move(state));
}

std::expected<double, OsError> BpfTestRun::run_repeated(const Packet& packet, std::uint32_t repeat) {
    __sk_buff context{};
    context.ifindex = IFINDEX;
    context.tstamp = packet.at_ns;
    context.wire_len = packet.wire_bytes > packet.bytes.size() ? packet.wire_bytes : 0;
    context.gso_segs = packet.gso_segments;
    context.gso_size = packet.gso_bytes;
    auto run = capture::libbpf_options<bpf_test_run_opts>();
    run.data_in = packet.bytes.data();
    run.data_size_in = static_cast<std::uint32_t>(packet.bytes.size());
    run.ctx_in = &context;
    run.ctx_size_in = sizeof context;
    run.repeat = static_cast<int>(repeat);
    if (bpf_prog_test_run_opts(state_->object.program_fd(packet.direction, true), &run) != 0)
        return capture::os_error("run a packet through the program",
                                 std::to_string(packet.bytes.size()) + " bytes", errno);
    constexpr std::uint32_t UNSPEC = 0xffffffff;  // TC_ACT_UNSPEC
    if (run.retval != UNSPEC)
        return capture::os_error("run a packet through the program", "verdict " + std::to_string(run.retval),
                                 0);
    return run.duration;
}

std::expected<void, OsError> BpfTestRun::run(const Packet& packet) {
    if (auto ran = run_repeated(packet, 1); !ran) return std::unexpected(ran.error());
    return {};
}

std::expected<bool, OsError> BpfTestRun::install_block(std::span<const std::byte> block) {
    return state_->object.install_block(block);
}

std::span<datapath::flow_entry> BpfTestRun::table() const {
    return {static_cast<datapath::flow_entry*>(state_->entries.data()), state_->options.flow_slots};
}

std::span<const datapath::flow_sender> BpfTestRun::senders() const {
    return {static_cast<const datapath::flow_sender*>(state_->senders.data()), state_->options.flow_slots};
}

std::span<const datapath::flow_outer> BpfTestRun::outers() const {
    return {static_cast<const datapath::flow_outer*>(state_->outers.data()), state_->options.flow_slots};
}

datapath::class_totals BpfTestRun::class_totals(std::uint32_t class_id) const {
    datapath::class_totals totals{};
    (void)capture::sum_per_cpu(state_->maps.class_totals.get(), class_id,
                               {reinterpret_cast<std::uint64_t*>(&totals), sizeof totals / 8});
    return totals;
}

datapath::iface_totals BpfTestRun::iface_totals() const {
    datapath::iface_totals totals{};
    (void)capture::sum_per_cpu(state_->maps.iface_totals.get(), IFINDEX,
                               {reinterpret_cast<std::uint64_t*>(&totals), sizeof totals / 8});
    return totals;
}

std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> BpfTestRun::losses() const {
    std::array<std::uint64_t, datapath::LOSS_REASON_COUNT> losses{};
    for (std::uint32_t reason = 0; reason < losses.size(); reason++)
        (void)capture::sum_per_cpu(state_->maps.losses.get(), reason, {&losses[reason], 1});
    return losses;
}

datapath::sampler BpfTestRun::sampler() const {
    datapath::sampler sum{};
    (void)capture::sum_per_cpu(state_->maps.sampler_state.get(), 0,
                               {reinterpret_cast<std::uint64_t*>(&sum), sizeof sum / 8});
    return sum;
}

std::vector<datapath::flow_event> BpfTestRun::take_events() {
    ring_buffer__consume(state_->ring);
    return std::exchange(state_->events, {});
}

std::vector<BpfTestRun::Facts> BpfTestRun::facts() const {
    std::vector<Facts> facts;
    for (const auto& fact : state_->object.program_facts())
        facts.push_back({fact.name, fact.instructions, fact.verified_instructions, fact.native_bytes});
    return facts;
}

int BpfTestRun::program_fd(datapath::direction direction, bool layer2) const {
    return state_->object.program_fd(direction, layer2);
}

}  // namespace egresswatch::test
