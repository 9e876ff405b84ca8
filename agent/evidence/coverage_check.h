// agent/evidence/coverage_check.h - coverage records must tile the time that a journal speaks of, to its end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace egresswatch::evidence {

class CoverageCheck {
public:
    // The longest interval between coverage records that can be configured, twice: a record that is later
    // than that after the last of them shows that they have stopped.
    static constexpr std::chrono::seconds tail_max{120};

    struct Hole {
        std::string from;
        std::string to;
        std::uint64_t seq = 0;  // of the coverage record behind it, or of the last record
    };
    // Texts of one form whose order is that of time (records::format_time).
    void coverage(std::uint64_t seq, std::string_view from, std::string_view to);
    void gap(std::string_view from, std::string_view to);
    void other(std::uint64_t seq, std::string_view time);  // a record that shows that the daemon ran
    // Records between the last one and the next were erased, and a gap record says so.
    void records_missing() noexcept { missing_ = true; }
    // Holes that no gap record explains.
    [[nodiscard]] std::vector<Hole> unexplained() const;
    [[nodiscard]] const std::string& first() const noexcept { return first_; }
    [[nodiscard]] const std::string& last() const noexcept { return last_; }

private:
    [[nodiscard]] std::vector<Hole> holes_and_tail() const;

    struct Span {
        std::string from;
        std::string to;
    };
    std::string first_;
    std::string last_;
    bool missing_ = false;
    std::vector<Hole> holes_;
    std::vector<Span> gaps_;
    std::string reached_;  // time of the last record
    std::uint64_t reached_seq_ = 0;
};

}  // namespace egresswatch::evidence
