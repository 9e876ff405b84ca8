// agent/evidence/line_source.h - the lines of a file, each as a view into one buffer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "agent/unique_fd.h"

namespace egresswatch::evidence {

class LineSource {
public:
    explicit LineSource(const std::filesystem::path& path);
    // Without its line feed; valid until the next call. Nothing at the end, or behind the last line feed.
    [[nodiscard]] std::optional<std::string_view> next();
    [[nodiscard]] std::uint64_t consumed() const noexcept { return consumed_; }
    [[nodiscard]] std::size_t torn_bytes() const noexcept { return end_ - at_; }  // after the last line
    [[nodiscard]] bool failed() const noexcept { return failed_; }

private:
    bool fill();
    UniqueFd fd_;
    std::string buffer_;
    std::size_t at_ = 0;   // of the next line
    std::size_t end_ = 0;  // of what was read
    std::uint64_t consumed_ = 0;
    bool failed_ = false;
    bool ended_ = false;
};

}  // namespace egresswatch::evidence
