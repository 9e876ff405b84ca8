// agent/daemon/record_writer.h - where the daemon's records go: the journal, and around it when it is broken.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "agent/evidence/notary.h"
#include "agent/journal/journal.h"
#include "agent/outputs/output.h"
#include "agent/records/record.h"

namespace egresswatch::daemon {

class RecordWriter {
public:
    virtual ~RecordWriter() = default;
    [[nodiscard]] virtual const records::Origin& origin() const noexcept = 0;
    // False where the record is not in the journal.
    virtual bool write(const records::Json& record) noexcept = 0;
};

// Findings that the journal refuses go to the outputs at once, marked unjournaled; other records are counted
// by the journal as unjournaled and are lost. A high finding asks the notary for a checkpoint.
class JournalWriter final : public RecordWriter {
public:
    JournalWriter(records::Origin origin, journal::Journal& journal)
        : origin_(std::move(origin)), journal_(journal) {}

    void add_output(outputs::Output* output) { outputs_.push_back(output); }
    [[nodiscard]] const records::Origin& origin() const noexcept override { return origin_; }
    void set_notary(evidence::Notary* notary) noexcept { notary_ = notary; }
    bool write(const records::Json& record) noexcept override;
    // The first error since the last call, for the log; empty: none.
    [[nodiscard]] std::string take_error() { return std::exchange(error_, {}); }

private:
    records::Origin origin_;
    journal::Journal& journal_;
    std::vector<outputs::Output*> outputs_;
    evidence::Notary* notary_ = nullptr;
    std::string error_;
};

}  // namespace egresswatch::daemon
