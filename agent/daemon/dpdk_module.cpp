// agent/daemon/dpdk_module.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/dpdk_module.h"

#include <dlfcn.h>

#include <filesystem>
#include <string_view>

#include "capture/dpdk/dpdk_module.h"

namespace egresswatch::daemon {

std::expected<std::unique_ptr<capture::Engine>, capture::OsError> make_dpdk_engine(
    capture::DpdkConfig config) {
    using capture::OsError;
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    const auto file = (program.parent_path() / "../lib/egresswatch/engine-dpdk.so").lexically_normal();
    void* opened = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr)
        return std::unexpected(
            OsError{"open the module of engine dpdk", ::dlerror(), 0,
                    "install it, and DPDK 22.11 (Debian: librte-eal23, librte-ethdev23, and the "
                    "librte-net-* package of the device)"});
    const auto* module =
        static_cast<const capture::DpdkModule*>(::dlsym(opened, capture::DPDK_MODULE_SYMBOL));
    if (module == nullptr || std::string_view(module->version) != EGRESSWATCH_VERSION ||
        module->config_bytes != sizeof(capture::DpdkConfig) ||
        module->layout_version != datapath::LAYOUT_VERSION)
        return std::unexpected(OsError{"open the module of engine dpdk", file.string(), 0,
                                       "it is of another version than this program: install both together"});
    return module->make(std::move(config));
}

}  // namespace egresswatch::daemon
