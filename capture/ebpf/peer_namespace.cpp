// capture/ebpf/peer_namespace.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/peer_namespace.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "capture/ebpf/netlink.h"

namespace egresswatch::capture {

namespace {

namespace fs = std::filesystem;

// Of cgroup v2: the line that begins with "0::".
std::string cgroup_of(const fs::path& process) {
    std::ifstream file(process / "cgroup");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("0::")) return line.substr(3);
    return {};
}

// The control group that the processes of these namespaces share; nothing where none lives there.
std::optional<std::string> shared_cgroup(NamespaceNumbers& numbers, const std::vector<std::int32_t>& wanted) {
    std::optional<std::string> out;
    std::error_code error;
    for (fs::directory_iterator at("/proc", error), end; !error && at != end; at.increment(error)) {
        const std::string name = at->path().filename().string();
        std::uint32_t pid = 0;
        if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr != name.data() + name.size())
            continue;
        const auto number = numbers.of_process(pid);
        if (!number || std::ranges::find(wanted, *number) == wanted.end()) continue;
        const std::string cgroup = cgroup_of(at->path());
        if (cgroup.empty()) continue;  // it has ended meanwhile
        out = out ? common_cgroup(*out, cgroup) : cgroup;
    }
    return out;
}

}  // namespace

const Origin* PeerNamespaces::behind(std::uint32_t ifindex) {
    const auto now = Clock::now();
    const auto found = known_.find(ifindex);
    // Many interfaces do not keep this thread busy: what was known of one stands meanwhile.
    if (found != known_.end()) {
        const auto kept = found->second.deserted ? KEPT_EMPTY : std::chrono::milliseconds(KEPT);
        if (now - found->second.asked < kept || now - last_ < BETWEEN) return &found->second.origin;
    }
    last_ = now;
    auto numbers = NamespaceNumbers::open();
    if (!numbers) return found == known_.end() ? nullptr : &found->second.origin;
    const auto peers = numbers->peers_of(ifindex);
    if (!peers) return found == known_.end() ? nullptr : &found->second.origin;
    if (known_.size() >= INTERFACES_MAX) known_.clear();
    Known& known = known_[ifindex];
    known.asked = now;
    known.origin = {};
    known.origin.interface = peers->interface;
    const auto cgroup = peers->namespaces.empty() ? std::nullopt : shared_cgroup(*numbers, peers->namespaces);
    known.deserted = !peers->namespaces.empty() && !cgroup;
    if (cgroup) known.origin.cgroup = *cgroup;
    if (known.origin.cgroup == "/") known.origin.cgroup.clear();
    known.origin.names = names_of_cgroup(known.origin.cgroup);
    return &known.origin;
}

}  // namespace egresswatch::capture
