// capture/ebpf/object.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "capture/ebpf/libbpf_words.h"
#include "egresswatch.skel.h"

namespace egresswatch::capture {
namespace {

std::unexpected<OsError> libbpf_error(std::string operation, std::string object, int error,
                                      const LibbpfWords& words) {
    const int number = error < 0 ? -error : error;
    std::string hint = number == EPERM || number == EACCES
                           ? "needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON in the first user namespace; "
                           : "";
    return os_error(std::move(operation), std::move(object), number, hint + "libbpf says: " + words.tail());
}

std::size_t capacity_for(std::size_t block_bytes) {
    constexpr std::size_t MIB = 1 << 20;
    return (block_bytes + block_bytes / 4 + MIB - 1) / MIB * MIB;
}

// An inner map of `capacity` bytes that holds the block.
std::expected<UniqueFd, OsError> make_inner(std::size_t capacity, std::span<const std::byte> block) {
    auto options = libbpf_options<bpf_map_create_opts>();
    options.map_flags = BPF_F_MMAPABLE;
    UniqueFd inner(bpf_map_create(BPF_MAP_TYPE_ARRAY, "region_block", sizeof(std::uint32_t),
                                  static_cast<std::uint32_t>(capacity), 1, &options));
    if (!inner)
        return os_error("make a region map of " + std::to_string(capacity >> 20) + " MiB", "region_block",
                        errno);
    auto mapping = Mapping::of_map(inner.get(), capacity, "region_block");
    if (!mapping) return std::unexpected(mapping.error());
    std::memcpy(mapping->data(), block.data(), block.size());
    return inner;
}

int size_maps(egresswatch_bpf* skeleton, const ObjectOptions& options, std::uint32_t cpus, int inner_fd) {
    int failed = bpf_map__set_max_entries(skeleton->maps.flows, cpus * options.flow_slots);
    if (!failed)
        failed =
            bpf_map__set_max_entries(skeleton->maps.tags, cpus * options.flow_slots / datapath::FLOW_PROBES);
    if (!failed) failed = bpf_map__set_max_entries(skeleton->maps.outers, cpus * options.flow_slots);
    if (!failed) failed = bpf_map__set_max_entries(skeleton->maps.senders, cpus * options.flow_slots);
    if (!failed) failed = bpf_map__set_max_entries(skeleton->maps.events, options.ring_bytes);
    // A ring has one page at least.
    if (!failed && !options.take_samples) failed = bpf_map__set_max_entries(skeleton->maps.samples, 4096);
    if (!failed) failed = bpf_map__set_inner_map_fd(skeleton->maps.region, inner_fd);
    return failed;
}

int reuse_maps(egresswatch_bpf* skeleton, const SharedMaps& reuse) {
    int failed = bpf_map__reuse_fd(skeleton->maps.flows, reuse.flows.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.tags, reuse.tags.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.outers, reuse.outers.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.senders, reuse.senders.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.sender_prog, reuse.sender_prog.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.sections, reuse.sections.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.class_totals, reuse.class_totals.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.iface_totals, reuse.iface_totals.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.losses, reuse.losses.get());
    if (!failed && reuse.samples) failed = bpf_map__reuse_fd(skeleton->maps.samples, reuse.samples.get());
    if (!failed && reuse.sampler_state)
        failed = bpf_map__reuse_fd(skeleton->maps.sampler_state, reuse.sampler_state.get());
    if (!failed && reuse.events) failed = bpf_map__reuse_fd(skeleton->maps.events, reuse.events.get());
    return failed;
}

}  // namespace

void BpfObject::Destroy::operator()(egresswatch_bpf* skeleton) const noexcept {
    egresswatch_bpf::destroy(skeleton);
}

std::expected<BpfObject, OsError> BpfObject::load(const ObjectOptions& options,
                                                  std::span<const std::byte> block, const SharedMaps* reuse) {
    const LibbpfWords words;
    BpfObject object;
    object.skeleton_.reset(egresswatch_bpf::open());
    if (!object.skeleton_) return libbpf_error("open the BPF object", "egresswatch", errno, words);
    egresswatch_bpf* skeleton = object.skeleton_.get();

    object.region_capacity_ = capacity_for(block.size());
    auto inner = make_inner(object.region_capacity_, block);
    if (!inner) return std::unexpected(inner.error());
    object.inner_ = std::move(*inner);

    const std::uint32_t cpus = possible_cpus();
    skeleton->rodata->region_cells =
        static_cast<std::uint32_t>(object.region_capacity_ / sizeof(std::uint16_t));
    skeleton->rodata->flow_slots = options.flow_slots;
    skeleton->rodata->possible_cpus = cpus;
    skeleton->rodata->hash_seed = options.hash_seed;
    skeleton->rodata->track_all = options.track_all;
    skeleton->rodata->take_samples = options.take_samples;
    skeleton->rodata->look_for_senders = options.look_for_senders;
    skeleton->rodata->clock_from_tstamp = options.clock_from_tstamp;

    if (const int failed = size_maps(skeleton, options, cpus, object.inner_.get()))
        return libbpf_error("size the BPF maps", "egresswatch", failed, words);
    if (reuse != nullptr)
        if (const int failed = reuse_maps(skeleton, *reuse))
            return libbpf_error("take over the pinned BPF maps", "egresswatch", failed, words);
    if (const int failed = egresswatch_bpf::load(skeleton))
        return libbpf_error("load the BPF programs", "egresswatch", failed, words);

    const std::uint32_t zero = 0;
    const int inner_fd = object.inner_.get();
    if (bpf_map_update_elem(bpf_map__fd(skeleton->maps.region), &zero, &inner_fd, BPF_ANY) != 0)
        return libbpf_error("put the region table in place", "region", errno, words);
    return object;
}

int BpfObject::program_fd(datapath::direction direction, bool layer2) const noexcept {
    const auto& programs = skeleton_->progs;
    if (direction == datapath::DIRECTION_OUT)
        return bpf_program__fd(layer2 ? programs.ew_egress_l2 : programs.ew_egress_l3);
    return bpf_program__fd(layer2 ? programs.ew_ingress_l2 : programs.ew_ingress_l3);
}

std::expected<SharedMaps, OsError> BpfObject::shared_maps() const {
    SharedMaps maps;
    const std::pair<UniqueFd*, const bpf_map*> wanted[] = {
        {&maps.flows, skeleton_->maps.flows},
        {&maps.tags, skeleton_->maps.tags},
        {&maps.outers, skeleton_->maps.outers},
        {&maps.senders, skeleton_->maps.senders},
        {&maps.sender_prog, skeleton_->maps.sender_prog},
        {&maps.sections, skeleton_->maps.sections},
        {&maps.class_totals, skeleton_->maps.class_totals},
        {&maps.iface_totals, skeleton_->maps.iface_totals},
        {&maps.losses, skeleton_->maps.losses},
        {&maps.samples, skeleton_->maps.samples},
        {&maps.sampler_state, skeleton_->maps.sampler_state},
        {&maps.events, skeleton_->maps.events}};
    for (const auto& [fd, map] : wanted) {
        *fd = UniqueFd(::fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 3));
        if (!*fd) return os_error("keep the BPF map", bpf_map__name(map), errno);
    }
    return maps;
}

std::vector<ProgramFacts> BpfObject::program_facts() const {
    std::vector<ProgramFacts> facts;
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, skeleton_->obj) {
        bpf_prog_info info{};
        std::uint32_t bytes = sizeof info;
        ProgramFacts fact{bpf_program__name(program), 0, 0, 0};
        if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &bytes) == 0) {
            fact.instructions = info.xlated_prog_len / 8;
            fact.verified_instructions = info.verified_insns;
            fact.native_bytes = info.jited_prog_len;
        }
        facts.push_back(fact);
    }
    return facts;
}

std::expected<bool, OsError> BpfObject::install_block(std::span<const std::byte> block) {
    if (block.size() > region_capacity_) return false;
    auto inner = make_inner(region_capacity_, block);
    if (!inner) return std::unexpected(inner.error());
    const std::uint32_t zero = 0;
    const int inner_fd = inner->get();
    if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.region), &zero, &inner_fd, BPF_ANY) != 0)
        return os_error("swap the region table", "region", errno);
    inner_ = std::move(*inner);
    return true;
}

void BpfObject::wait_for_programs() const noexcept {
    const std::uint32_t zero = 0;
    const int inner_fd = inner_.get();
    bpf_map_update_elem(bpf_map__fd(skeleton_->maps.region), &zero, &inner_fd, BPF_ANY);
}

std::uint32_t possible_cpus() {
    const int cpus = libbpf_num_possible_cpus();
    return cpus > 0 ? static_cast<std::uint32_t>(cpus) : 1;
}

bool sum_per_cpu(int map_fd, std::uint32_t key, std::span<std::uint64_t> counters) noexcept {
    const std::size_t words = counters.size();
    std::vector<std::uint64_t> values(words * possible_cpus());
    if (bpf_map_lookup_elem(map_fd, &key, values.data()) != 0) return false;
    std::fill(counters.begin(), counters.end(), 0);
    for (std::size_t i = 0; i < values.size(); i++) counters[i % words] += values[i];
    return true;
}

}  // namespace egresswatch::capture
