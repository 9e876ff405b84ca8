// agent/geo_path.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/geo_path.h"

#include <cstdlib>
#include <system_error>
#include <vector>

namespace egresswatch {

namespace fs = std::filesystem;

std::expected<fs::path, std::string> find_geo_file(const std::string& option) {
    if (!option.empty()) return fs::path(option);  // opening it says what is wrong with it
    if (const char* environment = std::getenv("EGRESSWATCH_GEO");
        environment != nullptr && *environment != '\0')
        return fs::path(environment);
    std::vector<fs::path> places;
    std::error_code error;
    if (const fs::path executable = fs::read_symlink("/proc/self/exe", error); !error)
        places.push_back((executable.parent_path() / "../share/geo.ewgeo").lexically_normal());
    places.emplace_back("/usr/share/egresswatch/geo.ewgeo");
    std::string looked;
    for (const auto& place : places) {
        if (fs::exists(place, error)) return place;
        looked += (looked.empty() ? "" : " nor ") + place.string();
    }
    return std::unexpected("no geo data: neither " + looked +
                           " exists; name a file made by `egresswatch geo build`");
}

}  // namespace egresswatch
