// capture/ebpf/detach.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/detach.h"

#include "capture/ebpf/attach.h"
#include "capture/ebpf/pins.h"

namespace egresswatch::capture {

std::expected<DetachReport, OsError> detach(const std::string& pin_dir) {
    DetachReport report;
    auto found = PinDir::find(pin_dir);
    if (!found) return std::unexpected(found.error());
    if (*found) {
        PinDir& pins = **found;
        // Filters before the qdiscs that carry them.
        for (const bool qdiscs : {false, true})
            for (const LinkPin& pin : pins.links()) {
                if ((pin.kind == PinKind::qdisc) != qdiscs) continue;
                if (auto removed = remove_hook(pins, pin))
                    report.removed.push_back(*removed);
                else
                    report.problems.push_back(removed.error().to_string());
            }
    }
    for (std::string& line : remove_stray_filters()) report.removed.push_back(std::move(line));
    if (*found)
        for (std::string& line : (*found)->remove_maps_and_self()) report.removed.push_back(std::move(line));
    return report;
}

}  // namespace egresswatch::capture
