// rules/region_groups.cpp - the dated tables themselves.
// SPDX-License-Identifier: Apache-2.0
//
// Reviewed on the day that region_groups_reviewed() answers. Sources are named at each table; a new
// accession, exit or adequacy decision is a line here, with its date, and never the removal of a line: an old
// capture is judged by the law of its day where the policy says `as_of`.
#include "rules/region_groups.h"

#include <algorithm>
#include <array>

namespace egresswatch::rules {

namespace {

using std::chrono::day;
using std::chrono::month;
using std::chrono::year;
using std::chrono::year_month_day;

constexpr year_month_day on(int y, unsigned m, unsigned d) {
    return year{y} / month{m} / day{d};
}
constexpr year_month_day open_end = on(9999, 12, 31);

// Accession treaties; Article 355 TFEU for the territories with a country code of their own: the outermost
// regions GF, GP, MF, MQ, RE, YT and Aland (AX) belong to the Union; Greenland, the Faroes and the overseas
// countries and territories do not. GB left at the end of 31 January 2020 (OJ L 29, 31.1.2020).
constexpr std::array eu{
    Membership{"AT", on(1995, 1, 1), open_end},       Membership{"AX", on(1995, 1, 1), open_end},
    Membership{"BE", on(1958, 1, 1), open_end},       Membership{"BG", on(2007, 1, 1), open_end},
    Membership{"CY", on(2004, 5, 1), open_end},       Membership{"CZ", on(2004, 5, 1), open_end},
    Membership{"DE", on(1958, 1, 1), open_end},       Membership{"DK", on(1973, 1, 1), open_end},
    Membership{"EE", on(2004, 5, 1), open_end},       Membership{"ES", on(1986, 1, 1), open_end},
    Membership{"FI", on(1995, 1, 1), open_end},       Membership{"FR", on(1958, 1, 1), open_end},
    Membership{"GB", on(1973, 1, 1), on(2020, 2, 1)}, Membership{"GF", on(1958, 1, 1), open_end},
    Membership{"GP", on(1958, 1, 1), open_end},       Membership{"GR", on(1981, 1, 1), open_end},
    Membership{"HR", on(2013, 7, 1), open_end},       Membership{"HU", on(2004, 5, 1), open_end},
    Membership{"IE", on(1973, 1, 1), open_end},       Membership{"IT", on(1958, 1, 1), open_end},
    Membership{"LT", on(2004, 5, 1), open_end},       Membership{"LU", on(1958, 1, 1), open_end},
    Membership{"LV", on(2004, 5, 1), open_end},       Membership{"MF", on(1958, 1, 1), open_end},
    Membership{"MQ", on(1958, 1, 1), open_end},       Membership{"MT", on(2004, 5, 1), open_end},
    Membership{"NL", on(1958, 1, 1), open_end},       Membership{"PL", on(2004, 5, 1), open_end},
    Membership{"PT", on(1986, 1, 1), open_end},       Membership{"RE", on(1958, 1, 1), open_end},
    Membership{"RO", on(2007, 1, 1), open_end},       Membership{"SE", on(1995, 1, 1), open_end},
    Membership{"SI", on(2004, 5, 1), open_end},       Membership{"SK", on(2004, 5, 1), open_end},
    Membership{"YT", on(2014, 1, 1), open_end},
};

// Agreement on the European Economic Area (OJ L 1, 3.1.1994) and its enlargement agreements, from the day of
// provisional application. The agreement went on applying to GB through the transition period that ended with
// 2020. Svalbard (SJ) is excepted by Protocol 40.
constexpr std::array eea{
    Membership{"AT", on(1994, 1, 1), open_end},       Membership{"AX", on(1995, 1, 1), open_end},
    Membership{"BE", on(1994, 1, 1), open_end},       Membership{"BG", on(2007, 8, 1), open_end},
    Membership{"CY", on(2004, 5, 1), open_end},       Membership{"CZ", on(2004, 5, 1), open_end},
    Membership{"DE", on(1994, 1, 1), open_end},       Membership{"DK", on(1994, 1, 1), open_end},
    Membership{"EE", on(2004, 5, 1), open_end},       Membership{"ES", on(1994, 1, 1), open_end},
    Membership{"FI", on(1994, 1, 1), open_end},       Membership{"FR", on(1994, 1, 1), open_end},
    Membership{"GB", on(1994, 1, 1), on(2021, 1, 1)}, Membership{"GF", on(1994, 1, 1), open_end},
    Membership{"GP", on(1994, 1, 1), open_end},       Membership{"GR", on(1994, 1, 1), open_end},
    Membership{"HR", on(2014, 4, 12), open_end},      Membership{"HU", on(2004, 5, 1), open_end},
    Membership{"IE", on(1994, 1, 1), open_end},       Membership{"IS", on(1994, 1, 1), open_end},
    Membership{"IT", on(1994, 1, 1), open_end},       Membership{"LI", on(1995, 5, 1), open_end},
    Membership{"LT", on(2004, 5, 1), open_end},       Membership{"LU", on(1994, 1, 1), open_end},
    Membership{"LV", on(2004, 5, 1), open_end},       Membership{"MF", on(1994, 1, 1), open_end},
    Membership{"MQ", on(1994, 1, 1), open_end},       Membership{"MT", on(2004, 5, 1), open_end},
    Membership{"NL", on(1994, 1, 1), open_end},       Membership{"NO", on(1994, 1, 1), open_end},
    Membership{"PL", on(2004, 5, 1), open_end},       Membership{"PT", on(1994, 1, 1), open_end},
    Membership{"RE", on(1994, 1, 1), open_end},       Membership{"RO", on(2007, 8, 1), open_end},
    Membership{"SE", on(1994, 1, 1), open_end},       Membership{"SI", on(2004, 5, 1), open_end},
    Membership{"SK", on(2004, 5, 1), open_end},       Membership{"YT", on(2014, 1, 1), open_end},
};

// Stockholm Convention (1960) and Vaduz Convention (2001).
constexpr std::array efta{
    Membership{"AT", on(1960, 5, 3), on(1995, 1, 1)}, Membership{"CH", on(1960, 5, 3), open_end},
    Membership{"DK", on(1960, 5, 3), on(1973, 1, 1)}, Membership{"FI", on(1986, 1, 1), on(1995, 1, 1)},
    Membership{"GB", on(1960, 5, 3), on(1973, 1, 1)}, Membership{"IS", on(1970, 3, 1), open_end},
    Membership{"LI", on(1991, 9, 1), open_end},       Membership{"NO", on(1960, 5, 3), open_end},
    Membership{"PT", on(1960, 5, 3), on(1986, 1, 1)}, Membership{"SE", on(1960, 5, 3), on(1995, 1, 1)},
};

// Commission decisions under Article 25(6) of Directive 95/46/EC and Article 45 GDPR; the day of the
// decision.
constexpr std::array eu_adequacy{
    Membership{"AD", on(2010, 10, 19), open_end},  // 2010/625/EU
    Membership{"AR", on(2003, 6, 30), open_end},   // 2003/490/EC
    Membership{"BR", on(2026, 1, 27), open_end},   // as announced on 27 January 2026
    Membership{"CA", on(2001, 12, 20), open_end},  // 2002/2/EC: commercial organisations
    Membership{"CH", on(2000, 7, 26), open_end},   // 2000/518/EC
    Membership{"FO", on(2010, 3, 5), open_end},    // 2010/146/EU
    // (EU) 2021/1772, extended to 27 December 2025, then renewed until 27 December 2031.
    Membership{"GB", on(2021, 6, 28), on(2031, 12, 28)},
    Membership{"GG", on(2003, 11, 21), open_end},  // 2003/821/EC
    Membership{"IL", on(2011, 1, 31), open_end},   // 2011/61/EU
    Membership{"IM", on(2004, 4, 28), open_end},   // 2004/411/EC
    Membership{"JE", on(2008, 5, 8), open_end},    // 2008/393/EC
    Membership{"JP", on(2019, 1, 23), open_end},   // (EU) 2019/419: private sector
    Membership{"KR", on(2021, 12, 17), open_end},  // (EU) 2022/254
    Membership{"NZ", on(2012, 12, 19), open_end},  // 2013/65/EU
    Membership{"UY", on(2012, 8, 21), open_end},   // 2012/484/EU
};

// Decisions that hold for organisations which certified themselves: a country cannot show whether the
// receiver did. Safe Harbour 2000/520/EC (annulled, C-362/14), Privacy Shield (EU) 2016/1250 (annulled,
// C-311/18), Data Privacy Framework (EU) 2023/1795.
constexpr std::array eu_adequacy_partial{
    Membership{"US", on(2000, 7, 26), on(2015, 10, 6)},
    Membership{"US", on(2016, 7, 12), on(2020, 7, 16)},
    Membership{"US", on(2023, 7, 10), open_end},
};

constexpr std::array groups{
    RegionGroup{"EU", "European Union", "accession treaties, Article 355 TFEU", "", eu},
    RegionGroup{"EEA", "European Economic Area", "EEA Agreement and its enlargement agreements", "", eea},
    RegionGroup{"EFTA", "European Free Trade Association", "Stockholm and Vaduz Conventions", "", efta},
    RegionGroup{"EU-ADEQUACY", "countries with an adequacy decision of the Commission",
                "decisions under Article 45 GDPR",
                "CA covers commercial organisations only, JP the private sector only; the US is not in it",
                eu_adequacy},
    RegionGroup{"EU-ADEQUACY-PARTIAL", "countries where only certified organisations are adequate",
                "Implementing Decision (EU) 2023/1795",
                "an address in the US does not show whether its holder is certified under the Data Privacy "
                "Framework: prefer an allow entry for each receiver",
                eu_adequacy_partial},
};

constexpr std::array<std::string_view, 250> codes{
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA",
    "BB", "BD", "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV",
    "BW", "BY", "BZ", "CA", "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU",
    "CV", "CW", "CX", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES",
    "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM",
    "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HM", "HN", "HR", "HT", "HU", "ID", "IE",
    "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP", "KE", "KG", "KH", "KI", "KM",
    "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY",
    "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS", "MT",
    "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU",
    "NZ", "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA",
    "RE", "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM",
    "SN", "SO", "SR", "SS", "ST", "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL",
    "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE",
    "VG", "VI", "VN", "VU", "WF", "WS", "XK", "YE", "YT", "ZA", "ZM", "ZW"};
static_assert(std::ranges::is_sorted(codes), "is_country_code searches by halves");

}  // namespace

std::span<const RegionGroup> region_groups() noexcept {
    return groups;
}

const RegionGroup* find_region_group(std::string_view name) noexcept {
    const auto found =
        std::ranges::find(groups, name, [](const RegionGroup& g) { return std::string_view(g.name); });
    return found == groups.end() ? nullptr : &*found;
}

std::set<Country> members(const RegionGroup& group, year_month_day when) {
    std::set<Country> out;
    for (const Membership& member : group.members)
        if (member.from <= when && when < member.until) out.insert(member.country);
    return out;
}

year_month_day region_groups_reviewed() noexcept {
    return on(2026, 2, 9);
}

bool is_country_code(std::string_view code) noexcept {
    return std::ranges::binary_search(codes, code);
}

std::span<const std::string_view> country_codes() noexcept {
    return codes;
}

}  // namespace egresswatch::rules
