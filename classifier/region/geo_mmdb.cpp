// classifier/region/geo_mmdb.cpp - imports a MaxMind DB file by walking its search tree.
// SPDX-License-Identifier: Apache-2.0
//
// Libraries write the IPv4 tree at ::/96 and alias it at ::ffff:0:0/96, 2001::/32 and 2002::/16 (MaxMind DB
// format specification 2.0, "IPv4 addresses in an IPv6 tree"). Those, and 64:ff9b::/96, are not walked:
// addresses in them are answered by the IPv4 address they stand for, and Teredo is a special address.
#include <maxminddb.h>

#include <array>
#include <ctime>
#include <memory>
#include <unordered_map>

#include "classifier/region/geo_import.h"

namespace egresswatch {

namespace {

// Networks and nodes beyond these are no country database but an attack: a tree of 128 levels whose nodes are
// shared has 2^128 paths. The largest public country databases have about 2 million nodes.
constexpr std::uint64_t mmdb_visits_max = 64'000'000;
constexpr std::uint64_t mmdb_networks_max = 16'000'000;

struct Alias {
    Uint128 base;
    unsigned length;
};

constexpr Uint128 high_word(std::uint32_t word) {
    return static_cast<Uint128>(word) << 96;
}

constexpr std::array aliases = {
    Alias{static_cast<Uint128>(0xffffu) << 32, 96},  // ::ffff:0:0/96
    Alias{high_word(0x20010000u), 32},               // 2001::/32
    Alias{high_word(0x20020000u), 16},               // 2002::/16
    Alias{high_word(0x0064ff9bu), 96},               // 64:ff9b::/96
};

class TreeWalk {
public:
    TreeWalk(GeoImport& import, const MMDB_s& db)
        : import_(import), db_(db), six_(db.metadata.ip_version == 6) {}

    // False: a limit was exceeded or the tree is damaged; why() says which.
    bool run() { return visit(0, 0, 0); }
    [[nodiscard]] const std::string& why() const noexcept { return why_; }

private:
    bool visit(std::uint32_t node, Uint128 bits, unsigned depth) {
        const unsigned width = six_ ? 128 : 32;
        if (++visits_ > mmdb_visits_max || depth >= width) return fail("search tree is damaged or too large");
        MMDB_search_node_s pair{};
        if (MMDB_read_node(&db_, node, &pair) != MMDB_SUCCESS) return fail("search tree is damaged");
        const Uint128 right = bits | Uint128{1} << (width - 1 - depth);
        return child(pair.left_record_type, pair.left_record, pair.left_record_entry, bits, depth + 1) &&
               child(pair.right_record_type, pair.right_record, pair.right_record_entry, right, depth + 1);
    }

    bool child(std::uint8_t type, std::uint64_t record, MMDB_entry_s entry, Uint128 bits, unsigned depth) {
        if (six_)
            for (const auto& alias : aliases)
                if (depth == alias.length && bits == alias.base) return true;
        switch (type) {
            case MMDB_RECORD_TYPE_SEARCH_NODE:
                return visit(static_cast<std::uint32_t>(record), bits, depth);
            case MMDB_RECORD_TYPE_EMPTY:
                return true;
            case MMDB_RECORD_TYPE_DATA:
                return add(entry, bits, depth);
            default:
                return fail("search tree is damaged");
        }
    }

    bool add(MMDB_entry_s entry, Uint128 bits, unsigned depth) {
        if (++networks_ > mmdb_networks_max) return fail("more than 16 million networks");
        const auto code = code_of(entry);
        if (!six_) return add_ipv4(static_cast<std::uint32_t>(bits), depth, code);
        if (bits >> 32 == 0 && depth >= 96)
            return add_ipv4(static_cast<std::uint32_t>(bits), depth - 96, code);
        // A record above ::/96 is what a search for any IPv4 address ends at.
        if (bits == 0) add_ipv4(0, 0, code);
        import_.add_prefix({Family<Uint128>::address_of(bits), static_cast<std::uint8_t>(depth)}, code, 0);
        return true;
    }

    bool add_ipv4(std::uint32_t bits, unsigned length, std::uint16_t code) {
        import_.add_prefix({Address::from_ipv4(bits), static_cast<std::uint8_t>(length)}, code, 0);
        return true;
    }

    std::uint16_t code_of(MMDB_entry_s entry) {
        const auto [found, fresh] = codes_.try_emplace(entry.offset, code_unknown);
        if (fresh) found->second = read_code(entry);
        return found->second;
    }

    static std::uint16_t read_code(MMDB_entry_s entry) {
        static constexpr std::array<std::array<const char*, 3>, 4> paths = {{
            {"country", "iso_code", nullptr},  // GeoLite2, DB-IP
            {"country_code", nullptr, nullptr},
            {"country", nullptr, nullptr},  // IPinfo
            {"country_short", nullptr, nullptr},
        }};
        for (const auto& path : paths) {
            MMDB_entry_data_s data{};
            if (MMDB_aget_value(&entry, &data, path.data()) != MMDB_SUCCESS || !data.has_data ||
                data.type != MMDB_DATA_TYPE_UTF8_STRING || data.data_size != 2)
                continue;
            return code_of_letters(data.utf8_string[0], data.utf8_string[1]);
        }
        return code_unknown;
    }

    bool fail(const char* why) {
        why_ = why;
        return false;
    }

    GeoImport& import_;
    const MMDB_s& db_;
    const bool six_;
    std::uint64_t visits_ = 0;
    std::uint64_t networks_ = 0;
    std::unordered_map<std::uint32_t, std::uint16_t> codes_;  // by offset of the data record
    std::string why_;
};

std::string date_of(std::uint64_t epoch) {
    const auto seconds = static_cast<std::time_t>(epoch);
    std::tm parts{};
    char text[32];
    if (gmtime_r(&seconds, &parts) == nullptr || std::strftime(text, sizeof text, "%Y-%m-%d", &parts) == 0)
        return {};
    return text;
}

}  // namespace

void import_mmdb(GeoImport& import, const std::filesystem::path& path) {
    MMDB_s db{};
    const int status = MMDB_open(path.c_str(), MMDB_MODE_MMAP, &db);
    if (status != MMDB_SUCCESS)
        return import.bad(0, 0, std::string("not a readable MaxMind DB: ") + MMDB_strerror(status),
                          "download it again; it may be cut or still packed");
    const std::unique_ptr<MMDB_s, decltype(&MMDB_close)> owner(&db, &MMDB_close);
    import.source.date = date_of(db.metadata.build_epoch);
    TreeWalk walk(import, db);
    if (!walk.run()) return import.bad(0, 0, walk.why(), "download the file again");
    if (import.source.records == 0 || import.source.records == import.source.no_country)
        import.bad(0, 0, "no record has a country",
                   "country.iso_code, country_code, country or country_short must be a two-letter string");
}

}  // namespace egresswatch
