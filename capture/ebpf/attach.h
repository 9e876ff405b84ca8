// capture/ebpf/attach.h - puts one program on one side of one interface, and takes it off.
//
// tcx (kernel 6.6): a link, pinned. clsact (before): a cls_bpf filter, which needs no pin to live; a pin
// beside it says that it is ours. Both replace the program of a predecessor in place, with no packet between
// the two. Ours is the first program on either hook: what runs before us and ends the chain would hide
// packets from us. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "capture/ebpf/ebpf_engine.h"
#include "capture/ebpf/pins.h"

namespace egresswatch::capture {

struct AttachedHook {
    std::string hook;       // "tcx", "clsact"
    bool replaced = false;  // it had counted on since a predecessor, and has the new program now
};

[[nodiscard]] std::expected<AttachedHook, OsError> attach_hook(const PinDir& pins, AttachMode mode,
                                                               std::uint32_t ifindex, const std::string& name,
                                                               datapath::direction direction, int program_fd);

// Removes the hook that this pin stands for and the pin. Returns a line that says what was removed; an
// interface that is gone has taken its hooks with it, which is no error.
[[nodiscard]] std::expected<std::string, OsError> remove_hook(const PinDir& pins, const LinkPin& pin);

// Filters of ours (by handle, priority and program name) that no pin names, on any interface of this network
// namespace. Returns a line for each that was removed.
[[nodiscard]] std::vector<std::string> remove_stray_filters();

// "eth0", or "interface 7" where it has no name any more.
[[nodiscard]] std::string interface_words(std::uint32_t ifindex);

}  // namespace egresswatch::capture
