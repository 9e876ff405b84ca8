// classifier/region/region_spec.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/region_spec.h"

namespace egresswatch {

const char* kind_name(datapath::region_kind kind) noexcept {
    switch (kind) {
        case datapath::KIND_LOCAL:
            return "local";
        case datapath::KIND_HOME:
            return "home";
        case datapath::KIND_UNKNOWN:
            return "unknown";
        case datapath::KIND_OUTSIDE:
            return "outside";
        case datapath::KIND_COUNT:
            break;
    }
    return "unknown";
}

}  // namespace egresswatch
