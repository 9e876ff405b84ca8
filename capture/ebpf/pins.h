// capture/ebpf/pins.h - the directory on the bpffs in which maps and hooks outlive the daemon.
//
// Layout:   DIR/maps/<name>            flows, outers, class_totals, iface_totals, losses, identity
//           DIR/links/tcx_<ifindex>_<out|in>       the link: removing it unhooks
//           DIR/links/clsact_<ifindex>_<out|in>    the program; the hook is a tc filter
//           DIR/links/qdisc_<ifindex>              the program; the clsact qdisc is ours
// Owns:     a lock on DIR: one daemon, or one `egresswatch detach`, at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "capture/ebpf/os.h"
#include "classifier/datapath/layout.h"

namespace egresswatch::capture {

// The one element of map `identity`: whose maps these are. Written by the loader only, never by a program.
struct Identity {
    static constexpr std::uint32_t MAGIC = 0x44495745;  // "EWID"
    std::uint32_t magic = MAGIC;
    std::uint32_t layout_version = 0;
    std::uint32_t identity_bytes = 0;
    std::uint32_t cpus = 0;
    std::uint32_t flow_slots = 0;
    std::uint32_t sender_layout_version = 0;
    std::uint64_t hash_seed = 0;
    std::uint64_t netns_inode = 0;
    // What each class id means, as a digest of its ClassInfo: totals and flow keys carry ids, so that an id
    // must keep its meaning as long as the maps live.
    std::uint32_t class_count = 0;
    std::uint32_t pad = 0;
    std::uint64_t class_digests[datapath::CLASSES_MAX]{};
    // What interfaces that are gone had counted: their slots in iface_totals are used again.
    datapath::iface_totals gone{};
};

enum class PinKind { tcx, clsact, qdisc };
struct LinkPin {
    PinKind kind;
    std::uint32_t ifindex;
    datapath::direction direction;  // meaningless for qdisc
    [[nodiscard]] std::string file_name() const;
    [[nodiscard]] static std::optional<LinkPin> parse(const std::string& file_name);
};

class PinDir {
public:
    // Makes the directory (and mounts the bpffs at /sys/fs/bpf where it lies there and is not mounted), locks
    // it.
    [[nodiscard]] static std::expected<PinDir, OsError> make(const std::string& path);
    // An existing directory only; nullopt where there is none.
    [[nodiscard]] static std::expected<std::optional<PinDir>, OsError> find(const std::string& path);

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string map_path(const std::string& name) const { return path_ + "/maps/" + name; }
    [[nodiscard]] std::string link_path(const LinkPin& pin) const {
        return path_ + "/links/" + pin.file_name();
    }
    [[nodiscard]] std::vector<LinkPin> links() const;
    [[nodiscard]] std::vector<std::string> maps() const;
    [[nodiscard]] std::expected<void, OsError> pin(int fd, const std::string& path) const;
    // Unpins every map and removes the directory; names what it removed.
    std::vector<std::string> remove_maps_and_self() noexcept;

private:
    std::string path_;
    UniqueFd lock_;
};

}  // namespace egresswatch::capture
