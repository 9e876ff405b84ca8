// classifier/inspect/resolvers.h - the name servers whose answers count for names.
//
// Whoever runs a program here can ask a name server of their own, which gives any address any name: only what
// a server of this list says opens an allow entry.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "classifier/address.h"

namespace egresswatch::inspect {

struct Resolvers {
    bool any = false;  // whoever was asked
    std::vector<Prefix> prefixes{};

    [[nodiscard]] bool include(const Address& server) const noexcept {
        if (any) return true;
        for (const Prefix& prefix : prefixes)
            if (prefix.contains(server)) return true;
        return false;
    }
    bool operator==(const Resolvers&) const = default;
};

}  // namespace egresswatch::inspect
