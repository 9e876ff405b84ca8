// agent/outputs/structured_data.h - what every message says of its record outside of the body: parameters of
// RFC 5424 structured data, fields of a journald entry. Inside of rfc5424.h. SPDX-License-Identifier:
// Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/records/record.h"

namespace egresswatch::outputs {

enum class Tier : std::uint8_t {
    required,
    optional,
    repeated,  // stands in every body but text as well
};

struct Param {
    const char* name;
    std::string value;
    Tier tier = Tier::optional;
};

// In the order in which they stand; optional ones go from the back.
[[nodiscard]] std::vector<Param> own_params(const records::Json& record);

}  // namespace egresswatch::outputs
