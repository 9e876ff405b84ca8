// classifier/region/region_error.h - why a geo file, an import or a region table was refused.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace egresswatch {

struct RegionError {
    enum class Code : std::uint8_t {
        io,       // the operating system refused: operation, file and errno are in the message
        corrupt,  // a compiled file or block that must not be used
        version,  // a compiled file of another version: build it again
        input,    // an import file with a line that is wrong: file:line:column and cure in the message
        limit     // a named limit was exceeded
    };
    Code code = Code::corrupt;
    std::string message;  // one or more lines: place, what is wrong, cure
};

}  // namespace egresswatch
