// agent/cli/journal_flows.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/journal_flows.h"

#include <algorithm>

#include "agent/journal/reader.h"
#include "agent/journal/segment.h"
#include "agent/records/flow_reader.h"

namespace egresswatch::cli {

namespace {

namespace fs = std::filesystem;
using records::Json;

std::string text_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

template <typename Number>
Number number_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_number() ? found->get<Number>() : Number{};
}

std::optional<FlowUpdate> update_of(const Json& record) {
    const auto flow = record.find("flow");
    auto out = flow == record.end() ? std::nullopt : records::read_flow_fields(*flow);
    if (!out || out->last_seen == Timestamp{}) return std::nullopt;
    const auto ended = record.find("ended");
    const bool over = ended == record.end() || !ended->is_boolean() || ended->get<bool>();
    out->reason = over ? UpdateReason::ended : UpdateReason::active;
    return out;
}

// Which flow it is: its five-tuple and its beginning.
std::string identity_of(const FlowUpdate& update) {
    return std::string(reinterpret_cast<const char*>(&update.key), sizeof update.key) +
           std::to_string(update.first_seen.time_since_epoch().count());
}

bool has_segments(const fs::path& path) {
    std::error_code error;
    return fs::is_directory(path, error) && !journal::list_segments(path).empty();
}

}  // namespace

bool JournalFlows::is_journal(const fs::path& path) {
    return has_segments(path) || has_segments(path / "journal");
}

std::expected<JournalFlows, std::string> JournalFlows::open(fs::path directory) {
    if (!has_segments(directory) && has_segments(directory / "journal")) directory /= "journal";
    if (!has_segments(directory)) return std::unexpected(directory.string() + ": there is no journal in it");
    return JournalFlows(std::move(directory));
}

void JournalFlows::for_each(const std::function<void(const JournalFlow&)>& take) {
    const auto reader = journal::Reader::of_directory(directory_, 0);
    while (const auto entry = reader->next()) {
        const Json record = Json::parse(entry->line, nullptr, /*allow_exceptions=*/false);
        const std::string kind = record.is_object() ? text_of(record, "kind") : std::string();
        if (kind == "coverage") skipped_ += number_of<std::uint64_t>(record, "flow_records_skipped");
        if (kind != "flow") continue;
        if (take_flow(record, take))
            ++records_;
        else
            ++unreadable_;
    }
}

bool JournalFlows::take_flow(const Json& record, const std::function<void(const JournalFlow&)>& take) {
    JournalFlow flow;
    auto update = update_of(record);
    if (!update) return false;
    flow.update = *update;
    flow.facts = records::read_flow_facts(record);
    flow.country = text_of(record["flow"], "country");
    if (const auto decision = record.find("decision"); decision != record.end() && decision->is_object())
        flow.allowed = text_of(*decision, "verdict") == "allowed";
    // A long-lived flow is recorded again and again with its totals: what is new is the difference.
    FlowUpdate& now = flow.update;
    const std::string identity = identity_of(now);
    const auto before = told_.find(identity);
    now.delta = now.total;
    if (before != told_.end()) {
        const auto since = [](std::uint64_t later, std::uint64_t earlier) {
            return later >= earlier ? later - earlier : later;
        };
        now.delta = {since(now.total.packets_out, before->second.packets_out),
                     since(now.total.bytes_out, before->second.bytes_out),
                     since(now.total.packets_in, before->second.packets_in),
                     since(now.total.bytes_in, before->second.bytes_in)};
    }
    if (now.reason == UpdateReason::ended)
        told_.erase(identity);
    else
        told_[identity] = now.total;
    take(flow);
    return true;
}

}  // namespace egresswatch::cli
