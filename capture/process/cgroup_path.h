// capture/process/cgroup_path.h - what the path of a control group says: systemd unit, container, pod.
//
// In:      a path below the root of cgroup v2, as in /proc/PID/cgroup.   Out: names, empty where there are
// none. Forms:   cgroup_path.cpp has the table; tests/unit/capture/cgroup_path_test.cpp a path of each
// runtime. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace egresswatch::capture {

struct CgroupNames {
    std::string unit;  // "nightly.service", "session-3.scope", "user@1000.service"
    // Of another systemd below: a user's own (user@1000.service), a container's. Whoever runs that one
    // chooses the name.
    std::string inner_unit;
    std::string container;  // id
    std::string runtime;    // "docker", "containerd", "cri-o", "podman", "lxc", "nspawn"; empty: not said
    std::string pod;        // uid of the Kubernetes pod
    // Below a user's own systemd: the user makes these groups, and chooses what they are called. For records;
    // no condition may ask for such a container.
    bool of_user = false;
};

[[nodiscard]] CgroupNames names_of_cgroup(std::string_view path);
// The deepest control group that holds both; empty: the root.
[[nodiscard]] std::string common_cgroup(std::string_view a, std::string_view b);

}  // namespace egresswatch::capture
