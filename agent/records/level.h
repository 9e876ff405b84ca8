// agent/records/level.h - importance of a record, and the bodies that a message can have; no JSON behind it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace egresswatch::records {

// Importance of a record. Findings have low to critical; every other kind is info unless it says `level`.
enum class Level : std::uint8_t { info, low, medium, high, critical };
[[nodiscard]] std::string_view level_name(Level level) noexcept;
[[nodiscard]] std::optional<Level> parse_level(std::string_view name) noexcept;

enum class BodyKind : std::uint8_t { ecs, text, cef, leef, ocsf };
[[nodiscard]] constexpr bool is_json(BodyKind kind) noexcept {
    return kind == BodyKind::ecs || kind == BodyKind::ocsf;
}

}  // namespace egresswatch::records
