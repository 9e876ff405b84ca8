// agent/cli/geo.cpp - `egresswatch geo build | lookup | diff | info`.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "agent/cli/geo_lookup.h"
#include "agent/geo_path.h"
#include "classifier/region/geo_builder.h"
#include "classifier/region/geo_diff.h"
#include "rules/region_groups.h"

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t moves_shown = 10;

// The home region where no policy says.
constexpr const char* default_home = "EEA";

int complain(const RegionError& error) {
    std::fprintf(stderr, "%s\n", error.message.c_str());
    return exit_input;
}

// Countries and groups of the policy language (rules/region_groups.h), as of the day of its last review: the
// answer does not depend on the clock.
std::optional<std::set<Country>> parse_home(const std::string& text) {
    std::set<Country> home;
    for (std::size_t at = 0; at <= text.size();) {
        const auto end = std::min(text.find(',', at), text.size());
        const auto word = text.substr(at, end - at);
        at = end + 1;
        if (const auto* group = rules::find_region_group(word)) {
            home.merge(rules::members(*group, rules::region_groups_reviewed()));
        } else if (rules::is_country_code(word)) {
            home.insert(word);
        } else {
            std::fprintf(
                stderr,
                "egresswatch geo: --home: \"%s\" is neither a country nor a group; write ISO 3166-1 codes "
                "in capital letters and groups, separated by commas: EEA,CH,GB\n",
                word.c_str());
            return std::nullopt;
        }
    }
    return home;
}

std::optional<GeoData> open_or_complain(const std::filesystem::path& path, int& exit_code) {
    auto geo = open_geo_file(path);
    if (geo) return std::move(*geo);
    exit_code = complain(geo.error());
    return std::nullopt;
}

// ---- build

struct BuildOptions {
    std::map<const CLI::Option*, GeoFormat> formats;
    const CLI::Option* ipfire = nullptr;  // either family, told from the contents
    std::vector<std::string> ipfire_files, ipfire4_files, ipfire6_files, mmdb_files, rir_files, cidr_files;
    std::string output;
};

// The first line that is no comment tells: only IPv6 addresses have colons.
GeoFormat ipfire_family(const std::filesystem::path& path) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        if (!line.empty() && line.front() != '#')
            return line.find(':') == std::string::npos ? GeoFormat::ipfire4 : GeoFormat::ipfire6;
    return GeoFormat::ipfire4;
}

// In the order of the command line, which is the order of precedence. "FILE=CC" names the country of the
// lines of a CIDR list that name none.
std::vector<GeoInput> inputs_in_order(const CLI::App& command, const BuildOptions& options) {
    std::vector<GeoInput> inputs;
    std::map<const CLI::Option*, std::size_t> taken;
    for (const auto* option : command.parse_order()) {
        const auto format = options.formats.find(option);
        if (format == options.formats.end()) continue;
        std::string file = option->results()[taken[option]++];
        GeoInput input{format->second, file, {}, {}};
        if (option == options.ipfire) input.format = ipfire_family(file);
        if (input.format == GeoFormat::cidr && file.size() > 3 && file[file.size() - 3] == '=') {
            input.default_country = file.substr(file.size() - 2);
            input.path = file.substr(0, file.size() - 3);
        }
        inputs.push_back(std::move(input));
    }
    return inputs;
}

int build(const std::vector<GeoInput>& inputs, const std::string& output) {
    if (inputs.empty()) {
        std::fprintf(
            stderr,
            "egresswatch geo build: no input; name at least one file by --ipfire, --mmdb, --rir or --cidr\n");
        return exit_input;
    }
    GeoBuilder builder;
    int bad = 0;  // all files are read, so that all errors are seen at once
    for (const auto& input : inputs)
        if (const auto added = builder.add_file(input); !added) bad = std::max(bad, complain(added.error()));
    if (bad != 0) {
        std::fprintf(stderr, "egresswatch geo build: %s was not written\n", output.c_str());
        return bad;
    }
    const auto geo = builder.finish();
    if (!geo) return complain(geo.error());
    if (const auto saved = geo->save(output); !saved) {
        (void)complain(saved.error());
        return exit_environment;
    }
    for (const auto& source : geo->sources())
        std::printf("%s (%s, %s): %llu records, %llu of them without a country, %llu lines skipped\n",
                    source.name.c_str(), source.format.c_str(),
                    source.date.empty() ? "no date" : source.date.c_str(),
                    static_cast<unsigned long long>(source.records),
                    static_cast<unsigned long long>(source.no_country),
                    static_cast<unsigned long long>(source.skipped));
    std::printf("%s: %zu IPv4 and %zu IPv6 segments, sha256 %s\n", output.c_str(), geo->segments4().size(),
                geo->segments6().size(), geo->content_hash().c_str());
    return 0;
}

void add_build(CLI::App& geo, int& exit_code) {
    auto* command = geo.add_subcommand("build", "Compile country data into one file");
    command->footer(
        "The first file on the command line that knows the country of an address gives it; where a later "
        "one\n"
        "names another country the address is marked as disputed. Codes that are no country (??, EU, AP, "
        "withdrawn\n"
        "ones) are unknown. A bad line is an error: nothing is written.\n\n"
        "Example: egresswatch geo build --ipfire geoip --ipfire geoip6 --mmdb GeoLite2-Country.mmdb -o "
        "geo.ewgeo");
    auto options = std::make_shared<BuildOptions>();
    const auto input = [&](const char* flags, std::vector<std::string>& files, GeoFormat format,
                           const char* help) {
        auto* option = command->add_option(flags, files, help)->type_name("FILE");
        options->formats[option] = format;
        return option;
    };
    options->ipfire = input("--ipfire", options->ipfire_files, GeoFormat::ipfire4,
                            "Ranges of the IPFire database as in Debian's tor-geoipdb, IPv4 or IPv6");
    input("--ipfire4", options->ipfire4_files, GeoFormat::ipfire4,
          "The same, IPv4: FIRST,LAST,CC in decimal");
    input("--ipfire6", options->ipfire6_files, GeoFormat::ipfire6, "The same, IPv6: FIRST,LAST,CC");
    input("--mmdb", options->mmdb_files, GeoFormat::mmdb, "MaxMind DB (GeoLite2, DB-IP, IPinfo)");
    input("--rir", options->rir_files, GeoFormat::rir,
          "delegated-extended statistics of a regional registry");
    input("--cidr", options->cidr_files, GeoFormat::cidr,
          "Lines of CIDR or CIDR CC; FILE=CC names the country of lines without one");
    command->add_option("-o,--output", options->output, "The compiled file, by custom *.ewgeo")
        ->type_name("FILE")
        ->required();
    command->callback([command, options, &exit_code] {
        exit_code = build(inputs_in_order(*command, *options), options->output);
    });
}

// ---- lookup

void add_lookup(CLI::App& geo, int& exit_code) {
    struct Options {
        std::vector<std::string> addresses;
        std::string geo, home = default_home;
        bool json = false;
    };
    auto* command = geo.add_subcommand("lookup", "Country and class of addresses");
    command->footer(
        "Answers a line for each address, in order: address, prefix, country, class, source. The class is "
        "what a\n"
        "policy with this home region and nothing else would say: local, home, outside, unknown. Special "
        "addresses\n"
        "(RFC 6890) are local or unknown, source rfc6890. NAT64 and 6to4 addresses are answered by the IPv4\n"
        "address in them. An input that is no address gets an answer with an error, and exit code 1 at the "
        "end.");
    auto options = std::make_shared<Options>();
    command
        ->add_option("address", options->addresses,
                     "IPv4 or IPv6 address; - reads addresses from standard input")
        ->type_name("ADDRESS")
        ->required();
    command->add_flag("--json", options->json, "One JSON object a line");
    command->add_option("--geo", options->geo, "Compiled geo file, or a MaxMind DB as it is")
        ->type_name("FILE");
    command->add_option("--home", options->home, "Countries and groups of the home region (default: EEA)")
        ->type_name("CC,GROUP");
    command->callback([options, &exit_code] {
        const auto home = parse_home(options->home);
        const auto path = find_geo_file(options->geo);
        if (!path) std::fprintf(stderr, "egresswatch geo lookup: %s\n", path.error().c_str());
        exit_code = exit_input;
        if (!home || !path) return;
        const auto data = open_or_complain(*path, exit_code);
        if (!data) return;
        RegionSpec spec;
        spec.home_countries = *home;
        exit_code = lookup_addresses(*data, spec, options->addresses, options->json);
    });
}

// ---- diff

std::string country_word(const Country& country) {
    return country.empty() ? "unknown" : country;
}

double share(double part, double whole) {
    return whole == 0 ? 0 : part / whole;
}

Json json_of(const GeoFamilyDiff& diff) {
    Json moves = Json::array();
    for (const auto& move : diff.moves)
        moves.push_back({{"from", country_word(move.from)},
                         {"to", country_word(move.to)},
                         {"share", share(move.addresses, diff.addresses)}});
    return {{"addresses", diff.addresses},
            {"country_share", share(diff.country_moved, diff.addresses)},
            {"class_share", share(diff.class_moved, diff.addresses)},
            {"moves", std::move(moves)}};
}

void print_diff(const char* family, const GeoFamilyDiff& diff) {
    std::printf("%s: %.4f %% of the address space changes its country, %.4f %% its class\n", family,
                100 * share(diff.country_moved, diff.addresses),
                100 * share(diff.class_moved, diff.addresses));
    for (std::size_t i = 0; i < diff.moves.size() && i < moves_shown; i++)
        std::printf("  %-7s -> %-7s %8.4f %%\n", country_word(diff.moves[i].from).c_str(),
                    country_word(diff.moves[i].to).c_str(),
                    100 * share(diff.moves[i].addresses, diff.addresses));
    if (diff.moves.size() > moves_shown)
        std::printf("  and %zu smaller moves (--json has them all)\n", diff.moves.size() - moves_shown);
}

void add_diff(CLI::App& geo, int& exit_code) {
    struct Options {
        std::string before, after, home = default_home;
        bool json = false;
    };
    auto* command =
        geo.add_subcommand("diff", "Share of the address space that two databases see differently");
    command->footer(
        "Shares are of the IPv4 addresses that are not special (RFC 6890) and of the IPv6 addresses in "
        "2000::/3.\n"
        "Class: home, outside or unknown.");
    auto options = std::make_shared<Options>();
    command->add_option("before", options->before, "Compiled geo file or MaxMind DB")
        ->type_name("A")
        ->required();
    command->add_option("after", options->after, "Compiled geo file or MaxMind DB")
        ->type_name("B")
        ->required();
    command->add_flag("--json", options->json, "One JSON object");
    command->add_option("--home", options->home, "Countries and groups of the home region (default: EEA)")
        ->type_name("CC,GROUP");
    command->callback([options, &exit_code] {
        exit_code = exit_input;
        const auto home = parse_home(options->home);
        if (!home) return;
        const auto before = open_or_complain(options->before, exit_code);
        const auto after = open_or_complain(options->after, exit_code);
        if (!before || !after) return;
        const auto diff = diff_geo(*before, *after, *home);
        exit_code = 0;
        if (options->json) {
            const Json object = {{"before", before->content_hash()},
                                 {"after", after->content_hash()},
                                 {"ipv4", json_of(diff.ipv4)},
                                 {"ipv6", json_of(diff.ipv6)}};
            std::printf("%s\n", object.dump().c_str());
            return;
        }
        print_diff("IPv4", diff.ipv4);
        print_diff("IPv6", diff.ipv6);
    });
}

// ---- info

struct Counts {
    std::size_t segments = 0;
    std::size_t disputed = 0;
    std::size_t unknown = 0;  // segments with a record, but no country
};

template <typename Segments>
Counts count(const Segments& segments, std::set<Country>& countries) {
    Counts counts;
    std::uint16_t last_code = 0;
    std::optional<Country> last;
    for (const auto& segment : segments) {
        if (segment.code == 0) continue;
        if (segment.code != last_code) last = country_of_code(last_code = segment.code);
        counts.segments++;
        counts.disputed += (segment.source & GEO_DISPUTED) != 0 ? 1 : 0;
        counts.unknown += last ? 0 : 1;
        if (last) countries.insert(*last);
    }
    return counts;
}

Json json_of(const Counts& counts) {
    return {{"segments", counts.segments}, {"unknown", counts.unknown}, {"disputed", counts.disputed}};
}

void print_counts(const char* family, const Counts& counts) {
    std::printf("%s: %zu segments, %zu of unknown country, %zu disputed\n", family, counts.segments,
                counts.unknown, counts.disputed);
}

void print_info(const GeoData& data, const std::string& path, bool json) {
    std::set<Country> countries;
    const Counts four = count(data.segments4(), countries);
    const Counts six = count(data.segments6(), countries);
    if (json) {
        Json sources = Json::array();
        for (const auto& source : data.sources())
            sources.push_back({{"name", source.name},
                               {"format", source.format},
                               {"date", source.date},
                               {"licence", source.licence},
                               {"sha256", source.sha256},
                               {"records", source.records},
                               {"no_country", source.no_country},
                               {"skipped", source.skipped}});
        const Json object = {
            {"file", path},          {"sha256", data.content_hash()}, {"countries", countries.size()},
            {"ipv4", json_of(four)}, {"ipv6", json_of(six)},          {"sources", std::move(sources)}};
        std::printf("%s\n", object.dump().c_str());
        return;
    }
    std::printf("%s\nsha256 %s\n%zu countries\n", path.c_str(), data.content_hash().c_str(),
                countries.size());
    print_counts("IPv4", four);
    print_counts("IPv6", six);
    std::printf("sources, in order of precedence:\n");
    for (const auto& source : data.sources())
        std::printf(
            "  %s (%s)\n    date %s\n    licence %s\n    sha256 %s\n    %llu records, %llu without a "
            "country, "
            "%llu lines skipped\n",
            source.name.c_str(), source.format.c_str(),
            source.date.empty() ? "not stated" : source.date.c_str(),
            source.licence.empty() ? "not stated in the file" : source.licence.c_str(), source.sha256.c_str(),
            static_cast<unsigned long long>(source.records),
            static_cast<unsigned long long>(source.no_country),
            static_cast<unsigned long long>(source.skipped));
}

void add_info(CLI::App& geo, int& exit_code) {
    struct Options {
        std::string file;
        bool json = false;
    };
    auto* command = geo.add_subcommand("info", "Counts, sources, dates and licences of a geo file");
    auto options = std::make_shared<Options>();
    command->add_option("file,--geo", options->file, "Compiled geo file or MaxMind DB")->type_name("FILE");
    command->add_flag("--json", options->json, "One JSON object");
    command->callback([options, &exit_code] {
        exit_code = exit_input;
        const auto path = find_geo_file(options->file);
        if (!path) return void(std::fprintf(stderr, "egresswatch geo info: %s\n", path.error().c_str()));
        const auto data = open_or_complain(*path, exit_code);
        if (!data) return;
        exit_code = 0;
        print_info(*data, path->string(), options->json);
    });
}

}  // namespace

void add_geo(CLI::App& app, int& exit_code) {
    auto* geo = app.add_subcommand("geo", "Country data: build, look up, compare, describe");
    geo->footer(
        "Without --geo the file is $EGRESSWATCH_GEO, else ../share/geo.ewgeo beside the program, else\n"
        "/usr/share/egresswatch/geo.ewgeo.");
    geo->require_subcommand(1);
    add_build(*geo, exit_code);
    add_lookup(*geo, exit_code);
    add_diff(*geo, exit_code);
    add_info(*geo, exit_code);
}

}  // namespace egresswatch::cli
