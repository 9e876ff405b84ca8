// agent/cli/journal_flows.h - the flow records of a journal as flow updates again.
// SPDX-License-Identifier: Apache-2.0
//
// In:      a journal directory.    Out: one update a record, in the order of the journal.
// Lost against the packets: when within its life a flow sent what (its volume since the last record counts at
// its last_seen); flows in the region and local ones; flows beyond the rate at which records were written
// (skipped()). Fails:   a record that is not what docs/records.md says is counted and left out.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "agent/records/record.h"
#include "classifier/flow_update.h"
#include "rules/owned_facts.h"

namespace egresswatch::cli {

struct JournalFlow {
    FlowUpdate update;  // without a class id: the policy at hand decides the class
    rules::OwnedFacts facts;
    std::string country;  // as it was recorded; "unknown"
    bool allowed = false;
};

class JournalFlows {
public:
    [[nodiscard]] static std::expected<JournalFlows, std::string> open(std::filesystem::path directory);

    void for_each(const std::function<void(const JournalFlow&)>& take);
    [[nodiscard]] std::uint64_t records() const noexcept { return records_; }
    [[nodiscard]] std::uint64_t unreadable() const noexcept { return unreadable_; }
    // Flow records that the daemon did not write, for their rate.
    [[nodiscard]] std::uint64_t skipped() const noexcept { return skipped_; }
    [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }

    // Whether a path is a journal: the directory, or the state directory above it.
    [[nodiscard]] static bool is_journal(const std::filesystem::path& path);

private:
    explicit JournalFlows(std::filesystem::path directory) : directory_(std::move(directory)) {}
    bool take_flow(const records::Json& record, const std::function<void(const JournalFlow&)>& take);

    std::filesystem::path directory_;
    std::map<std::string, FlowCounters> told_;  // of flows recorded before: what their record said
    std::uint64_t records_ = 0, unreadable_ = 0, skipped_ = 0;
};

}  // namespace egresswatch::cli
