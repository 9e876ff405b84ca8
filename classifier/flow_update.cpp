// classifier/flow_update.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/flow_update.h"

#include <array>

namespace egresswatch {

std::string_view tunnel_name(std::uint8_t kind) noexcept {
    static constexpr std::array<std::string_view, datapath::TUNNEL_COUNT> names{
        "none", "ipip", "6in4", "gre", "erspan", "vxlan", "geneve", "gtpu", "teredo"};
    return kind < names.size() ? names[kind] : "unknown";
}

}  // namespace egresswatch
