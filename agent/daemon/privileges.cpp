// agent/daemon/privileges.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/privileges.h"

#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace egresswatch::daemon {

namespace {

struct CapFree {
    void operator()(void* pointer) const noexcept { ::cap_free(pointer); }
};
using Capabilities = std::unique_ptr<std::remove_pointer_t<cap_t>, CapFree>;

std::unexpected<capture::OsError> failed(const char* object) {
    return std::unexpected(capture::OsError{"drop privileges", object, errno, ""});
}

std::string name_of(cap_value_t capability) {
    const std::unique_ptr<char, CapFree> name(::cap_to_name(capability));
    return name ? name.get() : std::to_string(capability);
}

}  // namespace

std::expected<void, capture::OsError> drop_privileges(std::span<const int> kept) {
    const Capabilities now(::cap_get_proc());
    if (!now) return failed("cap_get_proc");
    cap_flag_value_t may_bound = CAP_CLEAR;
    ::cap_get_flag(now.get(), CAP_SETPCAP, CAP_EFFECTIVE, &may_bound);
    if (may_bound == CAP_SET) {
        for (cap_value_t capability = 0; capability < ::cap_max_bits(); capability++)
            if (std::ranges::find(kept, capability) == kept.end() && ::cap_get_bound(capability) == 1 &&
                ::cap_drop_bound(capability) != 0)
                return failed("bounding set");
    }
    // Only what we hold can be kept: a start with less is decided by whether the hooks went up.
    const Capabilities wanted(::cap_init());
    if (!wanted) return failed("cap_init");
    for (const cap_value_t capability : kept) {
        cap_flag_value_t held = CAP_CLEAR;
        ::cap_get_flag(now.get(), capability, CAP_PERMITTED, &held);
        if (held != CAP_SET) continue;
        if (::cap_set_flag(wanted.get(), CAP_PERMITTED, 1, &capability, CAP_SET) != 0 ||
            ::cap_set_flag(wanted.get(), CAP_EFFECTIVE, 1, &capability, CAP_SET) != 0)
            return failed("cap_set_flag");
    }
    // The inheritable set becomes empty, and the ambient one with it.
    if (::cap_set_proc(wanted.get()) != 0) return failed("cap_set_proc");
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs");
    return {};
}

std::expected<void, capture::OsError> drop_all_of_this_thread() {
    const Capabilities none(::cap_init());
    if (!none || ::cap_set_proc(none.get()) != 0) return failed("capabilities of a helper thread");
    return {};
}

PrivilegeStatus privilege_status() {
    PrivilegeStatus status;
    status.uid = ::geteuid();
    status.no_new_privs = ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    const Capabilities now(::cap_get_proc());
    for (cap_value_t capability = 0; capability < ::cap_max_bits(); capability++) {
        cap_flag_value_t held = CAP_CLEAR;
        if (now && ::cap_get_flag(now.get(), capability, CAP_EFFECTIVE, &held) == 0 && held == CAP_SET)
            status.effective.push_back(name_of(capability));
        if (::cap_get_bound(capability) == 1) status.bounding.push_back(name_of(capability));
    }
    return status;
}

}  // namespace egresswatch::daemon
