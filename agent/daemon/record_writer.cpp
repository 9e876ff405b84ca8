// agent/daemon/record_writer.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/record_writer.h"

namespace egresswatch::daemon {

bool JournalWriter::write(const records::Json& record) noexcept {
    const auto urgency = journal::urgency_of(record);
    const auto written = journal_.append(record, urgency);
    if (written) {
        if (notary_ != nullptr && urgency == journal::Urgency::immediate) notary_->request();
        return true;
    }
    if (error_.empty()) error_ = written.error().to_string();
    if (record.value("kind", "") != "finding") return false;
    // Without a number of the journal, the time of writing is what makes its event.id its own: the same at
    // every receiver.
    records::Json direct = record;
    direct["written"] = records::format_time(
        std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now()));
    for (outputs::Output* output : outputs_) output->deliver_unjournaled(direct);
    return false;
}

}  // namespace egresswatch::daemon
