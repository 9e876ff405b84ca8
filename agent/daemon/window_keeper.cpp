// agent/daemon/window_keeper.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/window_keeper.h"

#include <system_error>

#include "classifier/region/file_io.h"

namespace egresswatch::daemon {

namespace {

std::string write(const std::filesystem::path& path, const std::string& bytes) {
    const auto body = std::as_bytes(std::span(bytes));
    const Sha256 sum = sha256_of({body});
    const auto written = write_file_atomically(path, {body, std::as_bytes(std::span(sum))});
    return written ? std::string() : written.error().message;
}

}  // namespace

std::expected<std::optional<rules::RestoredState>, std::string> WindowKeeper::restore(
    rules::Evaluator& evaluator) const {
    std::error_code error;
    if (!std::filesystem::exists(path_, error)) return std::nullopt;
    const auto file = MappedFile::open(path_);
    if (!file) return std::unexpected(file.error().message);
    const auto bytes = file->bytes();
    Sha256 sum{};
    if (bytes.size() < sum.size()) return std::unexpected(path_.string() + " is cut");
    const auto body = bytes.first(bytes.size() - sum.size());
    std::memcpy(sum.data(), bytes.data() + body.size(), sum.size());
    if (sha256_of({body}) != sum)
        return std::unexpected(path_.string() + " is damaged: its checksum differs");
    auto restored = evaluator.restore({reinterpret_cast<const char*>(body.data()), body.size()});
    if (!restored) return std::unexpected(path_.string() + ": " + restored.error());
    return *restored;
}

bool WindowKeeper::keep(const rules::Evaluator& evaluator, Timestamp wall_clock) {
    if (writing_) return finish(false);
    const auto now = std::chrono::steady_clock::now();
    if (due_ == std::chrono::steady_clock::time_point{}) due_ = now + interval_;
    if (now < due_) return false;
    due_ = now + interval_;
    std::string bytes = evaluator.save();
    const std::size_t size = bytes.size();
    writing_ = Writing{
        std::async(std::launch::async, [path = path_, body = std::move(bytes)] { return write(path, body); }),
        wall_clock, size};
    return false;
}

void WindowKeeper::save_now(const rules::Evaluator& evaluator, Timestamp wall_clock) {
    if (writing_) finish(true);
    due_ = {};
    const std::string bytes = evaluator.save();
    status_ = {wall_clock, bytes.size(), write(path_, bytes)};
}

bool WindowKeeper::finish(bool wait) {
    if (!wait && writing_->error.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return false;
    status_.error = writing_->error.get();
    if (status_.error.empty()) {
        status_.saved = writing_->started;
        status_.bytes = writing_->bytes;
    }
    writing_.reset();
    return true;
}

}  // namespace egresswatch::daemon
