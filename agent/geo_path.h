// agent/geo_path.h - where a program finds its compiled geo data when nobody says.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <filesystem>
#include <string>

namespace egresswatch {

// `option` if not empty; else $EGRESSWATCH_GEO; else ../share/geo.ewgeo beside the executable (a build tree);
// else /usr/share/egresswatch/geo.ewgeo. The error names every place that was looked at.
[[nodiscard]] std::expected<std::filesystem::path, std::string> find_geo_file(const std::string& option);

}  // namespace egresswatch
