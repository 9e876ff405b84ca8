// agent/daemon/coverage.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/coverage.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <functional>
#include <sstream>
#include <system_error>

namespace egresswatch::daemon {

namespace {

using records::Json;

constexpr int saved_version = 1;
// traffic and class_traffic are plain counters: a snapshot is written as flat arrays of them.
constexpr std::size_t iface_words = sizeof(datapath::iface_totals) / sizeof(std::uint64_t);
constexpr std::size_t class_words = sizeof(datapath::class_totals) / sizeof(std::uint64_t);

template <std::size_t Words, typename Counters>
std::array<std::uint64_t, Words> words_of(const Counters& counters) {
    static_assert(sizeof(Counters) == Words * sizeof(std::uint64_t));
    return std::bit_cast<std::array<std::uint64_t, Words>>(counters);
}

// True where every counter of `earlier` is at most the one of `later`.
template <std::size_t Words, typename Counters>
bool grew(const Counters& earlier, const Counters& later) {
    const auto a = words_of<Words>(earlier);
    const auto b = words_of<Words>(later);
    return std::ranges::equal(a, b, std::less_equal<>{});
}

template <std::size_t Words, typename Counters>
std::optional<Counters> counters_from(const Json& words) {
    if (!words.is_array() || words.size() != Words) return std::nullopt;
    std::array<std::uint64_t, Words> values{};
    for (std::size_t i = 0; i < Words; i++) {
        if (!words[i].is_number_unsigned()) return std::nullopt;
        values[i] = words[i].template get<std::uint64_t>();
    }
    return std::bit_cast<Counters>(values);
}

std::optional<capture::TotalsSnapshot> snapshot_from(const Json& document) {
    capture::TotalsSnapshot totals;
    for (const Json& words : document.value("classes", Json::array())) {
        const auto counters = counters_from<class_words, datapath::class_totals>(words);
        if (!counters) return std::nullopt;
        totals.by_class.push_back(*counters);
    }
    for (const Json& saved : document.value("interfaces", Json::array())) {
        if (!saved.is_object()) return std::nullopt;
        const auto counters =
            counters_from<iface_words, datapath::iface_totals>(saved.value("counters", Json::array()));
        if (!counters) return std::nullopt;
        capture::InterfaceStatus status;
        status.name = saved.value("name", "");
        status.ifindex = saved.value("ifindex", 0u);
        status.totals = *counters;
        totals.interfaces.push_back(std::move(status));
    }
    const auto losses =
        counters_from<datapath::LOSS_REASON_COUNT, std::array<std::uint64_t, datapath::LOSS_REASON_COUNT>>(
            document.value("losses", Json::array()));
    if (!losses) return std::nullopt;
    totals.losses = *losses;
    return totals;
}

std::optional<CoverageKeeper::Saved> saved_from(const std::string& text) {
    const Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object() || document.value("version", Json()) != saved_version) return std::nullopt;
    const Json to = document.value("to", Json());
    if (!to.is_string()) return std::nullopt;
    const auto time = records::parse_time(to.get_ref<const std::string&>());
    auto totals = snapshot_from(document);
    if (!time || !totals) return std::nullopt;
    return CoverageKeeper::Saved{*time, std::move(*totals)};
}

}  // namespace

Json conservation_json(const ConservationResult& result) {
    Json out;
    out["compared"] = result.compared;
    if (result.compared) {
        out["basis"] = result.basis;
        out["driver_packets"] = result.driver_packets;
        out["driver_bytes"] = result.driver_bytes;
        out["hook_packets"] = result.hook_packets;
        out["hook_bytes"] = result.hook_bytes;
        out["residual_bytes"] = result.residual_bytes;
        out["excess_bytes"] = result.excess_bytes;
        out["tolerance_bytes"] = result.tolerance_bytes;
    }
    out["bypass_suspected"] = result.bypass_suspected;
    out["balance_broken"] = result.balance_broken;
    return out;
}

Json CoverageKeeper::period(Timestamp now, capture::TotalsSnapshot totals,
                            const std::vector<LinkCounters>& driver_before,
                            const std::vector<LinkCounters>& driver_after, const CoverageContext& context) {
    results_ = conservation_.advance(driver_before, totals, driver_after);
    records::Coverage coverage;
    coverage.from = from_;
    coverage.to = now;
    coverage.before = before_;
    coverage.after = std::move(totals);
    coverage.classes = context.classes;
    coverage.engine = context.engine;
    coverage.policy_hash = context.policy_hash;
    coverage.geo_hash = context.geo_hash;
    coverage.findings = context.findings - sums_.findings;
    coverage.findings_suppressed = context.findings_suppressed - sums_.findings_suppressed;
    coverage.window_evictions = context.window_evictions - sums_.window_evictions;
    coverage.unjournaled = context.unjournaled;
    Json record = records::coverage_record(origin_, coverage);
    record["policy_broken"] = context.policy_broken;
    record["flow_records_skipped"] = context.flow_records_skipped - sums_.flow_records_skipped;
    for (Json& interface : record["interfaces"]) {
        const auto result =
            std::ranges::find(results_, interface.value("ifindex", 0u), &ConservationResult::ifindex);
        if (result != results_.end()) interface["conservation"] = conservation_json(*result);
    }
    next_sums_ = context;
    next_sums_.classes.clear();
    next_before_ = std::move(coverage.after);
    next_from_ = now;
    return record;
}

void CoverageKeeper::recorded() {
    sums_ = std::move(next_sums_);
    before_ = std::move(next_before_);
    from_ = next_from_;
}

bool CoverageKeeper::save(const std::filesystem::path& file) const {
    Json document;
    document["version"] = saved_version;
    document["to"] = records::format_time(from_);
    document["classes"] = Json::array();
    std::size_t used = before_.by_class.size();  // most of the 4096 class ids never had a packet
    while (used > 0 &&
           words_of<class_words>(before_.by_class[used - 1]) == std::array<std::uint64_t, class_words>{})
        used--;
    for (std::size_t i = 0; i < used; i++)
        document["classes"].push_back(words_of<class_words>(before_.by_class[i]));
    document["interfaces"] = Json::array();
    for (const auto& status : before_.interfaces)
        document["interfaces"].push_back({{"name", status.name},
                                          {"ifindex", status.ifindex},
                                          {"counters", words_of<iface_words>(status.totals)}});
    document["losses"] = before_.losses;
    std::filesystem::path beside = file;
    beside += ".new";
    {
        std::ofstream out(beside, std::ios::trunc);
        out << document.dump() << '\n';
        if (!out.flush()) return false;
    }
    std::error_code error;
    std::filesystem::rename(beside, file, error);
    return !error;
}

std::optional<CoverageKeeper::Saved> CoverageKeeper::load(const std::filesystem::path& file) {
    std::ifstream in(file);
    if (!in) return std::nullopt;
    std::ostringstream text;
    text << in.rdbuf();
    try {
        return saved_from(text.str());
    } catch (const Json::exception&) {  // a member of another type: not written by us
        return std::nullopt;
    }
}

bool CoverageKeeper::continues(const capture::TotalsSnapshot& earlier, const capture::TotalsSnapshot& later) {
    if (earlier.by_class.size() > later.by_class.size()) return false;
    for (std::size_t i = 0; i < earlier.by_class.size(); i++)
        if (!grew<class_words>(earlier.by_class[i], later.by_class[i])) return false;
    return std::ranges::equal(earlier.losses, later.losses, std::less_equal<>{});
}

}  // namespace egresswatch::daemon
