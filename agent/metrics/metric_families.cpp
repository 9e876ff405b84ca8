// agent/metrics/metric_families.cpp - see metric_families.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/metrics/metric_families.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "agent/records/record.h"

namespace egresswatch::metrics {
namespace {

using Json = nlohmann::ordered_json;
using Labels = std::vector<prometheus::ClientMetric::Label>;

// Sections of which every number only ever grows while the daemon lives, but for the names behind the colon.
struct Section {
    std::string_view name;
    std::vector<std::string_view> counters;  // empty: all
    std::vector<std::string_view> gauges;
};
const Section sections[] = {
    {"interfaces", {}, {"ifindex", "hooked", "residual", "conservation"}},
    {"classes", {}, {}},
    {"losses", {}, {}},
    {"evaluation",
     {"updates", "findings", "suppressed", "window_evictions", "suppression_evictions", "late", "ahead",
      "flow_records", "flow_records_skipped", "long_lived_untracked", "evicted", "matched"},
     {}},
    {"journal",
     {"appended", "unjournaled", "lines_cut", "segments_deleted", "records_thinned", "hash_failures"},
     {}},
    {"evidence", {"checkpoints", "failures"}, {}},
    {"outputs",
     {"sent", "bytes", "resent", "filtered", "shortened", "errors", "retries", "rate_limited",
      "undeliverable", "missing", "unjournaled_sent", "unjournaled_lost"},
     {}},
    {"policy", {"accepted", "rejected", "unchanged", "refusals"}, {}},
    {"control", {"clients_refused"}, {}},
};

bool in(const std::vector<std::string_view>& names, std::string_view name) {
    return std::ranges::find(names, name) != names.end();
}

// What tells the elements of a list apart.
constexpr std::array<std::string_view, 4> identities{"name", "id", "class", "country"};
// Members that are labels, not parts of a name: egresswatch_losses_total{reason="..."}.
constexpr std::array<std::pair<std::string_view, std::string_view>, 2> keyed{
    {{"losses", "reason"}, {"engine_details", "detail"}}};

class Walk {
public:
    explicit Walk(const Json& status) {
        for (const auto& [name, value] : status.items()) {
            section_ = nullptr;
            for (const Section& known : sections)
                if (known.name == name) section_ = &known;
            gauge_above_ = false;
            const auto* key =
                std::ranges::find(keyed, std::string_view(name), &decltype(keyed)::value_type::first);
            if (key != keyed.end() && value.is_object())
                for (const auto& [reason, count] : value.items())
                    visit(name, name, count, {{std::string(key->second), reason}});
            else
                visit(name, name, value, {});
        }
    }
    std::vector<prometheus::MetricFamily> take() {
        std::vector<prometheus::MetricFamily> out;
        for (auto& [name, family] : families_) out.push_back(std::move(family));
        return out;
    }

private:
    void visit(const std::string& path, std::string_view leaf, const Json& value, const Labels& labels) {
        if (value.is_object()) return visit_object(path, value, labels);
        if (value.is_array()) return visit_list(path, value, labels);
        if (value.is_boolean()) return add(path, false, value.get<bool>() ? 1 : 0, labels);
        if (value.is_number()) {
            const bool counter = section_ != nullptr && !gauge_above_ && !in(section_->gauges, leaf) &&
                                 (section_->counters.empty() || in(section_->counters, leaf));
            return add(path, counter, value.get<double>(), labels);
        }
        if (!value.is_string()) return;
        const auto& text = value.get_ref<const std::string&>();
        if (leaf == "state") return add_state(path, text, labels);
        if (const auto time = records::parse_time(text))
            add(path + "_timestamp_seconds", false,
                std::chrono::duration<double>(time->time_since_epoch()).count(), labels);
    }

    void visit_object(const std::string& path, const Json& value, const Labels& labels) {
        for (const auto& [name, child] : value.items()) {
            const bool outer = gauge_above_;
            if (section_ != nullptr && child.is_object() && in(section_->gauges, name)) gauge_above_ = true;
            if (name == "out" || name == "in") {
                Labels more = labels;
                more.push_back({"direction", name});
                visit(path, name, child, more);
            } else {
                visit(path + "_" + name, name, child, labels);
            }
            gauge_above_ = outer;
        }
    }

    // Texts (warnings, problems, addresses) are counted.
    void visit_list(const std::string& path, const Json& list, const Labels& labels) {
        if (list.empty() || !list.front().is_object())
            return list.empty() ? void() : add(path, false, static_cast<double>(list.size()), labels);
        for (const Json& element : list) {
            Labels more = labels;
            for (const auto identity : identities)
                if (const auto found = element.find(identity); found != element.end())
                    more.push_back(
                        {std::string(identity), found->is_string() ? found->get<std::string>() : ""});
            visit_object(path, element, more);
        }
    }

    void add_state(const std::string& path, const std::string& state, Labels labels) {
        labels.push_back({"state", state});
        add(path, false, 1, labels);
    }

    void add(std::string name, bool counter, double value, const Labels& labels) {
        for (const auto& [suffix, per_second] : {std::pair{"_ms", 1000.0}, std::pair{"_s", 1.0}})
            if (name.ends_with(suffix)) {
                name.resize(name.size() - std::string_view(suffix).size());
                name += "_seconds";
                value /= per_second;
            }
        std::ranges::replace_if(
            name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
        const std::string member = name;
        name = "egresswatch_" + name + (counter ? "_total" : "");
        auto& family = families_[name];
        family.name = name;
        family.help = "Of egresswatch status: " + member + ".";
        family.type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
        prometheus::ClientMetric metric;
        metric.label = labels;
        (counter ? metric.counter.value : metric.gauge.value) = value;
        family.metric.push_back(std::move(metric));
    }

    const Section* section_ = nullptr;
    bool gauge_above_ = false;  // inside a member that is named a gauge as a whole
    std::map<std::string, prometheus::MetricFamily> families_;
};

}  // namespace

std::vector<prometheus::MetricFamily> metric_families(const Json& status) {
    auto families = Walk(status).take();
    prometheus::MetricFamily info;
    info.name = "egresswatch_info";
    info.help = "What answers: version, site, host and engine.";
    info.type = prometheus::MetricType::Gauge;
    prometheus::ClientMetric metric;
    metric.gauge.value = 1;
    for (const char* name : {"version", "site", "host", "engine"})
        if (const auto found = status.find(name); found != status.end() && found->is_string())
            metric.label.push_back({name, found->get<std::string>()});
    info.metric.push_back(std::move(metric));
    families.push_back(std::move(info));
    return families;
}

}  // namespace egresswatch::metrics
