// classifier/region/country.cpp - which two letters are a country.
// SPDX-License-Identifier: Apache-2.0
//
// ISO 3166-1 alpha-2, officially assigned codes as of 2026-01, and XK (user-assigned; Kosovo, as registries,
// banks and the EU use it). Withdrawn codes (AN, CS, SU, YU), groupings (EU, AP) and ?? are no countries:
// what they cover may lie in several, so the address is unknown.
#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "classifier/region/geo_data.h"

namespace egresswatch {

namespace {

constexpr std::string_view assigned =
    "ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCRCUCV"
    "CW"
    "CXCYCZDEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMIN"
    "IO"
    "IQIRISITJEJMJOJPKEKGKHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMY"
    "MZ"
    "NANCNENFNGNINLNONPNRNUNZOMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSX"
    "SY"
    "SZTCTDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSXKYEYTZAZMZW";
constexpr std::size_t countries = assigned.size() / 2;
static_assert(countries == 249 + 1, "249 assigned codes and XK");

constexpr bool in_order() {
    for (std::size_t i = 2; i < assigned.size(); i += 2)
        if (assigned.substr(i - 2, 2) >= assigned.substr(i, 2)) return false;
    return true;
}
static_assert(in_order(), "sorted, no code twice");

}  // namespace

std::uint16_t code_of_letters(char first, char second) noexcept {
    return static_cast<std::uint16_t>(static_cast<unsigned char>(first) |
                                      static_cast<unsigned>(static_cast<unsigned char>(second)) << 8);
}

std::optional<Country> country_of_code(std::uint16_t code) {
    const char letters[2] = {static_cast<char>(code & 0xff), static_cast<char>(code >> 8)};
    const std::string_view wanted(letters, 2);
    if (wanted == "UK") return "GB";  // exceptionally reserved for the United Kingdom
    std::size_t low = 0;
    for (std::size_t high = countries; low < high;) {
        const std::size_t middle = (low + high) / 2;
        if (assigned.substr(2 * middle, 2) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == countries || assigned.substr(2 * low, 2) != wanted) return std::nullopt;
    return Country(wanted);
}

}  // namespace egresswatch
