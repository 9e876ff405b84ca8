// capture/ebpf/identity.h - may these pinned maps be taken over, and do class ids still mean what they meant?
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>

#include "capture/ebpf/object.h"
#include "capture/ebpf/pins.h"

namespace egresswatch {
class RegionTable;
}

namespace egresswatch::capture {

// The maps under a pin directory, and the identity beside them.
struct PinnedState {
    SharedMaps maps;  // without `events`
    UniqueFd identity_fd;
    Mapping identity_mapping;
    [[nodiscard]] Identity& identity() const noexcept {
        return *static_cast<Identity*>(identity_mapping.data());
    }
};

// Opens what is pinned. Refused where the layout, the CPUs, the network namespace or (when `flow_slots` is
// not 0) the size differs: the error names the cure, `egresswatch detach`.
[[nodiscard]] std::expected<PinnedState, OsError> open_pinned(const PinDir& pins, std::uint32_t flow_slots);

// Makes the identity of new maps. pin_new() pins them all, the identity last: it says that the set is whole.
[[nodiscard]] std::expected<PinnedState, OsError> new_state(SharedMaps maps, std::uint32_t flow_slots,
                                                            std::uint64_t hash_seed);
[[nodiscard]] std::expected<void, OsError> pin_new(const PinDir& pins, const PinnedState& state);

// Class ids that the identity knows must mean the same in `table`; new ones are added to it.
[[nodiscard]] std::expected<void, OsError> agree_on_classes(Identity& identity, const RegionTable& table);

}  // namespace egresswatch::capture
