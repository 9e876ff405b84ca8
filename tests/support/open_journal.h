// tests/support/open_journal.h - an empty journal in a folder of the test's own, writing already.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "agent/journal/journal.h"
#include "tests/support/catch.h"
#include "tests/support/sample_finding.h"
#include "tests/support/temp_dir.h"

namespace egresswatch::testing {

inline std::unique_ptr<journal::Journal> open_journal(const TempDir& dir) {
    journal::Config config;
    config.directory = dir.path() / "journal";
    config.origin = sample_origin();
    auto opened = journal::Journal::open(std::move(config));
    if (!opened) FAIL(opened.error().to_string());
    (*opened)->start();
    return std::move(*opened);
}

}  // namespace egresswatch::testing
