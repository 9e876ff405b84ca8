// capture/ebpf/identity.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/identity.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "capture/ebpf/libbpf_words.h"
#include "capture/ebpf/netlink.h"
#include "classifier/datapath/sender.h"
#include "classifier/region/region_table.h"

namespace egresswatch::capture {
namespace {

constexpr const char* IDENTITY = "identity";

std::vector<std::pair<const char*, UniqueFd SharedMaps::*>> pinned_maps() {
    return {{"flows", &SharedMaps::flows},
            {"tags", &SharedMaps::tags},
            {"outers", &SharedMaps::outers},
            {"senders", &SharedMaps::senders},
            {"sender_prog", &SharedMaps::sender_prog},
            {"sections", &SharedMaps::sections},
            {"class_totals", &SharedMaps::class_totals},
            {"iface_totals", &SharedMaps::iface_totals},
            {"losses", &SharedMaps::losses}};
}

std::unexpected<OsError> refuse(const PinDir& pins, const std::string& why) {
    return os_error(
        "take over the pinned maps", pins.path(), 0,
        why + "; the hooks there go on counting until you run: egresswatch detach --pin-dir " + pins.path());
}

std::string differs(const char* what, std::uint64_t pinned, std::uint64_t ours) {
    return std::string(what) + " is " + std::to_string(pinned) + " there and " + std::to_string(ours) +
           " here";
}

std::expected<void, OsError> check(const PinDir& pins, const Identity& identity, std::uint32_t flow_slots) {
    if (identity.magic != Identity::MAGIC) return refuse(pins, "they are not egresswatch's");
    if (identity.layout_version != datapath::LAYOUT_VERSION)
        return refuse(pins, differs("layout version", identity.layout_version, datapath::LAYOUT_VERSION));
    if (identity.sender_layout_version != datapath::SENDER_LAYOUT_VERSION)
        return refuse(pins, differs("layout version of senders", identity.sender_layout_version,
                                    datapath::SENDER_LAYOUT_VERSION));
    if (identity.identity_bytes != sizeof(Identity))
        return refuse(pins, differs("size of the identity", identity.identity_bytes, sizeof(Identity)));
    if (identity.cpus != possible_cpus())
        return refuse(pins, differs("number of possible CPUs", identity.cpus, possible_cpus()));
    if (flow_slots != 0 && identity.flow_slots != flow_slots)
        return refuse(pins, differs("flow slots per CPU", identity.flow_slots, flow_slots));
    if (identity.netns_inode != netns_inode())
        return refuse(pins, differs("network namespace", identity.netns_inode, netns_inode()));
    return {};
}

// FNV-1a, 64 bits (draft-eastlake-fnv): equal digests are taken for equal meanings; ids are few.
std::uint64_t digest(std::uint64_t hash, std::string_view text) {
    for (const char letter : text) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
    return (hash ^ 0xff) * 0x100000001b3ULL;  // an end that no text contains
}

std::uint64_t class_digest(const RegionTable& table, std::uint16_t class_id) {
    const ClassInfo& info = table.class_info(class_id);
    std::uint64_t hash = digest(0xcbf29ce484222325ULL, kind_name(info.kind));
    hash = digest(hash, std::to_string(info.local));
    hash = digest(hash, info.country);
    hash = digest(hash, info.disputed ? "disputed" : "");
    const auto names = table.class_list_names(class_id);
    std::vector<std::string> sorted(names.begin(), names.end());
    std::sort(sorted.begin(), sorted.end());
    for (const std::string& name : sorted) hash = digest(hash, name);
    return hash;
}

}  // namespace

std::expected<PinnedState, OsError> open_pinned(const PinDir& pins, std::uint32_t flow_slots) {
    PinnedState state;
    state.identity_fd = UniqueFd(bpf_obj_get(pins.map_path(IDENTITY).c_str()));
    if (!state.identity_fd) return refuse(pins, "the map identity cannot be opened");
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(state.identity_fd.get(), &info, &bytes) != 0)
        return os_error("look at the pinned map", IDENTITY, errno);
    if (info.value_size < 2 * sizeof(std::uint32_t)) return refuse(pins, "the map identity is too small");
    auto mapping = Mapping::of_map(state.identity_fd.get(), info.value_size, IDENTITY);
    if (!mapping) return std::unexpected(mapping.error());
    state.identity_mapping = std::move(*mapping);
    if (auto good = check(pins, state.identity(), flow_slots); !good) return std::unexpected(good.error());
    for (const auto& [name, member] : pinned_maps()) {
        state.maps.*member = UniqueFd(bpf_obj_get(pins.map_path(name).c_str()));
        if (!(state.maps.*member)) return refuse(pins, std::string("the map ") + name + " cannot be opened");
    }
    return state;
}

std::expected<PinnedState, OsError> new_state(SharedMaps maps, std::uint32_t flow_slots,
                                              std::uint64_t hash_seed) {
    PinnedState state;
    state.maps = std::move(maps);
    auto options = libbpf_options<bpf_map_create_opts>();
    options.map_flags = BPF_F_MMAPABLE;
    state.identity_fd = UniqueFd(
        bpf_map_create(BPF_MAP_TYPE_ARRAY, IDENTITY, sizeof(std::uint32_t), sizeof(Identity), 1, &options));
    if (!state.identity_fd) return os_error("make the BPF map", IDENTITY, errno);
    auto mapping = Mapping::of_map(state.identity_fd.get(), sizeof(Identity), IDENTITY);
    if (!mapping) return std::unexpected(mapping.error());
    state.identity_mapping = std::move(*mapping);
    Identity& identity = *new (state.identity_mapping.data()) Identity;
    identity.layout_version = datapath::LAYOUT_VERSION;
    identity.sender_layout_version = datapath::SENDER_LAYOUT_VERSION;
    identity.identity_bytes = sizeof(Identity);
    identity.cpus = possible_cpus();
    identity.flow_slots = flow_slots;
    identity.hash_seed = hash_seed;
    identity.netns_inode = netns_inode();
    return state;
}

std::expected<void, OsError> pin_new(const PinDir& pins, const PinnedState& state) {
    for (const auto& [name, member] : pinned_maps())
        if (auto pinned = pins.pin((state.maps.*member).get(), pins.map_path(name)); !pinned) return pinned;
    return pins.pin(state.identity_fd.get(), pins.map_path(IDENTITY));
}

std::expected<void, OsError> agree_on_classes(Identity& identity, const RegionTable& table) {
    const auto count = static_cast<std::uint32_t>(table.class_count());
    if (count > datapath::CLASSES_MAX)
        return os_error("install the region table", std::to_string(count) + " classes", 0,
                        "more than CLASSES_MAX");
    for (std::uint32_t id = 0; id < std::min(identity.class_count, count); id++)
        if (identity.class_digests[id] != class_digest(table, static_cast<std::uint16_t>(id)))
            return os_error(
                "install the region table", "class " + std::to_string(id), 0,
                "its meaning differs from that under which the kernel has counted: compile the table on "
                "top of the previous one, or give the counts up by: egresswatch detach");
    if (count < identity.class_count)
        return os_error("install the region table", std::to_string(count) + " classes", 0,
                        "the kernel has counted under " + std::to_string(identity.class_count) +
                            ": compile the table on top of the previous one, or run: egresswatch detach");
    for (std::uint32_t id = identity.class_count; id < count; id++)
        identity.class_digests[id] = class_digest(table, static_cast<std::uint16_t>(id));
    identity.class_count = count;
    return {};
}

}  // namespace egresswatch::capture
