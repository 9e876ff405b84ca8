// tests/corpus/region_full_test.cpp - the real country data: the compiled table against a search over the
// lines. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>

#include "classifier/region/special.h"
#include "tests/unit/classifier/region_naive.h"

using namespace egresswatch;
using namespace egresswatch::test;

namespace {

constexpr int random_addresses = 1'000'000;
const std::string folder = EGRESSWATCH_GEO_SOURCES;

// A line of the file, kept apart from everything that the importer does.
struct Line {
    Address first;
    Address last;
    std::string code;
};

std::vector<Line> read_lines(const std::string& path, bool ipv4) {
    std::vector<Line> lines;
    std::ifstream file(path);
    for (std::string text; std::getline(file, text);) {
        if (text.empty() || text[0] == '#') continue;
        const auto one = text.find(',');
        const auto two = text.find(',', one + 1);
        const auto address = [&](const std::string& field) {
            return ipv4 ? Address::from_ipv4(static_cast<std::uint32_t>(std::stoul(field)))
                        : addr(field.c_str());
        };
        lines.push_back({address(text.substr(0, one)), address(text.substr(one + 1, two - one - 1)),
                         text.substr(two + 1)});
    }
    std::ranges::sort(lines, {}, &Line::first);
    return lines;
}

std::string code_of(const std::vector<Line>& lines, const Address& address) {
    const auto after = std::ranges::upper_bound(lines, address, {}, &Line::first);
    if (after == lines.begin() || std::prev(after)->last < address) return {};
    return std::prev(after)->code;
}

// The codes of the file that are no country. Any other must come out as it stands.
bool is_country(const std::string& code) {
    static const std::set<std::string> none = {"",   "??", "EU", "AP", "AN", "CS",
                                               "SU", "YU", "ZZ", "UN", "OS", "AB"};
    return !none.contains(code);
}

struct Tested {
    std::vector<Line> four = read_lines(folder + "/geoip", true);
    std::vector<Line> six = read_lines(folder + "/geoip6", false);
    RegionSpec spec;
    std::shared_ptr<const RegionTable> table;
    std::size_t wrong = 0;
    std::string first_wrong;

    Tested() {
        GeoBuilder builder;
        for (const auto& [format, name] :
             {std::pair{GeoFormat::ipfire4, "/geoip"}, std::pair{GeoFormat::ipfire6, "/geoip6"}}) {
            const auto added = builder.add_file({format, folder + name, {}, {}});
            if (!added) FAIL(added.error().message);
        }
        const auto geo = builder.finish().value();
        spec.home_countries = {"IE", "NO", "DE", "FR", "NL", "SE"};
        table = compiled(geo, spec);
        measure(geo);
    }

    void measure(const GeoData& geo) const {
        auto best = std::chrono::nanoseconds::max();
        for (int i = 0; i < 10; i++) {
            const auto start = std::chrono::steady_clock::now();
            const auto again = compile_region_table(geo, spec, table.get());
            best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
            REQUIRE(again.has_value());
        }
        std::printf(
            "region table: %.1f MiB, %u narrow, %u + %u wide blocks, %zu classes, compiled in %.1f ms (best "
            "of 10)\n",
            static_cast<double>(table->block().size()) / (1 << 20), table->narrow_count(),
            table->wide4_count(), table->wide6_count(), table->class_count(),
            static_cast<double>(best.count()) / 1e6);
    }

    void check(const Address& address) {
        const auto& info = table->class_info(table->lookup(address));
        const auto inner = embedded_ipv4(address).address;
        if (find_special(inner) != nullptr) {
            if (info.country.empty() && info.kind != datapath::KIND_OUTSIDE) return;
            return note(address, "special", info.country);
        }
        auto code = code_of(inner.is_ipv4() ? four : six, inner);
        if (code == "UK") code = "GB";
        if (info.country != (is_country(code) ? code : "")) return note(address, code, info.country);
        const auto kind = !is_country(code)                    ? datapath::KIND_UNKNOWN
                          : spec.home_countries.contains(code) ? datapath::KIND_HOME
                                                               : datapath::KIND_OUTSIDE;
        if (info.kind != kind) note(address, kind_name(kind), kind_name(info.kind));
    }

    void note(const Address& address, const std::string& expected, const std::string& found) {
        if (wrong++ == 0) first_wrong = address.to_string() + ": expected " + expected + ", found " + found;
    }
};

}  // namespace

TEST_CASE("with the real country data every boundary and a million random addresses of each family agree",
          "[classifier][region]") {
    Tested tested;
    REQUIRE(tested.four.size() > 100000);
    REQUIRE(tested.six.size() > 100000);
    for (const auto* lines : {&tested.four, &tested.six})
        for (const auto& line : *lines)
            for (const auto& edge : {line.first, line.last})
                for (const int delta : {-1, 0, 1}) tested.check(plus(edge, delta));
    std::mt19937_64 random(2026);
    for (int i = 0; i < random_addresses; i++) {
        tested.check(Address::from_ipv4(static_cast<std::uint32_t>(random())));
        Address six = random_ipv6(random);
        if (i % 4 != 0) {  // inside a line, else most would lie in space that nobody has
            const auto& line = tested.six[random() % tested.six.size()];
            std::copy_n(line.first.bytes.begin(), 6, six.bytes.begin());
        }
        tested.check(six);
    }
    INFO(tested.first_wrong);
    CHECK(tested.wrong == 0);
}
