// capture/ebpf/attach.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/attach.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "capture/ebpf/libbpf_words.h"
#include "capture/ebpf/netlink.h"

namespace egresswatch::capture {
namespace {

// Linux 6.6, include/uapi/linux/bpf.h; Debian 12's header ends before them.
constexpr int TCX_INGRESS = 46, TCX_EGRESS = 47;
constexpr std::uint32_t LINK_TYPE_TCX = 11;
constexpr std::uint32_t FLAG_BEFORE = 1U << 3;  // BPF_F_BEFORE without a relative: the head of the chain

// The address of our cls_bpf filter on either side of a clsact qdisc: "EW", before every other filter.
constexpr std::uint32_t FILTER_HANDLE = 0x4557, FILTER_PRIORITY = 1;

bpf_tc_attach_point tc_point(datapath::direction direction) {
    return direction == datapath::DIRECTION_OUT ? BPF_TC_EGRESS : BPF_TC_INGRESS;
}
const char* side_words(datapath::direction direction) {
    return direction == datapath::DIRECTION_OUT ? " egress" : " ingress";
}

// The interface that a pinned link still hooks; 0 where the interface is gone or it is no tcx link.
std::uint32_t hooked_ifindex(int link_fd) {
    bpf_link_info info{};
    std::uint32_t bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(link_fd, &info, &bytes) != 0 || info.type != LINK_TYPE_TCX) return 0;
    return info.xdp.ifindex;  // tcx.ifindex lies at the same place of the union
}

std::expected<AttachedHook, OsError> attach_tcx(const PinDir& pins, std::uint32_t ifindex,
                                                const std::string& name, datapath::direction direction,
                                                int program_fd) {
    const std::string path = pins.link_path({PinKind::tcx, ifindex, direction});
    const std::string object = name + side_words(direction);
    if (const UniqueFd pinned(bpf_obj_get(path.c_str())); pinned) {
        if (hooked_ifindex(pinned.get()) == ifindex &&
            bpf_link_update(pinned.get(), program_fd, nullptr) == 0)
            return AttachedHook{"tcx", true};
        ::unlink(path.c_str());
    }
    auto options = libbpf_options<bpf_link_create_opts>();
    options.flags = FLAG_BEFORE;
    const auto type =
        static_cast<bpf_attach_type>(direction == datapath::DIRECTION_OUT ? TCX_EGRESS : TCX_INGRESS);
    const UniqueFd link(bpf_link_create(program_fd, static_cast<int>(ifindex), type, &options));
    if (!link) return os_error("attach the program by tcx", object, errno);
    if (auto pinned = pins.pin(link.get(), path); !pinned) return std::unexpected(pinned.error());
    return AttachedHook{"tcx", false};
}

std::expected<AttachedHook, OsError> attach_clsact(const PinDir& pins, std::uint32_t ifindex,
                                                   const std::string& name, datapath::direction direction,
                                                   int program_fd) {
    const LibbpfWords words;
    const std::string object = name + side_words(direction);
    auto hook = libbpf_options<bpf_tc_hook>();
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_EGRESS | BPF_TC_INGRESS);
    const int made = bpf_tc_hook_create(&hook);
    if (made != 0 && made != -EEXIST)
        return os_error("make a clsact qdisc", object, made,
                        "the kernel needs sch_ingress and cls_bpf; an `ingress` qdisc in its place must go: "
                        "tc qdisc del dev " +
                            name + " ingress; " + words.tail());
    if (made == 0)
        if (auto pinned = pins.pin(program_fd, pins.link_path({PinKind::qdisc, ifindex, direction})); !pinned)
            return std::unexpected(pinned.error());

    const std::string path = pins.link_path({PinKind::clsact, ifindex, direction});
    const bool replaced = ::access(path.c_str(), F_OK) == 0;
    hook.attach_point = tc_point(direction);
    auto filter = libbpf_options<bpf_tc_opts>();
    filter.prog_fd = program_fd;
    filter.flags = BPF_TC_F_REPLACE;
    filter.handle = FILTER_HANDLE;
    filter.priority = FILTER_PRIORITY;
    if (const int failed = bpf_tc_attach(&hook, &filter); failed != 0)
        return os_error(
            "attach the program by clsact", object, failed,
            "priority 1 of the qdisc must be free, or hold bpf filters only: tc filter show dev " + name +
                "; " + words.tail());
    // The pin names the program that the filter has now: the old one goes first.
    ::unlink(path.c_str());
    if (auto pinned = pins.pin(program_fd, path); !pinned) return std::unexpected(pinned.error());
    return AttachedHook{"clsact", replaced};
}

std::string program_name(std::uint32_t program_id) {
    const UniqueFd program(bpf_prog_get_fd_by_id(program_id));
    bpf_prog_info info{};
    std::uint32_t bytes = sizeof info;
    if (!program || bpf_obj_get_info_by_fd(program.get(), &info, &bytes) != 0) return {};
    return info.name;
}

// True where our filter stood on that side and is removed now.
bool remove_filter(std::uint32_t ifindex, datapath::direction direction) {
    const LibbpfWords silent;
    auto hook = libbpf_options<bpf_tc_hook>();
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = tc_point(direction);
    auto query = libbpf_options<bpf_tc_opts>();
    query.handle = FILTER_HANDLE;
    query.priority = FILTER_PRIORITY;
    if (bpf_tc_query(&hook, &query) != 0) return false;
    const std::string name = program_name(query.prog_id);
    if (!name.empty() && name.rfind("ew_", 0) != 0) return false;  // somebody else's, at our address
    auto filter = libbpf_options<bpf_tc_opts>();
    filter.handle = FILTER_HANDLE;
    filter.priority = FILTER_PRIORITY;
    return bpf_tc_detach(&hook, &filter) == 0;
}

}  // namespace

std::string interface_words(std::uint32_t ifindex) {
    char name[IF_NAMESIZE]{};
    return ::if_indextoname(ifindex, name) != nullptr ? name : "interface " + std::to_string(ifindex);
}

std::expected<AttachedHook, OsError> attach_hook(const PinDir& pins, AttachMode mode, std::uint32_t ifindex,
                                                 const std::string& name, datapath::direction direction,
                                                 int program_fd) {
    const LinkPin tcx{PinKind::tcx, ifindex, direction}, clsact{PinKind::clsact, ifindex, direction};
    if (mode != AttachMode::clsact) {
        auto attached = attach_tcx(pins, ifindex, name, direction, program_fd);
        if (attached) {
            // A predecessor on clsact would count a second time.
            if (::access(pins.link_path(clsact).c_str(), F_OK) == 0)
                if (auto removed = remove_hook(pins, clsact); !removed)
                    return std::unexpected(removed.error());
            return attached;
        }
        // EINVAL: a kernel before 6.6 does not know the attach type.
        if (mode == AttachMode::tcx || attached.error().error != EINVAL) return attached;
    }
    if (::access(pins.link_path(tcx).c_str(), F_OK) == 0)
        if (auto removed = remove_hook(pins, tcx); !removed) return std::unexpected(removed.error());
    return attach_clsact(pins, ifindex, name, direction, program_fd);
}

std::expected<std::string, OsError> remove_hook(const PinDir& pins, const LinkPin& pin) {
    const std::string path = pins.link_path(pin);
    const std::string where = interface_words(pin.ifindex);
    std::string words;
    switch (pin.kind) {
        case PinKind::tcx: {
            const UniqueFd link(bpf_obj_get(path.c_str()));
            // A daemon that still lives may hold the link open: detach, do not only unpin.
            if (link) bpf_link_detach(link.get());
            words = "tcx hook on " + where + side_words(pin.direction);
            break;
        }
        case PinKind::clsact:
            remove_filter(pin.ifindex, pin.direction);
            words = "clsact filter on " + where + side_words(pin.direction);
            break;
        case PinKind::qdisc: {
            // Deleting the qdisc takes every filter with it: only while no one else has put one there.
            auto hook = libbpf_options<bpf_tc_hook>();
            hook.ifindex = static_cast<int>(pin.ifindex);
            hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_EGRESS | BPF_TC_INGRESS);
            const LibbpfWords silent;
            if (clsact_filters(pin.ifindex) == 0) bpf_tc_hook_destroy(&hook);
            words = "clsact qdisc on " + where;
            break;
        }
    }
    if (::unlink(path.c_str()) != 0) return os_error("remove the pin", path, errno);
    return words;
}

std::vector<std::string> remove_stray_filters() {
    std::vector<std::string> removed;
    struct Free {
        void operator()(struct if_nameindex* list) const { ::if_freenameindex(list); }
    };
    const std::unique_ptr<struct if_nameindex[], Free> interfaces(::if_nameindex());
    if (!interfaces) return removed;
    for (const struct if_nameindex* at = interfaces.get(); at->if_index != 0; at++)
        for (const auto direction : {datapath::DIRECTION_OUT, datapath::DIRECTION_IN})
            if (remove_filter(at->if_index, direction))
                removed.push_back(std::string("clsact filter on ") + at->if_name + side_words(direction));
    return removed;
}

}  // namespace egresswatch::capture
