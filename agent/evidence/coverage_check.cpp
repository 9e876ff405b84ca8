// agent/evidence/coverage_check.cpp - see coverage_check.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/coverage_check.h"

#include <algorithm>

#include "agent/records/record.h"

namespace egresswatch::evidence {

void CoverageCheck::coverage(std::uint64_t seq, std::string_view from, std::string_view to) {
    if (first_.empty()) first_ = from;
    if (!last_.empty() && from > last_ && !missing_) holes_.push_back({last_, std::string(from), seq});
    missing_ = false;
    last_ = to;
}

void CoverageCheck::gap(std::string_view from, std::string_view to) {
    gaps_.push_back({std::string(from), std::string(to)});
}

void CoverageCheck::other(std::uint64_t seq, std::string_view time) {
    if (time <= reached_) return;
    reached_ = time;
    reached_seq_ = seq;
}

std::vector<CoverageCheck::Hole> CoverageCheck::holes_and_tail() const {
    std::vector<Hole> out = holes_;
    std::string from = last_;
    for (const Span& gap : gaps_)
        if (gap.from <= from && gap.to > from) from = gap.to;
    const auto begin = records::parse_time(from), end = records::parse_time(reached_);
    if (begin && end && *end - *begin > tail_max) out.push_back({from, reached_, reached_seq_});
    return out;
}

std::vector<CoverageCheck::Hole> CoverageCheck::unexplained() const {
    std::vector<Hole> out;
    for (const auto& hole : holes_and_tail()) {
        const bool explained = std::ranges::any_of(
            gaps_, [&](const Span& gap) { return gap.from <= hole.from && gap.to >= hole.to; });
        if (!explained) out.push_back(hole);
    }
    return out;
}

}  // namespace egresswatch::evidence
