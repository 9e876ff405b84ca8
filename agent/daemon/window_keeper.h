// agent/daemon/window_keeper.h - keeps what the rules remember in a file, so that days add up over a restart.
// SPDX-License-Identifier: Apache-2.0
//
// In:      an Evaluator, from the loop.   Out: <state_dir>/windows.state: its bytes and their SHA-256.
// Threads: save() on the loop makes the bytes; a thread of its own writes, fsyncs and renames. One at a time.
// Loss:    a daemon that is killed loses what was counted since the last save, `interval` at the most;
// findings made
//          since are taken from the journal (recall.h), the repeats counted since are not.
// Fails:   a file that is not whole, or of another layout, is refused and said; the windows begin empty.
#pragma once

#include <chrono>
#include <expected>
#include <filesystem>
#include <future>
#include <optional>
#include <string>

#include "classifier/flow_update.h"
#include "rules/evaluator.h"

namespace egresswatch::daemon {

class WindowKeeper {
public:
    WindowKeeper(std::filesystem::path path, std::chrono::seconds interval)
        : path_(std::move(path)), interval_(interval) {}

    struct Status {
        std::optional<Timestamp> saved;  // wall clock of the last save that was written
        std::size_t bytes = 0;
        std::string error;  // of the last one; empty: none
    };

    // Nothing where there is no file.
    [[nodiscard]] std::expected<std::optional<rules::RestoredState>, std::string> restore(
        rules::Evaluator& evaluator) const;
    // Saves when the interval is over and nothing is being written. True where the status has changed.
    bool keep(const rules::Evaluator& evaluator, Timestamp wall_clock);
    // At once, and waits for it.
    void save_now(const rules::Evaluator& evaluator, Timestamp wall_clock);
    [[nodiscard]] const Status& status() const noexcept { return status_; }

private:
    bool finish(bool wait);

    std::filesystem::path path_;
    std::chrono::seconds interval_;
    std::chrono::steady_clock::time_point due_{};
    struct Writing {
        std::future<std::string> error;
        Timestamp started;
        std::size_t bytes;
    };
    std::optional<Writing> writing_;
    Status status_;
};

}  // namespace egresswatch::daemon
