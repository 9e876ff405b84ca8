// agent/cli/geo_lookup.h - `egresswatch geo lookup`: addresses in, one answer line each out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "classifier/region/geo_data.h"

namespace egresswatch::cli {

// "-" among the addresses stands for standard input, one address a line. Every argument and every input line
// gets exactly one answer line, in order; what is no address gets an answer with an error. Answers are
// written out before more input is waited for, so that a program at both ends of two pipes can ask and wait.
// Returns the exit code: 0; 1 where an answer was an error; 3 where an answer could not be written.
[[nodiscard]] int lookup_addresses(const GeoData& geo, const RegionSpec& spec,
                                   const std::vector<std::string>& addresses, bool json);

}  // namespace egresswatch::cli
