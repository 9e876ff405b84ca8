// agent/metrics/metric_families.h - everything countable of `egresswatch status` as Prometheus metrics.
// SPDX-License-Identifier: Apache-2.0
//
// In:    the status object (docs/man/egresswatch-status.1).
// Out:   one family for each member that is a number, a boolean or a time; members of lists become labels.
//        Nothing is listed twice: a new counter of the status is a new metric without a line here, a gauge
//        until it is named a counter.
// Names: the member's path joined by `_` behind `egresswatch_`, counters with `_total`, seconds for times.
#pragma once

#include <prometheus/metric_family.h>

#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace egresswatch::metrics {

[[nodiscard]] std::vector<prometheus::MetricFamily> metric_families(const nlohmann::ordered_json& status);

}  // namespace egresswatch::metrics
