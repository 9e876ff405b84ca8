// agent/cli/learn_file.h - what was observed, as a policy file for people to review.
// SPDX-License-Identifier: Apache-2.0
//
// Every entry lacks an owner, a reason and an end: rules::placeholder stands there, and no policy with one of
// them is ever loaded.
#pragma once

#include <string>

#include "agent/observation.h"

namespace egresswatch::cli {

struct LearnedFrom {
    std::string source;   // "capture x.pcap"
    std::string command;  // by which it can be done again
};

struct Proposal {
    std::string text;  // the file
    std::size_t entries = 0;
    std::size_t left_out = 0;  // groups below bytes_min
};

[[nodiscard]] Proposal propose(const Observation& observation, const LearnedFrom& from,
                               std::uint64_t bytes_min);

}  // namespace egresswatch::cli
