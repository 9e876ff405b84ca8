// agent/daemon/record_writer.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/record_writer.h"

namespace egresswatch::daemon {

void JournalWriter::write(const records::Json& record) noexcept {
    const auto written = journal_.append(record);
    if (written) return;
    if (error_.empty()) error_ = written.error().to_string();
    if (record.value("kind", "") != "finding") return;
    for (outputs::SyslogOutput* output : outputs_) output->deliver_unjournaled(record);
}

}  // namespace egresswatch::daemon
