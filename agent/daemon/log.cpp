// agent/daemon/log.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

namespace egresswatch::daemon {

namespace {

// sd-daemon(3): the number between < and > is the syslog priority.
class Priority final : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
        char digit = '7';
        if (message.level == spdlog::level::info) digit = '6';
        if (message.level == spdlog::level::warn) digit = '4';
        if (message.level == spdlog::level::err) digit = '3';
        if (message.level == spdlog::level::critical) digit = '2';
        for (const char c : {'<', digit, '>'}) out.push_back(c);
    }
    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
        return spdlog::details::make_unique<Priority>();
    }
};

}  // namespace

void set_up_log(const std::string& level) {
    auto logger =
        std::make_shared<spdlog::logger>("egresswatchd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
    if (std::getenv("JOURNAL_STREAM") != nullptr)
        formatter->add_flag<Priority>('*').set_pattern("%*%v");
    else
        formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l: %v");
    logger->set_formatter(std::move(formatter));
    logger->set_level(spdlog::level::from_str(level));
    logger->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(std::move(logger));
}

}  // namespace egresswatch::daemon
