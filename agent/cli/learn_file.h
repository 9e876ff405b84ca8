// agent/cli/learn_file.h - what was observed, as a policy file for people to review.
// SPDX-License-Identifier: Apache-2.0
//
// Every entry lacks an owner, a reason and an end: rules::placeholder stands there, and no policy with one of
// them is ever loaded.
#pragma once

#include <functional>
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

struct ProposalOptions {
    std::uint64_t bytes_min = 0;
    std::function<std::uint32_t(const Address&)> asn_of;  // none, and 0: unknown
    bool by_asn = false;  // one entry for each AS, country, direction and process, instead of each network
};

[[nodiscard]] Proposal propose(const Observation& observation, const LearnedFrom& from,
                               const ProposalOptions& options);

}  // namespace egresswatch::cli
