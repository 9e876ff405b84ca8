// capture/engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/engine.h"

#include <cstring>

namespace egresswatch::capture {

std::string OsError::to_string() const {
    std::string text = operation;
    if (!object.empty()) text += " (" + object + ")";
    if (error != 0) text += std::string(": ") + std::strerror(error);
    if (!hint.empty()) text += "; " + hint;
    return text;
}

}  // namespace egresswatch::capture
