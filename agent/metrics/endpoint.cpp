// agent/metrics/endpoint.cpp - see endpoint.h. The one file in which prometheus-cpp's exceptions end.
// SPDX-License-Identifier: Apache-2.0
#include "agent/metrics/endpoint.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <nlohmann/json.hpp>

#include "agent/daemon/control_protocol.h"
#include "agent/metrics/metric_families.h"

namespace egresswatch::metrics {
namespace {

class StatusCollector final : public prometheus::Collectable {
public:
    explicit StatusCollector(std::string control_socket) : control_socket_(std::move(control_socket)) {}

    [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
        const auto answer = daemon::ask_daemon(control_socket_, "status", answer_timeout);
        std::vector<prometheus::MetricFamily> families;
        if (answer)
            if (const auto status = answer->find("status"); status != answer->end() && status->is_object())
                families = metric_families(nlohmann::ordered_json(*status));
        prometheus::MetricFamily answers;
        answers.name = "egresswatch_answers";
        answers.help = "1: the daemon's loop told its status; 0: it did not, and nothing else is here.";
        answers.type = prometheus::MetricType::Gauge;
        answers.metric.emplace_back().gauge.value = families.empty() ? 0 : 1;
        families.push_back(std::move(answers));
        return families;
    }

private:
    std::string control_socket_;
};

}  // namespace

struct Endpoint::State {
    std::shared_ptr<StatusCollector> collector;
    std::unique_ptr<prometheus::Exposer> exposer;
};

Endpoint::Endpoint(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Endpoint::~Endpoint() = default;

std::expected<std::unique_ptr<Endpoint>, std::string> Endpoint::open(const std::string& listen,
                                                                     std::string control_socket) {
    auto state = std::make_unique<State>();
    state->collector = std::make_shared<StatusCollector>(std::move(control_socket));
    try {
        state->exposer = std::make_unique<prometheus::Exposer>(listen);
        state->exposer->RegisterCollectable(state->collector);
    } catch (const std::exception& error) {
        return std::unexpected("metrics: cannot listen on " + listen + " (" + error.what() +
                               "); free the port or change metrics.listen");
    }
    return std::unique_ptr<Endpoint>(new Endpoint(std::move(state)));
}

}  // namespace egresswatch::metrics
