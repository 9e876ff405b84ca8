// agent/evidence/coverage_check.h - coverage records must tile the time that a journal speaks of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace egresswatch::evidence {

class CoverageCheck {
public:
    struct Hole {
        std::string from;
        std::string to;
        std::uint64_t seq = 0;  // of the coverage record behind it
    };
    // Texts of one form whose order is that of time (records::format_time).
    void coverage(std::uint64_t seq, std::string_view from, std::string_view to);
    void gap(std::string_view from, std::string_view to);
    // Records between the last one and the next were erased, and a gap record says so.
    void records_missing() noexcept { missing_ = true; }
    // Holes that no gap record explains.
    [[nodiscard]] std::vector<Hole> unexplained() const;
    [[nodiscard]] const std::string& first() const noexcept { return first_; }
    [[nodiscard]] const std::string& last() const noexcept { return last_; }

private:
    struct Span {
        std::string from;
        std::string to;
    };
    std::string first_;
    std::string last_;
    bool missing_ = false;
    std::vector<Hole> holes_;
    std::vector<Span> gaps_;
};

}  // namespace egresswatch::evidence
