// tests/support/test_region.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_region.h"

#include <cstdio>
#include <cstdlib>

#include "classifier/region/geo_builder.h"

namespace egresswatch::test {
namespace {

template <typename T>
T need(std::expected<T, RegionError> result) {
    if (result) return std::move(*result);
    std::fprintf(stderr, "test region: %s\n", result.error().message.c_str());
    std::abort();
}

}  // namespace

std::shared_ptr<const RegionTable> make_region(std::string_view lines, const RegionTable* previous,
                                               const std::vector<std::string>& list_prefixes) {
    GeoBuilder builder;
    if (auto added = builder.add_text({GeoFormat::cidr, "test", "test", ""}, lines); !added) {
        std::fprintf(stderr, "test region: %s\n", added.error().message.c_str());
        std::abort();
    }
    const GeoData geo = need(builder.finish());
    RegionSpec spec;
    spec.home_countries = {"IE", "DE", "NO"};
    for (const std::string& text : list_prefixes) {
        spec.list_prefixes.push_back(
            {Prefix::parse(text).value(), static_cast<std::uint16_t>(spec.list_names.size())});
        spec.list_names.push_back("list " + text);
    }
    return need(compile_region_table(geo, spec, previous));
}

}  // namespace egresswatch::test
