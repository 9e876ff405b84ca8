// agent/resolvers.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/resolvers.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "classifier/region/special.h"

namespace egresswatch {

namespace {

constexpr std::size_t file_bytes_max = 64 * 1024;

// The addresses behind "nameserver" (resolv.conf(5)), without the zone of a link-local one.
void add_name_servers(const char* file, std::vector<Prefix>& to) {
    std::ifstream in(file);
    std::string text(file_bytes_max, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string key, address;
        if (!(words >> key >> address) || key != "nameserver") continue;
        if (const auto server = Address::parse(std::string_view(address).substr(0, address.find('%'))))
            to.push_back(Prefix::containing(*server, 128));
    }
}

}  // namespace

bool add_resolver(std::string_view word, ResolverSettings& to) {
    if (word == "any") return to.any = true;
    if (word == "system") return to.system = true;
    if (word == "local") return to.local = true;
    const auto prefix = Prefix::parse(word);
    if (prefix) to.prefixes.push_back(*prefix);
    return prefix.has_value();
}

inspect::Resolvers resolvers_of(const ResolverSettings& settings, std::span<const Prefix> local_networks,
                                std::span<const char* const> files) {
    inspect::Resolvers out{settings.any, settings.prefixes};
    if (settings.any) return out;
    if (settings.system)
        for (const char* file : files) add_name_servers(file, out.prefixes);
    if (settings.local) {
        out.prefixes.insert(out.prefixes.end(), local_networks.begin(), local_networks.end());
        for (const SpecialPrefix& special : special_prefixes())
            if (special.local == datapath::LOCAL_HOST || special.local == datapath::LOCAL_LINK ||
                special.local == datapath::LOCAL_PRIVATE)
                out.prefixes.push_back(special.prefix);
    }
    std::ranges::sort(out.prefixes);
    const auto twice = std::ranges::unique(out.prefixes);
    out.prefixes.erase(twice.begin(), twice.end());
    return out;
}

}  // namespace egresswatch
