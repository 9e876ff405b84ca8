// capture/process/origin.h - where routed traffic comes from: whoever lives behind the interface that it came
// by. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "capture/process/cgroup_path.h"

namespace egresswatch::capture {

struct Origin {
    std::string interface;  // its name here
    // The control group that all processes behind it have in common; empty: none lives there, or they share
    // only the root.
    std::string cgroup;
    CgroupNames names;  // what that path says
};

}  // namespace egresswatch::capture
