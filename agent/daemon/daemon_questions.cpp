// agent/daemon/daemon_questions.cpp - requests of the control socket that ask about flows: observe, observed,
// explain.
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/daemon.h"
#include "agent/explain.h"
#include "agent/flow_class.h"
#include "agent/records/flow_reader.h"

namespace egresswatch::daemon {

namespace {

constexpr std::int64_t observe_max_s = 7 * 86'400;
constexpr std::chrono::seconds answer_grace{
    300};  // from the end of an observation until somebody asks for it

std::string to_line(const records::Json& answer) {
    return answer.dump(-1, ' ', false, records::Json::error_handler_t::replace);
}

}  // namespace

std::string Daemon::answer_question(ControlRequest request, const std::string& line) {
    // It was parsed once, by the control socket: it is an object.
    const auto asked = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    records::Json answer{{"ok", true}};
    switch (request) {
        case ControlRequest::observe: {
            const auto seconds = asked.find("seconds");
            if (seconds == asked.end() || !seconds->is_number_integer() || seconds->get<std::int64_t>() < 1 ||
                seconds->get<std::int64_t>() > observe_max_s)
                return control_error("\"seconds\": write a number from 1 to " +
                                     std::to_string(observe_max_s));
            evaluation_->observe(std::chrono::seconds(seconds->get<std::int64_t>()) + answer_grace);
            return to_line(answer);
        }
        case ControlRequest::observed: {
            const auto observation = evaluation_->take_observation();
            if (!observation) return control_error("nobody has asked to observe, or it was too long ago");
            answer["observed"] = observation->to_json();
            return to_line(answer);
        }
        case ControlRequest::explain: {
            const auto flow = asked.find("flow");
            const auto update =
                flow == asked.end() ? std::nullopt : records::read_flow_fields(records::Json(*flow));
            if (!update)
                return control_error(
                    "\"flow\": write the members of a flow record, \"local\" and \"remote\" at least");
            const Timestamp now =
                evaluation_->packet_time() == Timestamp{} ? started_ : evaluation_->packet_time();
            rules::OwnedFacts known = records::read_flow_facts(records::Json(asked));
            FlowUpdate live = *update;
            live.key.class_id = flow_class(*state_->table, live);
            if (known.said_nothing()) evaluation_->add_names(live, known);
            answer["explanation"] =
                explain_flow({evaluation_->evaluator(), *state_->geo, *state_->table, now}, *update, known);
            return to_line(answer);
        }
        default:
            return control_error("that is no question");
    }
}

}  // namespace egresswatch::daemon
