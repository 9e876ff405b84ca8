// agent/daemon/recall.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/recall.h"

#include <deque>

#include "agent/evidence/line_source.h"
#include "agent/flow_class.h"
#include "agent/journal/segment.h"
#include "agent/records/fit.h"
#include "agent/records/flow_reader.h"

namespace egresswatch::daemon {

namespace {

using records::Json;

constexpr std::size_t segments_searched_max = 3;  // 192 MiB, read in a third of a second

struct Found {
    std::deque<std::string> lines;
    std::size_t left_out = 0;
};

// When the first record of a segment was written; nothing in it: never.
Timestamp begun(const std::filesystem::path& segment) {
    evidence::LineSource lines(segment);
    const auto line = lines.next();
    return line ? journal::line_written(*line).value_or(Timestamp::max()) : Timestamp::max();
}

void search(const std::filesystem::path& segment, Timestamp since, const std::string& policy_hash,
            Found& found) {
    evidence::LineSource lines(segment);
    while (const auto line = lines.next()) {
        const auto kind = journal::text_member(*line, "kind");
        if (kind == "policy" && journal::text_member(*line, "content_hash") != policy_hash) found = {};
        if (kind != "finding" || journal::line_written(*line).value_or(since) < since) continue;
        found.lines.emplace_back(*line);
        if (found.lines.size() <= findings_recalled_max) continue;
        found.lines.pop_front();
        ++found.left_out;
    }
}

bool recall(const std::string& line, const RegionTable& table, rules::Evaluator& evaluator) {
    const Json record = Json::parse(line, nullptr, false);
    const auto flow = records::read_flow_fields(records::member(record, "flow"));
    const auto at = records::parse_time(records::text_member(record, "time"));
    if (!flow || !at) return false;  // the daemon's findings about itself
    std::vector<rules::GroupField> group;
    if (const Json& fields = records::member(record, "group"); fields.is_object())
        for (const auto& [name, value] : fields.items())
            if (value.is_string()) group.push_back({name, value.get<std::string>()});
    const std::string rule = records::text_member(records::member(record, "rule"), "id");
    return evaluator.recall({rule, *flow, table.class_info(flow_class(table, *flow)), group, *at});
}

}  // namespace

Recalled recall_findings(const std::filesystem::path& journal, Timestamp since,
                         const std::string& policy_hash, const RegionTable& table,
                         rules::Evaluator& evaluator) {
    auto segments = journal::list_segments(journal);
    if (segments.size() > segments_searched_max)
        segments.erase(segments.begin(), segments.end() - segments_searched_max);
    while (segments.size() > 1 && begun(segments[1].path) < since) segments.erase(segments.begin());
    Found found;
    for (const auto& segment : segments) search(segment.path, since, policy_hash, found);
    Recalled out{0, found.left_out};
    for (const auto& line : found.lines) out.findings += recall(line, table, evaluator) ? 1 : 0;
    return out;
}

}  // namespace egresswatch::daemon
